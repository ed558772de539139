package undo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// ErrSuperseded says that another session holds the workload by now: there is
// nothing left of this one to put back.
var ErrSuperseded = errors.New("another session holds it by now")

// Doer sends one request to the API server and returns the status and the body
// of its answer. Only when there was none it returns an error.
type Doer func(ctx context.Context, method, path, contentType string, body []byte) (status int, answer []byte, err error)

// StatusError is the API server's no.
type StatusError struct {
	What    string // what was asked for
	Status  int
	Message string
}

// Error says what was asked for and what the server answered.
func (e *StatusError) Error() string {
	message := e.Message
	if message == "" {
		message = http.StatusText(e.Status)
	}
	return fmt.Sprintf("%s: the server answered %d: %s", e.What, e.Status, message)
}

// Forbidden tells whether the rights for it are missing.
func (e *StatusError) Forbidden() bool { return e.Status == http.StatusForbidden }

// Apply sends the requests in order, and stops at the first that is refused: the
// ones after it count on it. It may be called again at any time, by anyone. The
// error wraps ErrSuperseded where a request finds that the rest is another
// session's to do, a *StatusError where the server refuses one.
func Apply(ctx context.Context, do Doer, requests []Request) error {
	for _, q := range requests {
		status, answer, err := ask(ctx, do, q)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", q.What, err)
		case slices.Contains(q.Stop, status):
			return fmt.Errorf("%s: %w", q.What, ErrSuperseded)
		case status >= 300 && !slices.Contains(q.Ignore, status):
			return &StatusError{What: q.What, Status: status, Message: message(answer)}
		}
	}
	return nil
}

// The first pause before a request is sent once more, doubled each time, and how
// often it is sent.
const (
	firstPause = 200 * time.Millisecond
	tries      = 5
)

// ask sends one request, and once more where the server is only busy, or where
// others have changed the object at the same moment.
func ask(ctx context.Context, do Doer, q Request) (int, []byte, error) {
	pause := firstPause
	for n := 1; ; n++ {
		status, answer, err := do(ctx, q.Method, q.Path, q.ContentType, q.Body)
		if err != nil || n == tries || !passing(status) || slices.Contains(q.Ignore, status) {
			return status, answer, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return status, answer, nil
		}
		pause *= 2
	}
}

// passing tells whether the server may well say yes a moment later.
func passing(status int) bool {
	switch status {
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// message is what a Status object of the API server's says, or nothing.
func message(answer []byte) string {
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &status) != nil {
		return ""
	}
	return status.Message
}

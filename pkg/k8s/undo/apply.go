package undo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

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
// ones after it count on it. It may be called again at any time, by anyone.
func Apply(ctx context.Context, do Doer, requests []Request) error {
	for _, q := range requests {
		status, answer, err := do(ctx, q.Method, q.Path, q.ContentType, q.Body)
		if err != nil {
			return fmt.Errorf("%s: %w", q.What, err)
		}
		if status >= 300 && !slices.Contains(q.Ignore, status) {
			return &StatusError{What: q.What, Status: status, Message: message(answer)}
		}
	}
	return nil
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

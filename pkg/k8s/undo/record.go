// Package undo puts a workload back as it was: it holds the record of how, in
// the form of API requests that anyone may read and send, and sends them.
//
// It is the standard library's only, so that the client, the agent in the
// cluster and `telepresence leave` run the same code.
package undo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Version is that of the record's format. A record of a newer one is refused:
// half of it may be what this program doesn't know.
const Version = 1

// Record is how to put a workload back. It is written into the cluster before
// anything is changed, and never changed after that.
type Record struct {
	Version  int       `json:"version"`
	Session  string    `json:"session"`
	Owner    string    `json:"owner"`    // user@host
	Workload string    `json:"workload"` // deployment/web
	Created  time.Time `json:"created"`
	Serving  int       `json:"serving,omitempty"` // how many originals were ready then: as many are to be waited for
	Restore  []Request `json:"restore"`           // brings the originals back
	Remove   []Request `json:"remove"`            // takes away what the session has made, the record last
}

// Request is one request to the API server. Sending it twice does what sending
// it once does.
type Request struct {
	What        string          `json:"what"` // one phrase for a human: "scale deployment web to 3"
	Method      string          `json:"method"`
	Path        string          `json:"path"`
	ContentType string          `json:"contentType,omitempty"`
	Body        json.RawMessage `json:"body,omitempty"`
	Ignore      []int           `json:"ignore,omitempty"` // statuses that say it is so already
	Stop        []int           `json:"stop,omitempty"`   // statuses that say the rest is another session's to do
}

// Marshal is the record as JSON, one value a line, for people to read.
func (r Record) Marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("writing the undo record of session %s: %w", r.Session, err)
	}
	return b.Bytes(), nil
}

// Parse reads a record. Whoever may write into the namespace may have written
// it, so that all of it is checked: it can do nothing but change, and delete,
// objects by their path.
func Parse(text []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("reading an undo record: %w", err)
	}
	if dec.More() {
		return Record{}, errors.New("reading an undo record: there is more behind it")
	}
	if r.Version != Version {
		return Record{}, fmt.Errorf("reading an undo record: its version is %d and this program knows %d: use the telepresence that wrote it", r.Version, Version)
	}
	for _, list := range [][]Request{r.Restore, r.Remove} {
		for _, q := range list {
			if err := q.check(); err != nil {
				return Record{}, fmt.Errorf("reading the undo record of session %s: %w", r.Session, err)
			}
		}
	}
	return r, nil
}

// check refuses what no record of ours holds.
func (q Request) check() error {
	switch q.Method {
	case http.MethodPatch, http.MethodDelete, http.MethodPut:
	default:
		return fmt.Errorf("%q: method %q is not one of a record's", q.What, q.Method)
	}
	if !strings.HasPrefix(q.Path, "/api/") && !strings.HasPrefix(q.Path, "/apis/") {
		return fmt.Errorf("%q: path %q is not an object's", q.What, q.Path)
	}
	if strings.Contains(q.Path, "..") || strings.Contains(q.Path, "//") || strings.ContainsAny(q.Path, "?#% ") {
		return fmt.Errorf("%q: path %q is not plain", q.What, q.Path)
	}
	return nil
}

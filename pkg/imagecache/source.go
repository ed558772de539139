package imagecache

import (
	"context"
	"errors"
)

// Peer is another node, of which chunks can be had. Its methods are safe for
// concurrent use.
type Peer interface {
	// Chunk asks for a chunk of a blob that is in repo at the origin. With
	// held, the peer answers only from what it has. tell is called as the
	// answer gets on: with Taken again each time that is known.
	Chunk(ctx context.Context, repo string, c Chunk, held bool, tell func(Stage)) (Answer, error)
}

// Stage is how far a peer is with its answer.
type Stage int

// The stages that come before the answer.
const (
	Taken   Stage = iota + 1 // it has the question, and works on it, or the origin sends it more
	Sending                  // it has the chunk: only its link can be slow now
)

// Origin is where images are from. Safe for concurrent use.
type Origin interface {
	// Chunk asks for a chunk of a blob in repo. more is called as bytes come.
	Chunk(ctx context.Context, repo string, c Chunk, more func()) (Answer, error)
}

// Answer is a chunk, and what is known with it.
type Answer struct {
	Data []byte
	Size int64 // of the whole blob
}

// ErrNotHeld says that a peer doesn't have what it was asked for, which is no
// fault.
var ErrNotHeld = errors.New("not held here")

// ErrUnknown says that the origin doesn't know a blob.
var ErrUnknown = errors.New("unknown to the registry")

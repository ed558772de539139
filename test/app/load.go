package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// loadPause is the time between two requests of one user under load.
const loadPause = 20 * time.Millisecond

// A load is users who send requests one after another, half of them on a new
// connection each time and half on one that they keep, and count what they
// get. It may be used from several goroutines.
type load struct {
	mu       sync.Mutex // guards the fields below
	cancel   context.CancelFunc
	users    sync.WaitGroup
	answered map[string]int // by answer
	lost     []string       // the error of each request without one
}

// start begins anew with two users for every URL.
func (l *load) start(urls []string) {
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel, l.answered, l.lost = cancel, map[string]int{}, nil
	for _, url := range urls {
		for _, keep := range []bool{true, false} {
			l.users.Go(func() { l.use(ctx, url, keep) })
		}
	}
}

// use is one user: it ends between two requests, never within one.
func (l *load) use(ctx context.Context, url string, keep bool) {
	transport := &http.Transport{DisableKeepAlives: !keep}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for ctx.Err() == nil {
		began := time.Now()
		body, err := fetch(context.WithoutCancel(ctx), client, url)
		l.mu.Lock()
		if err != nil {
			l.lost = append(l.lost, fmt.Sprintf("%s after %v, kept %t: %v",
				began.UTC().Format("15:04:05.000"), time.Since(began).Round(time.Millisecond), keep, err))
		} else {
			l.answered[strings.TrimSpace(string(body))]++
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(loadPause):
		}
	}
}

// stop ends the load, if there is one, and reports.
func (l *load) stop() string {
	l.mu.Lock()
	cancel := l.cancel
	l.cancel = nil
	l.mu.Unlock()
	if cancel != nil {
		cancel()
		l.users.Wait()
	}
	return l.report()
}

// report has a line for each kind of answer and one for each request lost.
func (l *load) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for answer, count := range l.answered {
		lines = append(lines, fmt.Sprintf("%d × %s\n", count, answer))
	}
	slices.Sort(lines)
	lines = append(lines, fmt.Sprintf("%d lost\n", len(l.lost)))
	for _, reason := range l.lost {
		lines = append(lines, "lost "+reason+"\n")
	}
	return strings.Join(lines, "")
}

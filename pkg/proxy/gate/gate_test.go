package gate

import (
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAwaitEndsByOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var g Gate
		open := false
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				mu.Lock()
				defer mu.Unlock()
				for !open {
					g.Await(&mu, time.Time{})
				}
			})
		}
		synctest.Wait()
		mu.Lock()
		open = true
		g.Open()
		mu.Unlock()
		wg.Wait()
	})
}

func TestAwaitEndsByDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var g Gate
		deadline := time.Now().Add(time.Second)
		if err := Expired(deadline); err != nil {
			t.Fatalf("Expired before the deadline: %v", err)
		}
		mu.Lock()
		g.Await(&mu, deadline)
		mu.Unlock()
		if err := Expired(deadline); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Expired after the deadline: %v", err)
		}
		if Expired(time.Time{}) != nil {
			t.Fatal("no deadline has expired")
		}
	})
}

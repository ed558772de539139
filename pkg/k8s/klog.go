package k8s

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"k8s.io/klog/v2"
)

// client-go writes to one logger of the whole program, which may be set once,
// before anybody uses it. What it writes goes to the log of the Cluster that was
// connected last with one, or nowhere.
var (
	setKlog sync.Once
	klogTo  atomic.Pointer[slog.Logger]
)

// logTo has client-go write to a log; nil leaves it where it is. It is safe for
// concurrent use.
func logTo(log *slog.Logger) {
	if log != nil {
		klogTo.Store(log)
	}
	setKlog.Do(func() {
		klogTo.CompareAndSwap(nil, slog.New(slog.DiscardHandler))
		klog.SetSlogLogger(slog.New(latest{}))
	})
}

// latest is a slog.Handler that hands on to klogTo's.
type latest struct{}

func (latest) Enabled(ctx context.Context, level slog.Level) bool {
	return klogTo.Load().Enabled(ctx, level)
}

func (latest) Handle(ctx context.Context, r slog.Record) error {
	return klogTo.Load().Handler().Handle(ctx, r)
}

func (latest) WithAttrs(attrs []slog.Attr) slog.Handler {
	return klogTo.Load().Handler().WithAttrs(attrs)
}

func (latest) WithGroup(name string) slog.Handler {
	return klogTo.Load().Handler().WithGroup(name)
}

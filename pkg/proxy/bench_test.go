package proxy

import (
	"io"
	"net"
	"sync"
	"testing"
)

// BenchmarkDown measures one flow from the pod to the client, in bytes per second.
func BenchmarkDown(b *testing.B) {
	client, pod := outbound(b, startAgent(b).connect(b))
	benchmarkStream(b, client, pod)
}

// BenchmarkUp measures one flow from the client to the pod.
func BenchmarkUp(b *testing.B) {
	client, pod := outbound(b, startAgent(b).connect(b))
	benchmarkStream(b, pod, client)
}

// benchmarkStream copies b.N blocks from one end to the other, as the engine does: with io.Copy.
func benchmarkStream(b *testing.B, to io.Reader, from net.Conn) {
	const block = 128 << 10
	b.SetBytes(block)
	b.ResetTimer()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := io.Copy(from, io.LimitReader(zeros{}, int64(b.N)*block))
		if err != nil {
			b.Error(err)
		}
		_ = from.(interface{ CloseWrite() error }).CloseWrite()
	})
	if n, err := io.Copy(io.Discard, to); n != int64(b.N)*block || err != nil {
		b.Errorf("%d of %d bytes arrived: %v", n, int64(b.N)*block, err)
	}
	wg.Wait()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// BenchmarkRoundTrip measures a request and its answer on an open flow.
func BenchmarkRoundTrip(b *testing.B) {
	client, pod := outbound(b, startAgent(b).connect(b))
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(pod, pod) })
	buf := make([]byte, 64)
	for b.Loop() {
		if _, err := client.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(client, buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = client.Close()
	wg.Wait()
}

// BenchmarkConnect measures a connection with a request and an answer, many at once.
func BenchmarkConnect(b *testing.B) {
	c := startAgent(b).connect(b)
	l, addr := podListener(b)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	ctx := testContext(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 64)
		for pb.Next() {
			conn, err := c.DialContext(ctx, "tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			_, err = conn.Write(buf)
			if err == nil {
				_, err = io.ReadFull(conn, buf)
			}
			if err != nil {
				b.Error(err)
			}
			_ = conn.Close()
		}
	})
	b.StopTimer()
	_ = l.Close()
	wg.Wait()
}

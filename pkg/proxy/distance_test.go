package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// far is a connection whose other end is a delay away in each direction; its bandwidth is that of memory.
type far struct {
	net.Conn
	delay time.Duration
	wg    sync.WaitGroup
	up    chan parcel // what is under way
	down  chan parcel
	rest  []byte
	end   sync.Once
	done  chan struct{}
}

// parcel is bytes and when they arrive.
type parcel struct {
	data []byte
	at   time.Time
	err  error
}

func newFar(nc net.Conn, delay time.Duration) *far {
	f := &far{Conn: nc, delay: delay, up: make(chan parcel, 1<<14), down: make(chan parcel, 1<<14), done: make(chan struct{})}
	f.wg.Go(func() {
		for {
			select {
			case p := <-f.up:
				f.await(p.at)
				if _, err := nc.Write(p.data); err != nil {
					return
				}
			case <-f.done:
				return
			}
		}
	})
	f.wg.Go(func() {
		for {
			buf := make([]byte, 64<<10)
			n, err := nc.Read(buf)
			select {
			case f.down <- parcel{buf[:n], time.Now().Add(delay), err}:
			case <-f.done:
				return
			}
			if err != nil {
				return
			}
		}
	})
	return f
}

func (f *far) await(at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.done:
	}
}

func (f *far) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		select {
		case next := <-f.down:
			f.await(next.at)
			if next.err != nil {
				return 0, next.err
			}
			f.rest = next.data
		case <-f.done:
			return 0, net.ErrClosed
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *far) Write(p []byte) (int, error) {
	select {
	case f.up <- parcel{append([]byte(nil), p...), time.Now().Add(f.delay), nil}:
		return len(p), nil
	case <-f.done:
		return 0, net.ErrClosed
	}
}

func (f *far) Close() error {
	f.end.Do(func() { close(f.done) })
	err := f.Conn.Close()
	f.wg.Wait()
	return err
}

// connectFar connects a client from a distance.
func connectFar(t testing.TB, a *agent, rtt time.Duration) *Client {
	t.Helper()
	c, err := Connect(testContext(t), ClientConfig{Keys: a.keys, Dial: func(ctx context.Context) (net.Conn, error) {
		nc, err := a.dial(ctx)
		if err != nil || rtt == 0 {
			return nc, err
		}
		return newFar(nc, rtt/2), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestStripes sends much both ways from a distance, where flows go over several channels, and where the agent has too
// little memory for that; the line breaks meanwhile.
func TestStripes(t *testing.T) {
	t.Parallel()
	for name, buffer := range map[string]int{"striped": 32 << 20, "one channel": 1 << 20} {
		for way, flow := range flows {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				a := startAgent(t, func(cfg *ServerConfig) { cfg.Buffer = buffer })
				c := connectFar(t, a, 10*time.Millisecond)
				for c.rtt.Load() == 0 { // measured soon
					if err := c.SetReady(testContext(t), true); err != nil {
						t.Fatal(err)
					}
				}
				client, pod := flow(t, c)
				data := make([]byte, 8<<20+12345)
				rnd := rand.New(rand.NewPCG(1, 2))
				for i := range data {
					data[i] = byte(rnd.Uint32())
				}
				var wg sync.WaitGroup
				for _, ends := range [][2]net.Conn{{client, pod}, {pod, client}} {
					wg.Go(func() {
						if _, err := io.Copy(ends[0], bytes.NewReader(data)); err != nil {
							t.Error(err)
						}
						if err := ends[0].(interface{ CloseWrite() error }).CloseWrite(); err != nil {
							t.Error(err)
						}
					})
					wg.Go(func() {
						var got bytes.Buffer
						_, err := io.CopyN(&got, ends[1], 4<<20)
						a.breakLine(false)
						if err == nil {
							_, err = io.Copy(&got, ends[1])
						}
						if err != nil || !bytes.Equal(got.Bytes(), data) {
							t.Errorf("%d of %d bytes arrived, or others: %v", got.Len(), len(data), err)
						}
					})
				}
				wg.Wait()
				if b, ok := client.(*Conn).ch.(*bond); !ok || (b.out.Load() != nil) != (buffer > stripesBuffer) || b.in.Load() == nil {
					t.Errorf("stripes for writing: %v, for reading: %v", b.out.Load() != nil, b.in.Load() != nil)
				}
			})
		}
	}
}

// TestStripesReset resets a flow with stripes at either end, with the other one waiting for more.
func TestStripesReset(t *testing.T) {
	t.Parallel()
	c := connectFar(t, startAgent(t), 10*time.Millisecond)
	for _, by := range []string{"client", "pod"} {
		client, pod := outbound(t, c)
		var wg sync.WaitGroup
		for _, ends := range [][2]net.Conn{{client, pod}, {pod, client}} {
			wg.Go(func() { _, _ = io.Copy(ends[0], io.LimitReader(zeros{}, 5<<20)) })
			wg.Go(func() {
				if _, err := io.CopyN(io.Discard, ends[1], 5<<20); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		end := pod
		if by == "client" {
			_ = client.(*Conn).Reset()
		} else {
			_ = pod.(*net.TCPConn).SetLinger(0)
			_ = pod.Close()
			end = client
		}
		if _, err := end.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reset by the %s: the other end read %v", by, err)
		}
	}
}

// BenchmarkDistance measures flows from the pod over round trips of some length.
func BenchmarkDistance(b *testing.B) {
	for _, rtt := range []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond} {
		for _, count := range []int{1, 8} {
			b.Run(fmt.Sprintf("rtt=%v/flows=%d", rtt, count), func(b *testing.B) {
				a := startAgent(b, func(cfg *ServerConfig) { cfg.Buffer = 32 << 20 })
				c := connectFar(b, a, rtt)
				const size = 128 << 20
				b.SetBytes(size)
				var clients, pods []net.Conn
				for range count {
					client, pod := outbound(b, c)
					clients, pods = append(clients, client), append(pods, pod)
				}
				for b.Loop() {
					var wg sync.WaitGroup
					for i := range count {
						wg.Go(func() { _, _ = io.CopyN(pods[i], zeros{}, size/int64(count)) })
						wg.Go(func() {
							if n, err := io.CopyN(io.Discard, clients[i], size/int64(count)); err != nil {
								b.Errorf("%d bytes arrived, %v", n, err)
							}
						})
					}
					wg.Wait()
				}
			})
		}
	}
}

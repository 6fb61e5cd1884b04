package bus_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/seal/sealtest"
)

// benchDir is the folder of a benchmark's store; EBB_BENCH_SEALED=1 seals it.
func benchDir(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	if os.Getenv("EBB_BENCH_SEALED") != "" {
		sealtest.Into(b, filepath.Join(dir, "seal"))
	}
	return dir
}

// BenchmarkPublish measures durable publishes of one event of about 256 bytes each.
func BenchmarkPublish(b *testing.B) {
	for _, parts := range []int{1, 4} {
		for _, callers := range []int{1, 8, 64, 256} {
			b.Run(fmt.Sprintf("partitions=%d/callers=%d", parts, callers), func(b *testing.B) {
				w := start(b, benchDir(b), bus.Options{Partitions: parts})
				var n atomic.Int64
				b.ResetTimer()
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() {
						for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
							e := newEvent(fmt.Sprint(i))
							e.Data = make([]byte, 200)
							if _, err := w.Publish(b.Context(), e); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			})
		}
	}
}

// BenchmarkDeliver measures from a durable publish to the end of the delivery.
func BenchmarkDeliver(b *testing.B) {
	for _, batch := range []int{1, 10} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			r := &target{}
			w := start(b, benchDir(b), bus.Options{Deliver: r})
			if err := w.Subscribe(b.Context(), bus.Subscription{Name: "s", Batch: batch}); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			var wg sync.WaitGroup
			var n atomic.Int64
			for range 64 {
				wg.Go(func() {
					for i := n.Add(10); i <= int64(b.N)+9; i = n.Add(10) {
						var events []*event.Event
						for k := range 10 {
							events = append(events, newEvent(fmt.Sprint(i, "-", k)))
						}
						if _, err := w.Publish(b.Context(), events...); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			for len(r.all()) < b.N {
				time.Sleep(time.Millisecond)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkLatency measures one event at a time, from the call of Publish to the start of Deliver.
func BenchmarkLatency(b *testing.B) {
	r := &target{}
	w := start(b, benchDir(b), bus.Options{Deliver: r})
	if err := w.Subscribe(b.Context(), bus.Subscription{Name: "s"}); err != nil {
		b.Fatal(err)
	}
	var all []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		if _, err := w.Publish(b.Context(), newEvent(fmt.Sprint(i))); err != nil {
			b.Fatal(err)
		}
		for {
			r.mu.Lock()
			n := len(r.mu.got)
			r.mu.Unlock()
			if n > i {
				break
			}
			time.Sleep(20 * time.Microsecond)
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkQueue measures messages that are sent, received and deleted in batches of 10, by as many senders as receivers.
func BenchmarkQueue(b *testing.B) {
	for _, name := range []string{"q", "q.fifo"} {
		for _, callers := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				w := start(b, benchDir(b), bus.Options{})
				w.queue(b, bus.Queue{Name: name, FIFO: name != "q", Visibility: new(time.Hour)})
				var sent, got atomic.Int64
				b.ResetTimer()
				var wg sync.WaitGroup
				for c := range callers {
					wg.Go(func() {
						for i := sent.Add(10); i <= int64(b.N)+9; i = sent.Add(10) {
							var some []string
							for k := range 10 {
								some = append(some, fmt.Sprintf("%d:%d %0200d", c, i+int64(k), 0))
							}
							w.send(b, name, some...)
						}
					})
					wg.Go(func() {
						for got.Load() < int64(b.N) {
							msgs, err := w.Receive(b.Context(), name, bus.Receive{Max: 10, Wait: new(time.Second)})
							if err != nil {
								b.Error(err)
								return
							}
							got.Add(int64(len(msgs)))
							w.remove(b, name, msgs)
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// BenchmarkStream puts records from several goroutines, one at a time, which a mapping consumes in Batches of 100.
func BenchmarkStream(b *testing.B) {
	for _, callers := range []int{1, 64} {
		for _, shards := range []int{1, 4} {
			b.Run(fmt.Sprintf("callers=%d/shards=%d", callers, shards), func(b *testing.B) {
				w := start(b, benchDir(b), bus.Options{})
				w.stream(b, bus.Stream{Name: "s", Shards: shards})
				var got atomic.Int64
				done := make(chan struct{})
				ctx, cancel := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				wg.Go(func() {
					_ = w.PollStream(ctx, bus.StreamMapping{Name: "m", Stream: "s", Start: bus.Start{From: bus.TrimHorizon}}, counter(func(n int) {
						if got.Add(int64(n)) == int64(b.N) {
							close(done)
						}
					}))
				})
				b.ResetTimer()
				var next atomic.Int64
				var puts sync.WaitGroup
				for range callers {
					puts.Go(func() {
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							if _, err := w.PutRecords(context.Background(), "s", []bus.Record{{Key: fmt.Sprint(i), Data: make([]byte, 200)}}); err != nil {
								b.Error(err)
							}
						}
					})
				}
				puts.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
				<-done
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
				b.StopTimer()
				cancel()
				wg.Wait()
			})
		}
	}
}

// counter is a Consumer that counts.
type counter func(n int)

func (c counter) Consume(_ context.Context, b *invocation.Batch) invocation.Verdict {
	c(len(b.Items))
	return invocation.Verdict{}
}

package bus_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/nats"
)

// childLarge in the environment makes the child publish large data.
const childLarge = "EBB_BUS_KILL_LARGE"

// largeNamed gives the data that belong to a name: between 200 KiB and 1.4 MiB.
func largeNamed(name string) []byte {
	parts := strings.Split(name, "/")
	n := uint64(0)
	for _, p := range parts[1:] {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return nil
		}
		n = n*1000 + v
	}
	return large(n, 200<<10+int(n%7)*200<<10)
}

// whole says that something came, if it is what was published under the name.
func whole(name, delivery string, data []byte) error {
	if !bytes.Equal(data, largeNamed(name)) {
		say("error", name, "came with", len(data), "bytes that are not its own")
		return errs.New(errs.Failed, "these are not its data")
	}
	say("got", name, delivery)
	return nil
}

type wholePrinter struct{}

func (wholePrinter) Deliver(_ context.Context, batch []*bus.Delivery) []bus.Outcome {
	out := make([]bus.Outcome, len(batch))
	for i, d := range batch {
		out[i].Err = whole(d.Event.ID, d.ID, d.Event.Data)
	}
	return out
}

func (wholePrinter) Consume(_ context.Context, b *invocation.Batch) (v invocation.Verdict) {
	for i := range b.Items {
		if err := whole(b.Items[i].Event.ID, "message", b.Items[i].Event.Data); err != nil {
			v.Failed = append(v.Failed, i)
		}
	}
	return v
}

// largeOptions removes what has ended at once: data go while others come.
func largeOptions(dir string) bus.Options {
	o := bus.Options{Dir: filepath.Join(dir, "index"), Alone: true, Deliver: wholePrinter{}, Partitions: 2, Retention: time.Millisecond, DedupWindow: time.Millisecond,
		Limits: event.Limits{Event: 4 << 20}, MaxData: 4 << 20}
	return bus.KeepChunks(bus.SweepQueues(bus.Sweep(o, 50*time.Millisecond), 50*time.Millisecond), 20*time.Second)
}

// publishLarge publishes events and sends messages, and prints what was acknowledged after it was. The queue is polled.
func publishLarge(dir, round string) error {
	ctx := context.Background()
	conn, err := nats.Open(ctx, kept(dir))
	if err != nil {
		return err
	}
	b, err := bus.Open(ctx, conn.JetStream(), largeOptions(dir))
	if err != nil {
		return err
	}
	go func() { _ = b.Run(ctx) }()
	if err := b.Subscribe(ctx, bus.Subscription{Name: "s"}); err != nil {
		return err
	}
	if err := b.PutQueue(ctx, bus.Queue{Name: "q", Visibility: new(time.Second)}); err != nil {
		return err
	}
	say("ready")
	go func() { _ = b.Poll(ctx, bus.Mapping{Queue: "q"}, wholePrinter{}) }()
	failed := make(chan error)
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("e/%s/%d/%d", round, g, i)
				var err error
				if g%2 == 0 {
					e := newEvent(id)
					e.Data, e.DataContentType = largeNamed(id), "application/json"
					_, err = b.Publish(ctx, e)
				} else {
					var out []bus.Sent
					if out, err = b.Send(ctx, "q", []bus.Message{{ID: id, Body: largeNamed(id)}}); err == nil {
						err = out[0].Err
					}
				}
				switch {
				case err == nil:
					say("ack", id)
				case errs.CodeOf(err) != errs.Unavailable: // a slow disk may take longer than chunks are kept here
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// Killed at any moment, and while what has ended is removed, no large data that were acknowledged are lost or come cut off.
func TestData_LosesNothingToKill(t *testing.T) {
	t.Parallel()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	acked, got := map[string]bool{}, map[string]map[string]int{}
	for i := range rounds {
		killOnce(t, dir, i, acked, got, childLarge+"=1")
	}
	o := largeOptions(dir)
	late := &target{}
	o.Deliver = late
	w := start(t, dir, o)
	c := &consumer{}
	w.poll(t, bus.Mapping{Queue: "q"}, c)
	settle(t, w)
	until(t, "queue", func() (bool, error) {
		s, err := w.QueueStatus(t.Context(), "q")
		return s.Visible+s.InFlight+s.Delayed == 0, err
	})
	seen := func(id string, data []byte) {
		if !bytes.Equal(data, largeNamed(id)) {
			t.Errorf("%s came with %d bytes", id, len(data))
		}
		if got[id] == nil {
			got[id] = map[string]int{}
		}
	}
	for _, d := range late.all() {
		seen(d.Event.ID, d.Event.Data)
	}
	c.mu.Lock()
	for _, b := range c.mu.got {
		for i := range b.Items {
			seen(b.Items[i].Event.ID, b.Items[i].Event.Data)
		}
	}
	c.mu.Unlock()
	for id := range acked {
		if got[id] == nil {
			t.Errorf("%s was acknowledged and never came", id)
		}
	}
	if len(acked) < rounds-1 {
		t.Fatalf("only %d were acknowledged", len(acked))
	}
	t.Logf("%d rounds, %d acknowledged", rounds, len(acked))
}

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/event"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/nats"
)

// busPeer is ebb's bus as a Node opens it, without the Node.
type busPeer struct {
	conn *nats.Conn
	bus  *bus.Bus
	end  context.CancelFunc
	wait sync.WaitGroup

	done   atomic.Int64     // deliveries and messages
	target chan<- time.Time // takes the start of each delivery, or nil
}

func openBus(ctx context.Context, dir string) (*busPeer, error) {
	p := &busPeer{}
	var err error
	if p.conn, err = nats.Open(ctx, nats.Options{Dir: filepath.Join(dir, "nats")}); err != nil {
		return nil, err
	}
	if p.bus, err = bus.Open(ctx, p.conn.JetStream(), bus.Options{Dir: filepath.Join(dir, "events"), Alone: true, Deliver: p}); err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	p.end = end
	p.wait.Go(func() { _ = p.bus.Run(run) }) // it ends with nil
	return p, p.bus.Sync(ctx)
}

func (p *busPeer) stop() error {
	p.end()
	p.wait.Wait()
	return errors.Join(p.bus.Close(), p.conn.Close())
}

// Deliver counts.
func (p *busPeer) Deliver(_ context.Context, batch []*bus.Delivery) []bus.Outcome {
	if p.target != nil {
		p.target <- time.Now()
	}
	p.done.Add(int64(len(batch)))
	return make([]bus.Outcome, len(batch))
}

// Consume counts.
func (p *busPeer) Consume(_ context.Context, b *invocation.Batch) invocation.Verdict {
	p.done.Add(int64(len(b.Items)))
	return invocation.Verdict{}
}

// busEnd publishes events on a channel, or sends messages.
type busEnd struct {
	p               *busPeer
	prefix, channel string
	queue           string
}

func (e *busEnd) publish(n int64) error {
	if e.queue != "" {
		sent, err := e.p.bus.Send(context.Background(), e.queue, []bus.Message{{Body: []byte(payload(n))}})
		if err == nil {
			err = sent[0].Err
		}
		return err
	}
	v := &event.Event{ID: e.prefix + strconv.FormatInt(n, 10), Source: "bench", Type: "bench", DataContentType: "application/json", Data: eventBody}
	if e.channel != "" {
		v.SetExtension(bus.Channel, e.channel)
	}
	_, err := e.p.bus.Publish(context.Background(), v)
	return err
}

func (e *busEnd) close() {}

// busQuiet publishes what nobody takes.
type busQuiet struct{ p *busPeer }

func (q busQuiet) cpu() float64 { return taken(os.Getpid()) }

func (q busQuiet) publisher() (publisher, error) {
	return &busEnd{p: q.p, prefix: strconv.FormatInt(time.Now().UnixNano(), 36)}, nil
}

// eventsBus takes all figures of the bus alone.
func (b *bench) eventsBus(ctx context.Context, dir string, set func(string, float64)) error {
	p, err := openBus(ctx, dir)
	if err != nil {
		return err
	}
	err = b.busFigures(ctx, p, set)
	return errors.Join(err, p.stop())
}

func (b *bench) busFigures(ctx context.Context, p *busPeer, set func(string, float64)) error {
	for _, channel := range []string{"latency", "single"} {
		if err := p.bus.Subscribe(ctx, bus.Subscription{Name: channel, Channel: channel, Concurrency: 128}); err != nil {
			return err
		}
	}
	if err := p.bus.PutQueue(ctx, bus.Queue{Name: "jobs"}); err != nil {
		return err
	}
	if err := b.busLatency(p, set); err != nil {
		return err
	}
	quiet := busQuiet{p}
	if err := publishing(quiet, fewCallers, b.o.duration, figEight, "", set); err != nil {
		return err
	}
	if err := publishing(quiet, mostCallers, b.o.duration, figMost, figMostCPU, set); err != nil {
		return err
	}
	if err := p.bus.Sync(ctx); err != nil { // what was published only is read, and no part of what follows
		return err
	}
	poll, end := context.WithCancel(ctx)
	p.wait.Go(func() { _ = p.bus.Poll(poll, bus.Mapping{Name: "jobs", Queue: "jobs", Batch: 10}, p) }) // its settings are right
	defer end()
	for _, row := range []struct {
		figure, cpu string
		end         busEnd
	}{{figSingle, figSingleCPU, busEnd{p: p, channel: "single"}}, {figTens, figTensCPU, busEnd{p: p, queue: "jobs"}}} {
		total, before := b.through(row.figure), taken(os.Getpid())
		p.done.Store(0)
		begun := time.Now()
		if err := flow(senders, int64(total), func() (publisher, error) { return &row.end, nil }); err != nil {
			return err
		}
		for p.done.Load() < int64(total) {
			if time.Since(begun) > 4*soon {
				return errors.New("not all came")
			}
			time.Sleep(time.Millisecond)
		}
		set(row.figure, float64(total)/time.Since(begun).Seconds())
		set(row.cpu, (taken(os.Getpid())-before)/float64(total))
	}
	return nil
}

func (b *bench) busLatency(p *busPeer, set func(string, float64)) error {
	came := make(chan time.Time, 1)
	p.target = came
	from := &busEnd{p: p, channel: "latency"}
	var all []time.Duration
	for n := range b.latencies() {
		at := time.Now()
		if err := from.publish(int64(n)); err != nil {
			return err
		}
		select {
		case t := <-came:
			all = append(all, t.Sub(at))
		case <-time.After(soon):
			return errors.New("an event did not come")
		}
		time.Sleep(apart)
	}
	p.target = nil
	setLatency(all, set)
	return nil
}

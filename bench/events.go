package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What is measured of each contender. Latencies are in seconds.
const (
	figLatency = "latency" // from the call of publish to the start of the handler, p50, one event at a time
	figWorst   = "latency99"
	figEight   = "publish8" // durable publishes a second
	figMost    = "publish256"
	figSingle  = "single" // events a second from their publishers to the end of their handler, one at a time
	figTens    = "tens"   // the same in batches of ten
	// Processor time for each of their events, in seconds: of server and handlers, and of the client where all are one process.
	figMostCPU   = "publish256CPU"
	figSingleCPU = "singleCPU"
	figTensCPU   = "tensCPU"
)

// Contenders that are ebb. The bus alone says what HTTP, sandboxes and functions add.
const (
	ebbServed = "ebb"
	ebbBus    = "ebb-bus"
)

const (
	fewCallers  = 8
	mostCallers = 256
	senders     = 64 // that publish while events are consumed
	takers      = 16 // that consume from a peer at once
)

// Figure is one figure of one contender over the repeats.
type Figure struct {
	Contender string    `json:"contender"`
	Figure    string    `json:"figure"`
	Values    []float64 `json:"values,omitempty"`
	NotRun    string    `json:"notRun,omitempty"`
}

// EventQueue is what a million queued events cost.
type EventQueue struct {
	Events   int     `json:"events"`
	Rate     float64 `json:"rate"`         // at which they were published, events a second
	Peak     float64 `json:"peakMiB"`      // the largest resident set of ebb's process from its start to the last of them
	Tenth    float64 `json:"tenthPeakMiB"` // the same when a tenth was queued
	Ready    float64 `json:"readySeconds"`
	First    float64 `json:"firstSeconds"`   // from the start of the process to the end of the first handler
	Restart  float64 `json:"restartPeakMiB"` // resident set after the restart
	NotRun   string  `json:"notRun,omitempty"`
	LogBytes int64   `json:"logBytes"` // of the data directory
}

func (r *report) figure(contender, figure string) *Figure {
	i := slices.IndexFunc(r.Figures, func(f *Figure) bool { return f.Contender == contender && f.Figure == figure })
	if i < 0 {
		i = len(r.Figures)
		r.Figures = append(r.Figures, &Figure{Contender: contender, Figure: figure})
	}
	return r.Figures[i]
}

// entrant measures one contender once, from nothing.
type entrant struct {
	name, what string
	measure    func(b *bench, ctx context.Context, dir string, set func(figure string, v float64)) error
}

func eventContenders() []entrant {
	all := []entrant{
		{ebbServed, "ebb serve, events over HTTP, Go handler", (*bench).eventsServed},
		{ebbBus, "ebb's bus alone, in process, Go func", (*bench).eventsBus},
	}
	for _, p := range brokers() {
		all = append(all, entrant{p.name, p.what, p.measure})
	}
	return all
}

func eventNames() (all []string) {
	for _, c := range eventContenders() {
		all = append(all, c.name)
	}
	return all
}

// events measures the event bus beside its peers.
func (b *bench) events(ctx context.Context, out io.Writer) error {
	if err := b.eventsSetUp(ctx); err != nil {
		return err
	}
	since, busy, own := time.Now(), busyTime(), ownTime()
	if err := b.rounds(ctx, "events", eventContenders()); err != nil {
		return err
	}
	b.report.Others = max(0, (busyTime()-busy)-(ownTime()-own)) / time.Since(since).Seconds() / float64(cpus())
	if b.o.queued > 0 && b.wanted(ebbServed) {
		if err := b.million(ctx); err != nil {
			return err
		}
	}
	b.report.NotRun = b.absent
	b.report.Took = time.Since(since).Seconds()
	b.report.concludeEvents()
	b.report.printEvents(out, b.o.markdown)
	return nil
}

// rounds measures all that are wanted, repeat by repeat, each other one in the opposite order.
func (b *bench) rounds(ctx context.Context, kind string, order []entrant) error {
	order = slices.DeleteFunc(order, func(c entrant) bool { return !b.wanted(c.name) })
	for repeat := range b.o.repeats {
		for _, c := range order {
			if b.absent[c.name] != "" {
				continue
			}
			dir := filepath.Join(b.work, fmt.Sprintf("%s-%s-%d", kind, c.name, repeat))
			var said []string
			err := c.measure(b, ctx, dir, func(figure string, v float64) {
				f := b.report.figure(c.name, figure)
				f.Values = append(f.Values, v)
				said = append(said, figure+" "+figureText(figure, v))
			})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			_ = os.RemoveAll(dir) // the working folder goes in the end
			if err != nil {
				b.absent[c.name] = err.Error()
				b.say("%d/%d  %-10s not run: %v", repeat+1, b.o.repeats, c.name, err)
				continue
			}
			b.say("%d/%d  %-10s %s", repeat+1, b.o.repeats, c.name, strings.Join(said, ", "))
		}
		slices.Reverse(order)
	}
	return nil
}

func (b *bench) eventsSetUp(ctx context.Context) error {
	b.say("build ebb and the handler")
	if err := b.goBuild(ctx, filepath.Join(b.root, "bench", "apps", "events"), filepath.Join(b.app("events"), "bootstrap"), "."); err != nil {
		return err
	}
	if err := b.buildEbb(ctx); err != nil {
		return err
	}
	if err := os.CopyFS(b.app("events"), os.DirFS(filepath.Join(b.root, "bench", "apps", "events"))); err != nil {
		return fmt.Errorf("copy the events app: %w", err)
	}
	return os.Chmod(b.work, 0o755) // users of Sandboxes go through it
}

// buildEbb builds the binary to be measured, unless one was given.
func (b *bench) buildEbb(ctx context.Context) error {
	if b.ebb = b.o.ebb; b.ebb != "" {
		return nil
	}
	b.ebb = filepath.Join(b.work, "ebb")
	return b.goBuild(ctx, b.root, b.ebb, "./cmd/ebb")
}

func (b *bench) goBuild(ctx context.Context, dir, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// measure takes all figures of a peer.
func (p broker) measure(b *bench, ctx context.Context, dir string, set func(string, float64)) error {
	steps := []func(r running) error{
		func(r running) error { return p.latency(b, r, set) },
		func(r running) error { return publishing(r, fewCallers, b.o.duration, figEight, "", set) },
		func(r running) error { return publishing(r, mostCallers, b.o.duration, figMost, figMostCPU, set) },
		func(r running) error { return through(r, b.through(figSingle), 1, figSingle, figSingleCPU, set) },
		func(r running) error { return through(r, b.through(figTens), 10, figTens, figTensCPU, set) },
	}
	for i, step := range steps {
		r, err := p.start(ctx, b, filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		err = step(r)
		r.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// publishing measures durable publishes.
func publishing(r interface {
	publisher() (publisher, error)
	cpu() float64
}, callers int, d time.Duration, figure, cpu string, set func(string, float64)) error {
	before := r.cpu()
	got, err := publishFor(callers, d, r.publisher)
	if err != nil {
		return err
	}
	set(figure, got.rate)
	if cpu != "" {
		set(cpu, (r.cpu()-before)/float64(got.n))
	}
	return nil
}

// through is how many events go from publishers to handlers.
func (b *bench) through(figure string) int {
	n := 6000
	if figure == figTens {
		n = 20_000
	}
	if b.o.quick {
		n /= 4
	}
	return n
}

// apart lies between two events whose latency is measured.
const apart = 10 * time.Millisecond

func (b *bench) latencies() int {
	if b.o.quick {
		return 100
	}
	return 300
}

// latency measures one message at a time, from the call of publish to its arrival at a consumer that waits.
func (p broker) latency(b *bench, r running, set func(string, float64)) error {
	from, err := r.publisher()
	if err != nil {
		return err
	}
	defer from.close()
	to, err := r.consumer()
	if err != nil {
		return err
	}
	defer to.close()
	total := b.latencies()
	came := make([]time.Time, total+1)
	ended := make(chan error, 1)
	go func() {
		have := 0
		for begun := time.Now(); have < total; {
			got, err := to.take(1)
			now := time.Now()
			for _, n := range got {
				came[n] = now
			}
			have += len(got)
			if err = errors.Join(err, to.ack()); err == nil && time.Since(begun) > 2*soon {
				err = fmt.Errorf("%d of %d messages came", have, total)
			}
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	sent := make([]time.Time, total+1)
	for n := 1; n <= total; n++ {
		sent[n] = time.Now()
		if err := from.publish(int64(n)); err != nil {
			return err
		}
		time.Sleep(apart)
	}
	if err := <-ended; err != nil {
		return err
	}
	var all []time.Duration
	for n := 1; n <= total; n++ {
		all = append(all, came[n].Sub(sent[n]))
	}
	setLatency(all, set)
	return nil
}

func setLatency(all []time.Duration, set func(string, float64)) {
	slices.Sort(all)
	set(figLatency, all[len(all)/2].Seconds())
	set(figWorst, all[len(all)*99/100].Seconds())
}

// through publishes total messages and consumes them meanwhile, and gives the rate from the first publish to the last acknowledgement.
func through(r running, total, batch int, figure, cpu string, set func(string, float64)) error {
	before := r.cpu()
	var sent, done atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, senders+takers)
	begun := time.Now()
	for range takers {
		wg.Go(func() {
			to, err := r.consumer()
			if err != nil {
				failed <- err
				return
			}
			defer to.close()
			for done.Load() < int64(total) {
				got, err := to.take(batch)
				if err = errors.Join(err, to.ack()); err == nil && time.Since(begun) > 4*soon {
					err = fmt.Errorf("%d of %d messages came", done.Load(), total)
				}
				if err != nil {
					failed <- err
					return
				}
				if now := done.Add(int64(len(got))); now >= int64(total) && now-int64(len(got)) < int64(total) {
					set(figure, float64(total)/time.Since(begun).Seconds())
					set(cpu, (r.cpu()-before)/float64(total))
				}
			}
		})
	}
	for range senders {
		wg.Go(func() {
			from, err := r.publisher()
			if err != nil {
				failed <- err
				return
			}
			defer from.close()
			for n := sent.Add(1); n <= int64(total); n = sent.Add(1) {
				if err := from.publish(n); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

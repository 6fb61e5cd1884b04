package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-run/ebb/bench/load"
)

const (
	many      = 16  // connections under load
	openShare = 0.8 // of the closed loop's rate, for the open loop
	rounds    = 5   // into which the load on many connections is cut, so that those who are compared take turns
)

// Sample is one start of one contender with everything measured on it. Times are in seconds, rates in requests a second.
type Sample struct {
	Contender string  `json:"contender"`
	Repeat    int     `json:"repeat"`
	First     float64 `json:"firstSeconds"`          // process start to first right answer
	Cold      float64 `json:"coldSeconds,omitempty"` // first request to its answer, where the server was ready before
	One       Load    `json:"one"`                   // one connection
	Many      Load    `json:"many"`                  // many connections
	HostCPU   float64 `json:"hostCPU"`               // processor seconds of the server's own process for each request of Many
	GuestCPU  float64 `json:"guestCPU"`              // and of the processes below it
	Floor     Load    `json:"floor,omitzero"`        // of the contender's floor, in turns with Many
	Open      Load    `json:"open"`                  // many connections at openShare of Many's rate
	Base      Base    `json:"base"`
}

// Base is bare Go under the same load, One and Open right after the contender's, Many in turns with it: what others do on the machine
// falls on both.
type Base struct {
	One  Load `json:"one"`
	Many Load `json:"many"`
	Open Load `json:"open"` // at the contender's rate
}

// Load is what one measurement gave.
type Load struct {
	Rate float64 `json:"rate"`
	P50  float64 `json:"p50Seconds"`
	P99  float64 `json:"p99Seconds"`
}

// measure starts and measures every contender, again and again; every other time in the opposite order, so that what drifts on the
// machine does not always fall on the same one.
func (b *bench) measure(ctx context.Context) error {
	base, err := startBare(ctx, b)
	if base != nil {
		defer base.stop()
	}
	if err != nil {
		return fmt.Errorf("start bare Go: %w", err)
	}
	order := slices.DeleteFunc(contenders(), func(c contender) bool { return c.name != "bare" && !b.wanted(c.name) })
	since, busy, own := time.Now(), busyTime(), ownTime()
	defer func() {
		b.report.Others = max(0, (busyTime()-busy)-(ownTime()-own)) / time.Since(since).Seconds() / float64(cpus())
	}()
	for repeat := range b.o.repeats {
		for _, c := range order {
			if b.absent[c.name] != "" {
				continue
			}
			s, err := b.sample(ctx, c, repeat, base)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				b.absent[c.name] = err.Error()
				b.say("%d/%d  %-20s not run: %v", repeat+1, b.o.repeats, c.name, err)
				if c.name == "bare" {
					return fmt.Errorf("nothing can be compared without bare Go: %w", err)
				}
				continue
			}
			b.report.Samples = append(b.report.Samples, s)
			b.say("%d/%d  %-20s %7.0f/s   p50 %4.0f µs at 1, %5.0f µs at %d   first answer after %.0f ms", repeat+1, b.o.repeats, c.name, s.Many.Rate,
				s.One.P50*1e6, s.Many.P50*1e6, many, s.First*1e3)
		}
		slices.Reverse(order)
	}
	return nil
}

// sample starts a contender, measures it and stops it. A single wrong answer is an error: its row would mean nothing.
func (b *bench) sample(ctx context.Context, c contender, repeat int, base *server) (Sample, error) {
	out := Sample{Contender: c.name, Repeat: repeat}
	s, err := c.start(ctx, b)
	if s != nil {
		defer s.stop()
	}
	if err != nil {
		return out, fmt.Errorf("start: %w", err)
	}
	if err := s.answers(ctx, 90*time.Second); err != nil {
		return out, fmt.Errorf("first request: %w", err)
	}
	out.First, out.Cold = s.first.Seconds(), s.cold.Seconds()
	if _, err := checked(load.Closed(s.target(), many, b.o.warm)); err != nil {
		return out, fmt.Errorf("warm up: %w", err)
	}
	short := b.o.duration / 2
	if out.One, err = checked(load.Closed(s.target(), 1, b.o.duration)); err != nil {
		return out, fmt.Errorf("one connection: %w", err)
	}
	if out.Base.One, err = checked(load.Closed(base.target(), 1, short)); err != nil {
		return out, fmt.Errorf("one connection to bare Go: %w", err)
	}
	if err := b.turns(ctx, c, s, base, &out); err != nil {
		return out, err
	}
	rate := openShare * out.Many.Rate
	if out.Open, err = checked(load.Open(s.target(), many, rate, b.o.duration)); err != nil {
		return out, fmt.Errorf("open loop: %w", err)
	}
	if out.Base.Open, err = checked(load.Open(base.target(), many, rate, short)); err != nil {
		return out, fmt.Errorf("open loop to bare Go: %w", err)
	}
	return out, nil
}

// turns puts load on the contender, its floor and bare Go in turns. The floor runs only for that.
func (b *bench) turns(ctx context.Context, c contender, s, base *server, out *Sample) error {
	type side struct {
		name string
		of   *server
		long time.Duration // of all rounds
		into *Load
		load.Result
	}
	sides := []*side{{name: "the contender", of: s, long: b.o.duration, into: &out.Many}, {name: "bare Go", of: base, long: b.o.duration / 2, into: &out.Base.Many}}
	if f := b.floorOf(c); f != nil {
		floor, err := f.start(ctx, b)
		if floor != nil {
			defer floor.stop()
		}
		if err == nil {
			err = floor.answers(ctx, soon)
		}
		if err == nil {
			_, err = checked(load.Closed(floor.target(), many, b.o.warm))
		}
		if err != nil {
			return fmt.Errorf("start %s beside it: %w", f.name, err)
		}
		sides = append(sides, &side{name: f.name, of: floor, long: b.o.duration, into: &out.Floor})
	}
	for range rounds {
		for _, x := range sides {
			host, guests := s.processors()
			r, err := load.Closed(x.of.target(), many, x.long/rounds)
			if err != nil {
				return fmt.Errorf("%d connections to %s: %w", many, x.name, err)
			}
			x.Add(r)
			if x.of == s {
				hostThen, guestsThen := s.processors()
				out.HostCPU += hostThen - host
				out.GuestCPU += max(0, guestsThen-guests)
			}
		}
		slices.Reverse(sides)
	}
	for _, x := range sides {
		var err error
		if *x.into, err = checked(&x.Result, nil); err != nil {
			return fmt.Errorf("%d connections to %s: %w", many, x.name, err)
		}
		if x.of == s {
			out.HostCPU /= float64(len(x.Latency))
			out.GuestCPU /= float64(len(x.Latency))
		}
	}
	return nil
}

// floorOf is the contender's floor, where that is to be measured.
func (b *bench) floorOf(c contender) *contender {
	for _, f := range contenders() {
		if f.name == c.floor && b.wanted(f.name) && b.absent[f.name] == "" {
			return &f
		}
	}
	return nil
}

func checked(r *load.Result, err error) (Load, error) {
	if err != nil {
		return Load{}, err
	}
	if len(r.Latency) == 0 {
		return Load{}, errors.New("no answers")
	}
	return Load{Rate: r.Rate(), P50: r.Quantile(0.5).Seconds(), P99: r.Quantile(0.99).Seconds()}, nil
}

// stat is the median of some repeats and their extremes.
type stat struct{ mid, lo, hi float64 }

func stats(v []float64) stat {
	if len(v) == 0 {
		return stat{}
	}
	v = slices.Sorted(slices.Values(v))
	mid := v[len(v)/2]
	if len(v)%2 == 0 {
		mid = (v[len(v)/2-1] + mid) / 2
	}
	return stat{mid, v[0], v[len(v)-1]}
}

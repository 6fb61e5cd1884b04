package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

// Ways to start a guest.
const (
	wayEbb   = "ebb"
	wayStem  = "ebb, readied"
	wayPlain = "ebb, --isolation none"
	wayBare  = "fork and exec"
	wayBwrap = "bubblewrap"
	wayCrun  = "crun"
	wayServe = "ebb serve, end to end"
)

// nowhere is an Egress that nobody asks: its presence gives guests the network that ebb gives them.
type nowhere struct{}

func (nowhere) Dial(context.Context, sandbox.Destination) (net.Conn, error) {
	return nil, errs.New(errs.Forbidden, "benchmarks connect to nothing")
}
func (nowhere) Resolves(sandbox.Destination) bool                 { return false }
func (nowhere) Missing(context.Context, sandbox.Destination) bool { return false }
func (nowhere) Declared(owner string) []sandbox.Destination       { return nil }

// coldGuests starts every handler in every way in turn, again and again, so that what drifts on the machine falls on all.
func (b *bench) coldGuests(ctx context.Context, proto guest.Protocol) error {
	var drivers []sandbox.Driver
	for i, o := range []process.Options{{Ready: -1}, {Plain: true}, {}} {
		o.Dir, o.Egress = filepath.Join(b.work, fmt.Sprintf("run-%d", i)), nowhere{}
		d, err := process.Open(o)
		if err != nil {
			return err
		}
		defer d.Close()
		drivers = append(drivers, d)
	}
	ways := []struct {
		name  string
		start func(ctx context.Context, u *guest.Unit) (coldParts, error)
		mount bool
	}{
		{wayEbb, func(ctx context.Context, u *guest.Unit) (coldParts, error) {
			return b.driven(ctx, drivers[0], proto, u)
		}, drivers[0].Traits().Mounts},
		{wayStem, func(ctx context.Context, u *guest.Unit) (coldParts, error) {
			return b.readied(ctx, drivers[2].(*process.Driver), proto, u)
		}, drivers[2].Traits().Mounts},
		{wayPlain, func(ctx context.Context, u *guest.Unit) (coldParts, error) {
			return b.driven(ctx, drivers[1], proto, u)
		}, false},
		{wayBare, func(ctx context.Context, u *guest.Unit) (coldParts, error) { return b.spawned(ctx, bare, proto, u) }, false},
		{wayBwrap, func(ctx context.Context, u *guest.Unit) (coldParts, error) { return b.spawned(ctx, b.bwrap, proto, u) }, true},
		{wayCrun, func(ctx context.Context, u *guest.Unit) (coldParts, error) { return b.spawned(ctx, b.crun, proto, u) }, true},
	}
	if !drivers[0].Traits().Mounts {
		b.report.coldOf("", wayEbb).NotRun = "this machine does not isolate; see ebb doctor"
	}
	for n := range b.o.starts + 1 {
		for _, h := range handlers() {
			if b.skipped(h) {
				continue
			}
			for _, w := range ways {
				row := b.report.coldOf(h.name, w.name)
				if row.NotRun == "" {
					row.NotRun = b.absent[h.name]
				}
				if w.name == wayStem && h.pooled == h.target {
					row.NotRun = notPooled
				}
				if row.NotRun != "" {
					continue
				}
				u, err := b.unit(ctx, h, w.mount)
				if err != nil {
					row.NotRun = err.Error()
					continue
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(quiet):
				}
				parts, err := w.start(ctx, u)
				if err != nil {
					row.NotRun = err.Error()
					b.say("%s, %s: not run: %v", h.name, w.name, err)
					continue
				}
				if n > 0 { // the first fills the page cache
					row.Parts = append(row.Parts, parts)
					row.All = append(row.All, parts.Queue+parts.Sandbox+parts.Runtime+parts.Handler+parts.Invoke)
				}
			}
		}
		if n%10 == 0 {
			b.say("cold starts: %d of %d of each", n, b.o.starts)
		}
	}
	return nil
}

// first is a Sink that notes when the first byte of the answer came.
type first struct {
	at   time.Time
	bad  error
	body int
}

func (f *first) Start(h invocation.Head) error {
	f.at = time.Now()
	if h.Error != nil {
		f.bad = fmt.Errorf("the handler failed: %+v", *h.Error)
	}
	return nil
}
func (f *first) Write(p []byte) (int, error) { f.body += len(p); return len(p), nil }
func (f *first) Upgrade(invocation.Head) (net.Conn, error) {
	return nil, errs.New(errs.Unsupported, "a benchmark has no connection to give")
}

// talk goes from a guest that runs to the first byte of its first answer.
func talk(ctx context.Context, proto guest.Protocol, c sandbox.Conn, u *guest.Unit, p *coldParts) error {
	t0 := time.Now()
	s, err := proto.Open(ctx, c, u)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	defer s.Close()
	t1 := time.Now()
	if timed, ok := s.(guest.Timed); ok {
		p.Handler = timed.HandlerInit().Seconds()
	}
	p.Runtime = t1.Sub(t0).Seconds() - p.Handler
	f := &first{}
	inv := &invocation.Invocation{
		ID: "8476a536-e9f4-11e8-9739-2dfe598c3fcd", Tenant: "default", Function: u.Function, Mode: invocation.ModeRequest, Attempt: 1,
		Received: t1, Deadline: t1.Add(u.Timeout), Payload: invocation.Raw("{}"),
	}
	if err := s.Invoke(ctx, inv, f); err != nil {
		return err
	}
	if f.bad == nil && f.body == 0 {
		f.bad = errors.New("an empty answer")
	}
	p.Invoke = f.at.Sub(t1).Seconds()
	return f.bad
}

// notPooled says that a handler comes from no pool.
const notPooled = "a native program has nothing to ready"

// readied starts a guest from what the driver holds ready, and waits before until there is something: the first time it starts one to say what
// is wanted.
func (b *bench) readied(ctx context.Context, d *process.Driver, proto guest.Protocol, u *guest.Unit) (p coldParts, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for asked := false; d.ReadyFor(u.Runtime) == 0; {
		if !asked {
			if _, err := b.driven(ctx, d, proto, u); err != nil {
				return p, err
			}
			asked = true
		}
		select {
		case <-ctx.Done():
			return p, errors.New("nothing was readied")
		case <-time.After(5 * time.Millisecond):
		}
	}
	before := d.Readied()
	p, err = b.driven(ctx, d, proto, u)
	if err == nil && d.Readied() == before {
		err = errors.New("what was ready was not used")
	}
	return p, err
}

// driven starts a guest as the engine does.
func (b *bench) driven(ctx context.Context, d sandbox.Driver, proto guest.Protocol, u *guest.Unit) (p coldParts, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	t0 := time.Now()
	sb, err := d.Prepare(ctx, sandbox.Spec{
		ID: "bench", Owner: u.Function, Transport: proto.Transport(u), Output: io.Discard,
		Limits: sandbox.Limits{MemoryBytes: int64(u.MemoryMB) << 20, TmpBytes: 512 << 20, Processes: 1024, ShareCPU: int64(u.MemoryMB) * 1000 / 1769},
	})
	if err != nil {
		return p, err
	}
	defer sb.Stop(0)
	t1 := time.Now()
	code, err := proto.Code(u, sb.Addr())
	if err != nil {
		return p, err
	}
	c, err := sb.Start(ctx, code)
	if err != nil {
		return p, err
	}
	defer c.Close()
	p.Queue, p.Sandbox = t1.Sub(t0).Seconds(), time.Since(t1).Seconds()
	return p, talk(ctx, proto, c, u, &p)
}

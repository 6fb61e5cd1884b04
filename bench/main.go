// Command bench measures ebb beside its peers on the machine it runs on, and prints the table.
//
// It builds ebb, the floor and a bare Go server, installs the peers from npm into a cache folder, then measures every contender in
// turn, several times, in alternating order. See README.md in this folder for the method and the newest table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/bench/load"
)

// options are what the flags say.
type options struct {
	quick    bool
	only     []string
	repeats  int
	duration time.Duration
	warm     time.Duration
	guests   int // of the floor
	idle     bool
	json     string
	ebb      string // a binary to measure in place of one built here
	url      string // only load this
	conns    int
	markdown bool
	cold     bool // only cold starts and density
	starts   int
	density  int
	events   bool // only the event bus
	queued   int
	aws      bool // only the services on AWS's wire
	items    int
	object   int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, o, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func parse(args []string, usage io.Writer) (options, error) {
	o := options{}
	fs := flag.NewFlagSet("bench/run", flag.ContinueOnError)
	fs.SetOutput(usage)
	var only string
	fs.BoolVar(&o.quick, "quick", false, "two short repeats, for a first impression (under two minutes)")
	fs.StringVar(&only, "only", "", "contenders to measure, separated by commas; bare always runs (names: "+strings.Join(names(), ", ")+"); with -cold the handlers ("+strings.Join(handlerNames(), ", ")+"), with -events "+strings.Join(eventNames(), ", ")+", with -aws "+strings.Join(awsNames(), ", "))
	fs.IntVar(&o.repeats, "repeats", 5, "how often each contender is started and measured")
	fs.DurationVar(&o.duration, "duration", 1500*time.Millisecond, "length of each measurement")
	fs.DurationVar(&o.warm, "warm", time.Second, "length of the load before the first measurement")
	fs.IntVar(&o.guests, "guests", 2, "guests of the floor")
	fs.BoolVar(&o.idle, "idle", true, "measure memory, deploy and start times of ebb too")
	fs.BoolVar(&o.markdown, "markdown", false, "print the tables as Markdown")
	fs.StringVar(&o.json, "json", "", "write everything that was measured to this file")
	fs.StringVar(&o.ebb, "ebb", "", "measure this ebb binary (default: built from this tree)")
	fs.StringVar(&o.url, "url", "", "only put load on this URL, which must give the benchmarks' answer, for -duration; for profiling")
	fs.IntVar(&o.conns, "conns", many, "connections for -url")
	fs.BoolVar(&o.cold, "cold", false, "only cold starts of sandboxed Instances, and the memory of many")
	fs.IntVar(&o.starts, "starts", 50, "cold starts of each handler in each way, for -cold")
	fs.IntVar(&o.density, "density", 200, "Instances whose memory is read, for -cold; 0 for none")
	fs.BoolVar(&o.events, "events", false, "only the event bus and its peers")
	fs.IntVar(&o.queued, "queued", 1_000_000, "events that are queued before a restart, for -events; 0 for none")
	fs.BoolVar(&o.aws, "aws", false, "only the services on AWS's wire and their peers")
	fs.IntVar(&o.items, "items", 1_000_000, "items of the large table, for -aws; 0 for none")
	fs.IntVar(&o.object, "object", 10_240, "MiB of the large object, for -aws; 0 for none")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.quick {
		o.repeats, o.duration, o.warm, o.starts = 2, 600*time.Millisecond, 400*time.Millisecond, min(o.starts, 10)
		o.queued, o.items, o.object = min(o.queued, 100_000), min(o.items, 100_000), min(o.object, 512)
	}
	if o.cold && o.events || o.cold && o.aws || o.events && o.aws {
		return o, errors.New("one of -cold, -events and -aws")
	}
	if o.items < 0 || o.items%rowsEach != 0 || o.object < 0 {
		return o, fmt.Errorf("-items is a multiple of %d, and neither it nor -object is negative", rowsEach)
	}
	if o.queued < 0 || o.queued%1000 != 0 {
		return o, errors.New("-queued is a number of thousands")
	}
	if o.starts < 1 || o.density < 0 {
		return o, errors.New("-starts is at least 1, -density at least 0")
	}
	if o.repeats < 1 || o.guests < 1 || o.duration < 50*time.Millisecond {
		return o, errors.New("-repeats and -guests are at least 1, -duration at least 50ms")
	}
	if only != "" {
		o.only = strings.Split(only, ",")
		known := names()
		if o.cold {
			known = handlerNames()
		}
		if o.events {
			known = eventNames()
		}
		if o.aws {
			known = awsNames()
		}
		for _, n := range o.only {
			if !slices.Contains(known, n) {
				return o, fmt.Errorf("there is no contender %q; there are %s", n, strings.Join(known, ", "))
			}
		}
	}
	return o, nil
}

// bench is one run.
type bench struct {
	o      options
	say    func(format string, args ...any) // progress
	root   string                           // of the checkout
	work   string                           // removed in the end
	cache  string                           // kept: the peers
	ebb    string                           // binaries
	floor  string
	bare   string
	gofunc string
	node   string            // the interpreters that ebb chose
	python string            //
	absent map[string]string // contender -> why it does not run
	report report
}

func run(ctx context.Context, o options, out, progress io.Writer) error {
	if o.url != "" {
		return only(o, out)
	}
	begun := time.Now()
	b := &bench{o: o, absent: map[string]string{}}
	b.say = func(format string, args ...any) {
		fmt.Fprintf(progress, "%6.1f s  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
	}
	if err := b.places(); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	b.report.Machine, b.report.Date = machine(), begun.UTC().Format("2006-01-02")
	if o.cold {
		b.report.Starts = o.starts
		if err := b.cold(ctx, out); err != nil || o.json == "" {
			return err
		}
		return b.report.save(o.json)
	}
	for _, part := range []struct {
		asked bool
		run   func(context.Context, io.Writer) error
	}{{o.events, b.events}, {o.aws, b.aws}} {
		if !part.asked {
			continue
		}
		if err := part.run(ctx, out); err != nil || o.json == "" {
			return err
		}
		return b.report.save(o.json)
	}
	if err := b.setUp(ctx); err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	if o.idle {
		if err := b.idle(ctx); err != nil {
			return err
		}
	}
	b.report.Took = time.Since(begun).Seconds()
	b.report.conclude(b)
	b.report.print(out, o.markdown)
	if o.json != "" {
		return b.report.save(o.json)
	}
	return nil
}

// only puts load on a server that runs already.
func only(o options, out io.Writer) error {
	u, err := url.Parse(o.url)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is not a URL like http://127.0.0.1:3000/hello", o.url)
	}
	l, err := checked(load.Closed(load.Target{Addr: u.Host, Path: u.Path, Body: len(wantBody)}, o.conns, o.duration))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%.0f/s, p50 %.0f µs, p99 %.0f µs\n", l.Rate, l.P50*1e6, l.P99*1e6)
	return nil
}

// places finds the checkout and makes the folders.
func (b *bench) places() error {
	var err error
	if b.root, err = os.Getwd(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(b.root, "bench", "apps")); err != nil {
		return errors.New("start it with bench/run, or from the top of the checkout")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("find the cache folder: %w", err)
	}
	b.cache = filepath.Join(cache, "ebb-bench")
	if err := os.MkdirAll(b.cache, 0o755); err != nil {
		return fmt.Errorf("make the cache folder: %w", err)
	}
	if b.work, err = os.MkdirTemp("", "ebb-bench-"); err != nil {
		return fmt.Errorf("make the working folder: %w", err)
	}
	return nil
}

// wanted says whether the flags name the contender.
func (b *bench) wanted(name string) bool {
	return len(b.o.only) == 0 || slices.Contains(b.o.only, name)
}

func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%d processors (%s), the client on the same machine", cpus(), model)
}

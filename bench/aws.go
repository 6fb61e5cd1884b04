package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What is measured of each contender on AWS's wire. Latencies are in seconds, megabytes are 10^6 bytes.
const (
	figPutItem  = "putItem"  // a second, 32 callers
	figGetItem  = "getItem"  // p50, one caller
	figQuery    = "query"    // p50 of 20 Items of a table of 10,000, one caller
	figPutBytes = "putBytes" // megabytes a second in objects of 1 MB, 8 callers
	figGetBytes = "getBytes"
	figMessage  = "message" // sent, received and deleted, a second, 16 callers
)

const (
	itemCallers    = 32
	objectCallers  = 8
	messageCallers = 16
	rowsEach       = 20 // Items of one hash key
	fewRows        = 10_000
)

// AWSLarge is what ebb does with much, once.
type AWSLarge struct {
	Items  int     `json:"items"`        // of the table
	Loaded float64 `json:"itemsLoaded"`  // a second, by BatchWriteItem
	Query  float64 `json:"querySeconds"` // p50 of 20 of them
	Bytes  int64   `json:"bytes"`        // of the object
	Put    float64 `json:"putMB"`        // megabytes a second
	Get    float64 `json:"getMB"`
	Peak   float64 `json:"peakMiB"` // the largest resident set of the process that only had the object
	NotRun string  `json:"notRun,omitempty"`
}

// aws measures the services on AWS's wire beside their peers.
func (b *bench) aws(ctx context.Context, out io.Writer) error {
	if err := b.buildEbb(ctx); err != nil {
		return err
	}
	since, busy, own := time.Now(), busyTime(), ownTime()
	var list []entrant
	for _, p := range awsPeers() {
		list = append(list, entrant{p.name, p.what, func(b *bench, ctx context.Context, dir string, set func(string, float64)) error {
			return b.overAWS(ctx, p, dir, set)
		}})
	}
	if err := b.rounds(ctx, "aws", list); err != nil {
		return err
	}
	b.report.Others = max(0, (busyTime()-busy)-(ownTime()-own)) / time.Since(since).Seconds() / float64(cpus())
	if b.wanted(ebbServed) && (b.o.items > 0 || b.o.object > 0) {
		b.report.Large = &AWSLarge{Items: b.o.items, Bytes: int64(b.o.object) << 20}
		if err := b.large(ctx, b.report.Large); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.report.Large.NotRun = err.Error()
		}
	}
	b.report.NotRun = b.absent
	b.report.Took = time.Since(since).Seconds()
	b.report.concludeAWS()
	b.report.printAWS(out, b.o.markdown)
	return nil
}

// overAWS takes all figures of one peer.
func (b *bench) overAWS(ctx context.Context, p awsPeer, dir string, set func(string, float64)) error {
	s, err := p.start(ctx, b, dir)
	if err != nil {
		return err
	}
	defer s.stop()
	for _, step := range []struct {
		service string
		take    func(context.Context, *awsServer, func(string, float64)) error
	}{{"dynamodb", b.items}, {"s3", b.objects}, {"sqs", b.messages}} {
		if !slices.Contains(p.has, step.service) {
			continue
		}
		if err := step.take(ctx, s, set); err != nil {
			return fmt.Errorf("%s: %w", step.service, err)
		}
	}
	return nil
}

func (b *bench) items(ctx context.Context, s *awsServer, set func(string, float64)) error {
	c := s.client()
	if err := c.makeTable(ctx); err != nil {
		return err
	}
	if _, err := c.fill(fewRows); err != nil {
		return err
	}
	got, err := publishFor(itemCallers, b.o.duration, func() (publisher, error) {
		return awsCall{func(n int64) error { return c.putItem(rowNumber(fewRows + n)) }}, nil
	})
	if err != nil {
		return err
	}
	set(figPutItem, got.rate)
	p50, err := timed(b.o.duration, func(n int64) error { return c.getItem(rowNumber(n * 7919 % fewRows)) })
	if err != nil {
		return err
	}
	set(figGetItem, p50)
	p50, err = timed(b.o.duration, func(n int64) error { return c.query(n*7919%(fewRows/rowsEach), rowsEach) })
	if err != nil {
		return err
	}
	set(figQuery, p50)
	return nil
}

func (b *bench) objects(_ context.Context, s *awsServer, set func(string, float64)) error {
	c := s.client()
	if err := c.makeBucket(); err != nil {
		return err
	}
	const keys = 64
	body := megabyte()
	for _, step := range []struct {
		figure string
		do     func(n int64) error
	}{
		{figPutBytes, func(n int64) error { return c.putObject(fmt.Sprintf("key-%d", n%keys), body) }},
		{figGetBytes, func(n int64) error { return c.getObject(fmt.Sprintf("key-%d", n%keys), int64(len(body))) }},
	} {
		for n := range int64(keys) { // both find them there
			if step.figure == figGetBytes {
				break
			}
			if err := step.do(n); err != nil {
				return err
			}
		}
		got, err := publishFor(objectCallers, b.o.duration, func() (publisher, error) { return awsCall{step.do}, nil })
		if err != nil {
			return err
		}
		set(step.figure, got.rate*float64(len(body))/1e6)
	}
	return nil
}

func (b *bench) messages(_ context.Context, s *awsServer, set func(string, float64)) error {
	passing := s.passing
	if passing == nil {
		c := s.client()
		queue, err := c.makeQueue()
		if err != nil {
			return err
		}
		passing = func() (publisher, error) {
			return awsCall{func(n int64) error { return c.passMessage(queue, payload(n)) }}, nil
		}
	}
	got, err := publishFor(messageCallers, b.o.duration, passing)
	if err != nil {
		return err
	}
	set(figMessage, got.rate)
	return nil
}

// timed does one after the other for d and gives the median of what they took, in seconds.
func timed(d time.Duration, do func(n int64) error) (float64, error) {
	var all []float64
	for begun := time.Now(); time.Since(begun) < d; {
		since := time.Now()
		if err := do(int64(len(all))); err != nil {
			return 0, err
		}
		all = append(all, time.Since(since).Seconds())
	}
	return stats(all).mid, nil
}

// large measures a table of a million Items, and an object that does not fit into memory.
func (b *bench) large(ctx context.Context, l *AWSLarge) error {
	start := awsPeers()[0].start
	if l.Items > 0 {
		b.say("a table of %d Items", l.Items)
		dir := filepath.Join(b.work, "aws-items")
		s, err := start(ctx, b, dir)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		defer s.stop()
		c := s.client()
		if err := c.makeTable(ctx); err != nil {
			return err
		}
		if l.Loaded, err = c.fill(l.Items); err != nil {
			return err
		}
		keys := int64(l.Items / rowsEach)
		if l.Query, err = timed(b.o.duration, func(n int64) error { return c.query(n*7919%keys, rowsEach) }); err != nil {
			return err
		}
		s.stop()
	}
	if l.Bytes == 0 {
		return nil
	}
	b.say("an object of %d MiB", l.Bytes>>20)
	s, err := start(ctx, b, filepath.Join(b.work, "aws-object"))
	if err != nil {
		return err
	}
	defer s.stop()
	c := s.client()
	if err := c.makeBucket(); err != nil {
		return err
	}
	since := time.Now()
	if err := c.putLarge("large", l.Bytes); err != nil {
		return err
	}
	l.Put = float64(l.Bytes) / 1e6 / time.Since(since).Seconds()
	since = time.Now()
	if err := c.getObject("large", l.Bytes); err != nil {
		return err
	}
	l.Get = float64(l.Bytes) / 1e6 / time.Since(since).Seconds()
	l.Peak, err = peak(s.cmd.Process.Pid)
	return err
}

// awsCall is a publisher of any call.
type awsCall struct{ do func(n int64) error }

func (c awsCall) publish(n int64) error { return c.do(n) }
func (c awsCall) close()                {}

var errNoMessage = errors.New("no message came")

func awsNames() (all []string) {
	for _, p := range awsPeers() {
		all = append(all, p.name)
	}
	return all
}

func megabyte() []byte { return []byte(strings.Repeat("0123456789abcdef", 1_000_000/16)) }

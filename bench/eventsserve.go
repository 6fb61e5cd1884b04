package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/identity"
)

// eventServer is an `ebb serve` with the events app deployed.
type eventServer struct {
	*server
	data, api, addr, token string
}

func (b *bench) serveEvents(ctx context.Context, data string) (*eventServer, error) {
	s, err := b.launch(b.work, nil, true, b.ebb, "serve", "--data", data, "--listen", "127.0.0.1:0", "--json")
	if err != nil {
		return nil, err
	}
	e := &eventServer{server: s, data: data}
	if e.api, err = s.event(ctx); err == nil {
		err = e.reach()
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return e, nil
}

// reach learns what is needed to call the control API.
func (e *eventServer) reach() error {
	u, err := url.Parse(e.api)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(e.data, "token"))
	e.addr, e.token = u.Host, strings.TrimSpace(string(token))
	return err
}

func (e *eventServer) dial() (*caller, error) { return dialCaller(e.addr, e.token) }

func (e *eventServer) client() *api.Client { return api.NewClient(e.api, identity.Token(e.token)) }

const (
	structured = "application/cloudevents+json"
	batched    = "application/cloudevents-batch+json"
)

func cloudEvent(b []byte, id, source string, data []byte) []byte {
	b = append(append(b, `{"specversion":"1.0","id":"`...), id...)
	b = append(append(b, `","type":"bench","source":"`...), source...)
	b = append(append(b, `","datacontenttype":"application/json","data":`...), data...)
	return append(b, '}')
}

// eventEnd publishes events of one source.
type eventEnd struct {
	*caller
	prefix, source string
	body           []byte
}

func (e *eventEnd) publish(n int64) error {
	e.body = cloudEvent(e.body[:0], e.prefix+strconv.FormatInt(n, 10), e.source, eventBody)
	_, err := e.post("/events", structured, e.body)
	return err
}

// publishing opens publishers whose events have ids with the prefix.
func (e *eventServer) publishing(prefix, source string) func() (publisher, error) {
	return func() (publisher, error) {
		c, err := e.dial()
		return &eventEnd{caller: c, prefix: prefix, source: source}, err
	}
}

// eventsServed takes all figures of `ebb serve`.
func (b *bench) eventsServed(ctx context.Context, dir string, set func(string, float64)) error {
	e, err := b.serveEvents(ctx, dir)
	if err != nil {
		return err
	}
	defer e.stop()
	if err := b.command(ctx, "deploy", b.app("events"), "--data", dir); err != nil {
		return err
	}
	if _, err := e.singles(ctx, "warm-", 200); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	if err := b.servedLatency(ctx, e, set); err != nil {
		return err
	}
	quiet := eventQuiet{e}
	if err := publishing(quiet, fewCallers, b.o.duration, figEight, "", set); err != nil {
		return err
	}
	if err := publishing(quiet, mostCallers, b.o.duration, figMost, figMostCPU, set); err != nil {
		return err
	}
	client := e.client()
	defer client.CloseIdle()
	if _, err := client.Subscriptions(ctx); err != nil { // when all is read that was published only, which is no part of what follows
		return err
	}
	before := e.cpu()
	total := b.through(figSingle)
	rate, err := e.singles(ctx, "single-", total)
	if err != nil {
		return err
	}
	set(figSingle, rate)
	set(figSingleCPU, (e.cpu()-before)/float64(total))
	before, total = e.cpu(), b.through(figTens)
	if rate, err = e.tens(ctx, total); err != nil {
		return err
	}
	set(figTens, rate)
	set(figTensCPU, (e.cpu()-before)/float64(total))
	return nil
}

func (e *eventServer) cpu() float64 {
	host, guests := e.processors()
	return host + guests
}

// eventQuiet publishes what nobody takes.
type eventQuiet struct{ *eventServer }

func (q eventQuiet) publisher() (publisher, error) {
	return q.publishing(strconv.FormatInt(time.Now().UnixNano(), 36)+"-", "bench.quiet")()
}

// servedLatency measures from the call of publish to what the handler says of its start.
func (b *bench) servedLatency(ctx context.Context, e *eventServer, set func(string, float64)) error {
	from, err := e.publishing("when-", "bench")()
	if err != nil {
		return err
	}
	defer from.close()
	total := b.latencies()
	sent := make([]time.Time, total+1)
	for n := 1; n <= total; n++ {
		sent[n] = time.Now()
		if err := from.publish(int64(n)); err != nil {
			return err
		}
		time.Sleep(apart)
	}
	for deadline := time.Now().Add(soon); ; {
		began, err := b.began(ctx, e.data, total)
		if err != nil {
			return err
		}
		if len(began) >= total {
			var all []time.Duration
			for n, at := range began {
				all = append(all, at.Sub(sent[n]))
			}
			setLatency(all, set)
			return nil
		}
		if err := e.pause(ctx, deadline, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%d of %d events reached their handler: %w", len(began), total, err)
		}
	}
}

// began reads when handlers began, by the event's number.
func (b *bench) began(ctx context.Context, data string, total int) (map[int]time.Time, error) {
	cmd := exec.CommandContext(ctx, b.ebb, "logs", "--data", data, "--since", "10m", "--tail", strconv.Itoa(20*total))
	cmd.Dir, cmd.Env = b.work, os.Environ()
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read the logs: %w", err)
	}
	out := map[int]time.Time{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		_, rest, ok := strings.Cut(lines.Text(), "began when-")
		if !ok {
			continue
		}
		num, at, _ := strings.Cut(rest, " ")
		n, err := strconv.Atoi(num)
		ns, nerr := strconv.ParseInt(strings.TrimSpace(at), 10, 64)
		if err != nil || nerr != nil || n < 1 || n > total {
			return nil, fmt.Errorf("a line of another shape: %s", lines.Text())
		}
		out[n] = time.Unix(0, ns)
	}
	return out, nil
}

// look lies between two questions of how far something is.
const look = 20 * time.Millisecond

// until asks until there is nothing left to wait for.
func (e *eventServer) until(ctx context.Context, within time.Duration, done func() (bool, error)) error {
	for deadline := time.Now().Add(within); ; {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if err := e.pause(ctx, deadline, look); err != nil {
			return err
		}
	}
}

// flow has callers do total calls, and returns the first error.
func flow(callers int, total int64, open func() (publisher, error)) error {
	var sent atomic.Int64
	var wg sync.WaitGroup
	failed := make([]error, callers)
	for i := range callers {
		wg.Go(func() {
			p, err := open()
			if err != nil {
				failed[i] = err
				return
			}
			defer p.close()
			for n := sent.Add(1); n <= total && failed[i] == nil; n = sent.Add(1) {
				failed[i] = p.publish(n)
			}
		})
	}
	wg.Wait()
	return firstOf(failed)
}

// singles publishes events one by one and gives the rate from the first publish to the end of the last handler.
func (e *eventServer) singles(ctx context.Context, prefix string, total int) (float64, error) {
	before, err := metric(e.api, e.token, "ebb_invocations_total")
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := flow(senders, int64(total), e.publishing(prefix, "bench")); err != nil {
		return 0, err
	}
	err = e.until(ctx, 4*soon, func() (bool, error) {
		now, err := metric(e.api, e.token, "ebb_invocations_total")
		return now-before >= float64(total), err
	})
	return float64(total) / time.Since(begun).Seconds(), err
}

// tenEnd sends ten messages at once, as SQS's SendMessageBatch does.
type tenEnd struct {
	*caller
	body []byte
}

func (e *tenEnd) publish(n int64) error {
	b := append(e.body[:0], '[')
	for k := range int64(10) {
		if k > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(append(b, `{"body":`...), payload(10*n+k)), '}')
	}
	e.body = append(b, ']')
	_, err := e.post("/v1/queues/bench-jobs/messages/batch", "application/json", e.body)
	return err
}

// tens sends messages to a queue and gives the rate from the first send until the function has taken all in batches.
func (e *eventServer) tens(ctx context.Context, total int) (float64, error) {
	client := e.client()
	defer client.CloseIdle()
	begun := time.Now()
	err := flow(senders, int64(total/10), func() (publisher, error) {
		c, err := e.dial()
		return &tenEnd{caller: c}, err
	})
	if err != nil {
		return 0, err
	}
	err = e.until(ctx, 4*soon, func() (bool, error) {
		list, err := client.Queues(ctx)
		return err == nil && len(list) == 1 && list[0].Visible+list[0].InFlight == 0, err
	})
	return float64(total) / time.Since(begun).Seconds(), err
}

// million queues many events for a function that takes its time, and restarts ebb with them.
func (b *bench) million(ctx context.Context) error {
	b.say("queue %d events", b.o.queued)
	q := &EventQueue{Events: b.o.queued}
	b.report.Queue = q
	dir := filepath.Join(b.work, "events-million")
	err := b.queueUp(ctx, dir, q)
	if err == nil {
		b.say("queued at %.0f/s, peak %.0f MiB; restart", q.Rate, q.Peak)
		err = b.restart(ctx, dir, q)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		q.NotRun = err.Error()
		b.say("not run: %v", err)
	}
	return os.RemoveAll(dir)
}

// heldBody makes the handler of one event at a time slow.
var heldBody = []byte(`{"sleep":200,"text":"` + filler + `"}`)

// hundredEnd publishes a hundred events at once.
type hundredEnd struct {
	*caller
	from int64
	body []byte
}

func (e *hundredEnd) publish(n int64) error {
	b := append(e.body[:0], '[')
	for k := range int64(100) {
		if k > 0 {
			b = append(b, ',')
		}
		b = cloudEvent(b, strconv.FormatInt(100*(e.from+n)+k, 10), "bench.held", heldBody)
	}
	e.body = append(b, ']')
	_, err := e.post("/events", batched, e.body)
	return err
}

func (b *bench) queueUp(ctx context.Context, dir string, q *EventQueue) error {
	e, err := b.serveEvents(ctx, dir)
	if err != nil {
		return err
	}
	defer e.stop()
	if err := b.command(ctx, "deploy", b.app("events"), "--data", dir); err != nil {
		return err
	}
	// A tenth first: memory that is bounded is the same with all of them.
	took, from := time.Duration(0), 0
	for _, upto := range []int{q.Events / 1000, q.Events / 100} {
		begun := time.Now()
		err = flow(fewCallers, int64(upto-from), func() (publisher, error) {
			c, err := e.dial()
			return &hundredEnd{caller: c, from: int64(from)}, err
		})
		took += time.Since(begun)
		if err == nil {
			err = e.indexed(ctx, 100*upto)
		}
		if err != nil {
			return err
		}
		q.Tenth = q.Peak
		if q.Peak, err = peak(e.cmd.Process.Pid); err != nil {
			return err
		}
		from = upto
	}
	q.Rate = float64(q.Events) / took.Seconds()
	return nil
}

// indexed waits until all events are deliveries of a Subscription.
func (e *eventServer) indexed(ctx context.Context, events int) error {
	client := e.client()
	defer client.CloseIdle()
	return e.until(ctx, 10*time.Minute, func() (bool, error) {
		list, _ := client.Subscriptions(ctx) // it gives up while there is much to read, and counts all
		for _, s := range list {
			if s.Pending+s.Done+s.Dead >= events {
				return true, nil
			}
		}
		return false, e.pause(ctx, time.Now().Add(soon), time.Second)
	})
}

func (b *bench) restart(ctx context.Context, dir string, q *EventQueue) error {
	q.LogBytes = sizeOf(dir)
	e, err := b.serveEvents(ctx, dir)
	if err != nil {
		return err
	}
	defer e.stop()
	q.Ready = e.ready.Seconds()
	err = e.until(ctx, 10*time.Minute, func() (bool, error) {
		n, err := metric(e.api, e.token, "ebb_invocations_total")
		return n > 0, err
	})
	q.First = time.Since(e.begun).Seconds()
	if err != nil {
		return err
	}
	q.Restart, err = peak(e.cmd.Process.Pid)
	return err
}

// peak is the largest resident set that a process had, in MiB.
func peak(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("the system does not tell the peak of memory")
}

func sizeOf(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error { // what goes meanwhile does not count
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

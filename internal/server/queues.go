package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/filter"
	"github.com/ebb-run/ebb/internal/bus/pattern"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
)

// ownerTag says on a queue which Stack declares it.
const ownerTag = "ebb:stack"

// retainTag is on a queue that stays when its Stack is removed.
const retainTag = "ebb:retain"

// number reads what templates write as a number or as its text.
type number float64

// UnmarshalJSON takes 30 and "30".
func (n *number) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	if text == "null" || text == "" {
		return nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return errs.New(errs.Invalid, "%s is no number", data)
	}
	*n = number(v)
	return nil
}

func (n number) seconds() time.Duration { return time.Duration(float64(n) * float64(time.Second)) }

// yes reads what templates write as a truth value or as its text.
type yes bool

// UnmarshalJSON takes true and "true".
func (y *yes) UnmarshalJSON(data []byte) error {
	*y = strings.Trim(string(data), `"`) == "true"
	return nil
}

// queueOf is the queue that a Resource declares.
func (s *Server) queueOf(d *state.Deployment, res *app.Resource) (bus.Queue, error) {
	r := s.resolver(d)
	name, err := r.physicalName(res)
	if err != nil {
		return bus.Queue{}, err
	}
	var p struct {
		FifoQueue, ContentBasedDeduplication                                                    yes
		DeduplicationScope                                                                      string
		VisibilityTimeout                                                                       *number
		DelaySeconds, MessageRetentionPeriod, ReceiveMessageWaitTimeSeconds, MaximumMessageSize number
		RedrivePolicy                                                                           json.RawMessage
	}
	if err := r.properties(res.Properties, &p); err != nil {
		return bus.Queue{}, err
	}
	q := bus.Queue{
		Tenant: tenant, Name: name, FIFO: bool(p.FifoQueue), ContentDedup: bool(p.ContentBasedDeduplication), GroupDedup: p.DeduplicationScope == "messageGroup",
		Delay: p.DelaySeconds.seconds(), Retention: p.MessageRetentionPeriod.seconds(), Wait: p.ReceiveMessageWaitTimeSeconds.seconds(), MaxSize: int(p.MaximumMessageSize),
		Tags: map[string]string{ownerTag: stackID(d.Stack)},
	}
	if res.Retain {
		q.Tags[retainTag] = "true"
	}
	if q.MaxSize > bus.MaxMessage { // 1 MiB on AWS
		q.MaxSize = bus.MaxMessage
	}
	if q.FIFO && !strings.HasSuffix(q.Name, ".fifo") && res.Name.IsZero() {
		q.Name += ".fifo"
	}
	if p.VisibilityTimeout != nil {
		v := p.VisibilityTimeout.seconds()
		q.Visibility = &v
	}
	if len(p.RedrivePolicy) == 0 {
		return q, nil
	}
	var policy struct {
		DeadLetterTargetArn string `json:"deadLetterTargetArn"`
		MaxReceiveCount     number `json:"maxReceiveCount"`
	}
	text := p.RedrivePolicy
	var inner string
	if json.Unmarshal(text, &inner) == nil { // as a JSON text, which the API takes
		text = json.RawMessage(inner)
	}
	if err := json.Unmarshal(text, &policy); err != nil {
		return q, errs.New(errs.Invalid, "read its RedrivePolicy: %w", err)
	}
	q.DeadLetters, q.MaxReceives = lastPart(policy.DeadLetterTargetArn), int(policy.MaxReceiveCount)
	return q, nil
}

// lastPart is the name at the end of an ARN.
func lastPart(text string) string { return text[strings.LastIndexByte(text, ':')+1:] }

// queues makes the queues that an App declares what they are to be.
func (s *Server) queues(ctx context.Context, d *state.Deployment) (faults []string) {
	var want []bus.Queue
	for i := range d.App.Resources {
		res := &d.App.Resources[i]
		if res.Kind != app.Queue {
			continue
		}
		q, err := s.queueOf(d, res)
		if err != nil {
			faults = append(faults, fmt.Sprintf("queue %s: %v", res.ID, err))
			continue
		}
		want = append(want, q)
	}
	if len(want) == 0 {
		return faults
	}
	return append(faults, settle(ctx, s, "queue", want, s.events.bus.Queues, s.events.bus.PutQueue)...)
}

func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// dropQueues deletes the queues of a removed Stack.
func (s *Server) dropQueues(ctx context.Context, k state.StackKey) error {
	list, err := s.events.bus.Queues(ctx)
	if err != nil {
		return err
	}
	for _, q := range list {
		if q.Tags[ownerTag] != stackID(k) || q.Tags[retainTag] != "" {
			continue
		}
		if err := s.events.bus.DeleteQueue(ctx, q.Key()); err != nil && errs.CodeOf(err) != errs.NotFound {
			return err
		}
	}
	return nil
}

// mapping is an event source mapping of a queue.
type mapping struct {
	bus.Mapping
	function string // full name
	stack    state.StackKey
	report   bool // its answer may name the messages that failed
	unit     guest.Unit
	spec     string // what tells it from a changed one

	stream *bus.StreamMapping // of a stream; nil: of a queue
	last   lastRuns           // of a stream
	lacks  string             // what of it is not active, though it runs
}

// mappingOf reads an event source mapping.
func (s *Server) mappingOf(d *state.Deployment, t *app.Trigger, name string) (*mapping, error) {
	r := s.resolver(d)
	f := d.App.Function(t.Function)
	if f == nil {
		return nil, errs.New(errs.NotFound, "there is no function %s", t.Function)
	}
	source, err := t.Source.Resolve(r.values())
	if err != nil {
		return nil, err
	}
	var p struct {
		BatchSize, MaximumBatchingWindowInSeconds number
		FunctionResponseTypes                     []string
		ScalingConfig                             struct{ MaximumConcurrency number }
		FilterCriteria                            filterCriteria
	}
	if err := r.settings(t, &p); err != nil {
		return nil, err
	}
	m := &mapping{function: f.Name, report: slices.Contains(p.FunctionResponseTypes, "ReportBatchItemFailures")}
	m.Mapping = bus.Mapping{
		Name: name, Queue: tenant + "/" + lastPart(source), Batch: int(p.BatchSize), Window: p.MaximumBatchingWindowInSeconds.seconds(),
		MaxConcurrency: int(p.ScalingConfig.MaximumConcurrency),
	}
	m.unit = guest.Unit{Function: f.Name, ARN: arn.Function(region(d.App), s.o.Config.Account, f.Name).String(), Region: region(d.App), Account: s.o.Config.Account}
	patterns := p.FilterCriteria.texts()
	if len(patterns) > 0 {
		criteria, list := filter.CompileCriteria(patterns, filter.Queue, "")
		if err := pattern.Fault(list); err != nil {
			return nil, errs.New(errs.Invalid, "its filter: %w", err)
		}
		m.Filter = s.criteria(criteria, m)
	}
	data, err := json.Marshal(struct {
		bus.Mapping
		Filter   []string // in place of the function
		Function string
		Report   bool
		Unit     guest.Unit
	}{m.Mapping, patterns, m.function, m.report, m.unit})
	if err != nil {
		return nil, errs.New(errs.Invalid, "its settings are not JSON: %w", err)
	}
	m.spec = string(data)
	return m, nil
}

// criteria asks a filter about a message in the form that the Function would see.
func (s *Server) criteria(c *filter.Criteria, m *mapping) func(*bus.Received) bool {
	return func(v *bus.Received) bool {
		return s.passes(c, m, bus.BatchOf(m.Queue, []bus.Received{*v}))
	}
}

// Consume runs the Function with a Batch.
func (m *mapping) consume(ctx context.Context, s *Server, b *invocation.Batch) invocation.Verdict {
	inv := &invocation.Invocation{ID: newID(), Tenant: tenant, Function: m.function, Mode: invocation.ModeRequest, Attempt: 1, Received: time.Now(), Payload: b}
	if m.stream != nil {
		m.last.Store(b.Shard, inv.ID)
	}
	var work bus.Work
	inv.Trace, inv.Hops, work = workOf(inv.ID, m, b)
	var answer invocation.Buffer
	err := invoker{s}.Invoke(ctx, inv, &answer)
	switch {
	case err == nil:
		v := s.protocol.Verdict(b, m.report, answer.Body.Bytes(), answer.Head.Error)
		if v.Err != nil && answer.Head.Error == nil { // what the function throws is in its log
			s.o.Log.Warn("the answer to a batch is not understood: all of it counts as failed", "function", m.function, "invocation", inv.ID, "error", v.Err)
		}
		s.worked(work, v)
		return v
	case errors.Is(err, guest.ErrPayload) && errs.CodeOf(err) == errs.TooLarge && len(b.Items) > 1 && m.stream != nil:
		return m.inHalves(ctx, s, b)
	case errors.Is(err, guest.ErrPayload) && errs.CodeOf(err) == errs.TooLarge && len(b.Items) > 1:
		return m.halves(ctx, s, b)
	case errs.CodeOf(err) == errs.NotFound: // not served here now
		err = errs.New(errs.Unavailable, "%w", err)
	}
	v := invocation.Verdict{Err: err}
	for i := range b.Items {
		v.Failed = append(v.Failed, i)
	}
	if code := errs.CodeOf(err); code != errs.Throttled && code != errs.Unavailable { // then nothing was run
		s.worked(work, v)
	}
	return v
}

// halves runs the Function with one half of a Batch and then the other. What is behind a failure of its group does not run.
func (m *mapping) halves(ctx context.Context, s *Server, b *invocation.Batch) invocation.Verdict {
	half := len(b.Items) / 2
	first := *b
	first.Items = b.Items[:half]
	v := m.consume(ctx, s, &first)
	held := map[string]bool{}
	for _, i := range v.Failed {
		if g := b.Items[i].Group; g != "" {
			held[g] = true
		}
	}
	second := *b
	second.Items = nil
	var at []int // of the second half, in b
	for i := half; i < len(b.Items); i++ {
		if held[b.Items[i].Group] {
			v.Failed = append(v.Failed, i)
			continue
		}
		second.Items, at = append(second.Items, b.Items[i]), append(at, i)
	}
	if len(at) == 0 {
		return v
	}
	w := m.consume(ctx, s, &second)
	for _, i := range w.Failed {
		v.Failed = append(v.Failed, at[i])
	}
	slices.Sort(v.Failed)
	if err := errors.Join(v.Err, w.Err); err != nil {
		v.Err = errs.New(errs.Failed, "%w", err) // not of a code that says that nothing of the Batch ran
	}
	return v
}

// consumer is a mapping as the bus wants it.
type consumer struct {
	s    *Server
	m    *mapping
	stop context.CancelFunc // of its polling
}

// Consume lets what runs end when polling does: the engine bounds it. The ctx of a stream ends only when the order of its records is another Node's.
func (c consumer) Consume(ctx context.Context, b *invocation.Batch) invocation.Verdict {
	if err := c.s.mappingCrosses(ctx, c.m); err != nil {
		if errs.CodeOf(err) == errs.Forbidden {
			c.s.o.Log.Warn("an event source mapping polls no longer", "mapping", c.m.Name, "because", err)
			c.stop()
		}
		return foreignBatch(b, err)
	}
	if c.m.stream != nil {
		return c.m.consume(ctx, c.s, b)
	}
	return c.m.consume(context.WithoutCancel(ctx), c.s, b)
}

// pollers runs the mappings of what is served.
type pollers struct {
	mu struct {
		sync.Mutex
		ctx     context.Context       // while the Node runs
		wanted  map[string][]*mapping // by Stack
		running map[string]*poll
	}
	wait sync.WaitGroup
}

type poll struct {
	spec string
	stop context.CancelFunc
	done chan struct{}
}

// want says what a Stack has.
func (p *pollers) want(s *Server, stack string, list []*mapping) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.wanted == nil {
		p.mu.wanted, p.mu.running = map[string][]*mapping{}, map[string]*poll{}
	}
	if len(list) == 0 {
		delete(p.mu.wanted, stack)
	} else {
		p.mu.wanted[stack] = list
	}
	p.reconcile(s)
}

// run polls until ctx ends.
func (p *pollers) run(ctx context.Context, s *Server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.ctx = ctx
	p.reconcile(s)
}

// end waits for what polls to have settled what it ran. Polling has to be stopped.
func (p *pollers) end(ctx context.Context) {
	done := make(chan struct{})
	go func() { p.wait.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// reconcile starts and stops polling. mu is held.
func (p *pollers) reconcile(s *Server) {
	if p.mu.ctx == nil || p.mu.ctx.Err() != nil {
		return
	}
	wanted := map[string]*mapping{}
	for _, list := range p.mu.wanted {
		for _, m := range list {
			wanted[m.Name] = m
		}
	}
	for name, r := range p.mu.running {
		if m := wanted[name]; m == nil || m.spec != r.spec {
			r.stop()
			delete(p.mu.running, name)
		}
	}
	for name, m := range wanted {
		if p.mu.running[name] != nil {
			continue
		}
		ctx, stop := context.WithCancel(p.mu.ctx)
		r := &poll{spec: m.spec, stop: stop, done: make(chan struct{})}
		p.mu.running[name] = r
		p.wait.Go(func() {
			defer close(r.done)
			defer stop()
			if !s.mayPoll(ctx, m) {
				return
			}
			if m.stream != nil { // waits for what the one before still runs
				if err := s.events.bus.PollStream(ctx, *m.stream, consumer{s, m, stop}); err != nil {
					s.o.Log.Error("a stream is not polled", "mapping", m.Name, "error", err)
				}
				return
			}
			mp := m.Mapping
			if t := s.turnsOf(m); t != nil {
				mp.Turns = t
			}
			if err := s.events.bus.Poll(ctx, mp, consumer{s, m, stop}); err != nil {
				s.o.Log.Error("a queue is not polled", "mapping", m.Name, "error", err)
			}
		})
	}
}

// poll takes up the mappings of what is served.
func (s *Server) poll(d *state.Deployment) {
	list, _ := s.mappings(d)
	s.pollers.want(s, stackID(d.Stack), list)
}

// eachMapping names the event source mappings of a Deployment, disabled ones too.
func (s *Server) eachMapping(d *state.Deployment, f func(t *app.Trigger, name string)) {
	names := map[string]int{}
	for i := range d.App.Triggers {
		t := &d.App.Triggers[i]
		if t.Kind != "stream" && (t.Kind != "sqs" || !t.Enabled) {
			continue
		}
		name := triggerPrefix(d.Stack) + triggerID(t) + "/" + t.Function
		if names[name]++; names[name] > 1 {
			name += fmt.Sprintf("/%d", names[name])
		}
		f(t, name)
	}
}

// mappings gives the event source mappings of a Deployment; what is wrong with others was told at its deploy.
func (s *Server) mappings(d *state.Deployment) (list []*mapping, faults []string) {
	s.eachMapping(d, func(t *app.Trigger, name string) {
		if !t.Enabled {
			return
		}
		read := s.mappingOf
		if t.Kind == "stream" {
			read = s.streamMappingOf
		}
		m, err := read(d, t, name)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%s trigger of function %s: %v", t.Kind, t.Function, err))
			return
		}
		if m.lacks != "" {
			faults = append(faults, fmt.Sprintf("%s trigger of function %s: %s", t.Kind, t.Function, m.lacks))
		}
		m.stack = d.Stack
		list = append(list, m)
	})
	return list, faults
}

// Queues lists queues with what is in them.
func (s *Server) Queues(ctx context.Context) ([]api.QueueInfo, error) {
	if err := s.events.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return nil, err
	}
	list, err := s.events.bus.Queues(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.QueueInfo{}
	for _, q := range list {
		st, err := s.events.bus.QueueStatus(ctx, q.Key())
		if errs.CodeOf(err) == errs.NotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, api.QueueInfo{
			Name: q.Name, FIFO: q.FIFO, DeadLetters: q.DeadLetters, MaxReceives: q.MaxReceives, Visible: st.Visible, InFlight: st.InFlight, Delayed: st.Delayed, Oldest: st.Oldest,
		})
	}
	return out, nil
}

// SendMessage puts a message into a queue.
func (s *Server) SendMessage(ctx context.Context, queue string, m api.QueueMessage) (*api.SentMessage, error) {
	sent, err := s.send(ctx, queue, []api.QueueMessage{m})
	if err != nil {
		return nil, err
	}
	if sent[0].Err != nil {
		return nil, sent[0].Err
	}
	return &api.SentMessage{ID: sent[0].ID, Sequence: sent[0].Sequence, Duplicate: sent[0].Duplicate}, nil
}

// SendMessages puts messages into a queue.
func (s *Server) SendMessages(ctx context.Context, queue string, all []api.QueueMessage) ([]api.SentMessage, error) {
	sent, err := s.send(ctx, queue, all)
	if err != nil {
		return nil, err
	}
	out := make([]api.SentMessage, len(sent))
	for i, v := range sent {
		if v.Err != nil {
			out[i] = api.SentMessage{Code: string(errs.CodeOf(v.Err)), Error: v.Err.Error()}
			continue
		}
		out[i] = api.SentMessage{ID: v.ID, Sequence: v.Sequence, Duplicate: v.Duplicate}
	}
	return out, nil
}

func (s *Server) send(ctx context.Context, queue string, all []api.QueueMessage) ([]bus.Sent, error) {
	msgs := make([]bus.Message, len(all))
	for i, m := range all {
		msgs[i] = bus.Message{Body: []byte(m.Body), Group: m.Group, Dedup: m.Dedup}
	}
	return s.events.bus.Send(ctx, tenant+"/"+queue, msgs)
}

// PurgeQueue removes all messages of a queue.
func (s *Server) PurgeQueue(ctx context.Context, queue string) error {
	return s.events.bus.PurgeQueue(ctx, tenant+"/"+queue)
}

// RedriveQueue moves dead letters back to where they came from, or to another queue.
func (s *Server) RedriveQueue(ctx context.Context, queue, to string) (int, error) {
	if to != "" {
		to = tenant + "/" + to
	}
	return s.events.bus.RedriveQueue(ctx, bus.QueueRedrive{From: tenant + "/" + queue, To: to})
}

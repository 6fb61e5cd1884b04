package bus

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/ebb-run/ebb/internal/errs"
)

// Questions are answered by the Partition's owner from its index; another Node asks it over NATS.

// Query chooses deliveries for a list; fields that are set must all hold.
type Query struct {
	Subscription string `json:"sub,omitempty"`
	Prefix       string `json:"prefix,omitempty"` // of the Subscription's name
	Live         bool   `json:"live,omitempty"`   // only of Subscriptions that stand: not of a deleted one whose name another has now
	State        *State `json:"state,omitempty"`
	Cause        Cause  `json:"cause,omitempty"`
	Limit        int    `json:"limit,omitempty"`  // of one Partition; 0 means 100, 1000 is the most
	After        string `json:"after,omitempty"`  // ID of the last one seen: its Partition and those behind it go on from there
	Newest       bool   `json:"newest,omitempty"` // the newest first, over all Partitions; not with After
	Events       bool   `json:"events,omitempty"` // tell source and id of the events too: each is read from the log
}

// Counts says how many deliveries of each Subscription stand in each state; of a name that stands, those of the Subscription that stands.
type Counts map[string]map[State]int

type question struct {
	ID     string         `json:"id,omitempty"`    // of a delivery
	Event  []byte         `json:"event,omitempty"` // hash of an event
	Query  *Query         `json:"query,omitempty"`
	Subs   bool           `json:"subs,omitempty"`
	Counts bool           `json:"counts,omitempty"`
	Count  *tally         `json:"count,omitempty"`
	Replay string         `json:"replay,omitempty"`
	Reach  uint64         `json:"reach,omitempty"` // a block
	Queue  *queueQuestion `json:"queue,omitempty"`

	Stream    *streamQuestion `json:"stream,omitempty"`
	Schedules *schedulePage   `json:"schedules,omitempty"`
	Trace     *traceQuestion  `json:"trace,omitempty"`
	Flows     bool            `json:"flows,omitempty"`
	Running   bool            `json:"running,omitempty"`
	Topics    *topicPage      `json:"topics,omitempty"`
}

// tally asks how many of a Selection stand in one of the states.
type tally struct {
	Selection
	States []State `json:"states"`
}

type reply struct {
	Count     int              `json:"count,omitempty"`
	Statuses  []Status         `json:"statuses,omitempty"`
	Subs      []Subscription   `json:"subs,omitempty"`
	Counts    Counts           `json:"counts,omitempty"`
	Replay    *ReplayStatus    `json:"replay,omitempty"`
	Queue     *queueReply      `json:"queue,omitempty"`
	Stream    *streamReply     `json:"stream,omitempty"`
	Schedules []ScheduleStatus `json:"schedules,omitempty"`
	Topics    []topicState     `json:"topics,omitempty"`
	More      bool             `json:"more,omitempty"` // Schedules, Topics
	Trace     *traceReply      `json:"trace,omitempty"`
	Flows     []Flow           `json:"flows,omitempty"`
	Running   map[string]int   `json:"running,omitempty"`
	Code      errs.Code        `json:"code,omitempty"`
	Error     string           `json:"error,omitempty"`
}

// askWait bounds a question to another Node.
const askWait = 30 * time.Second

// ask puts a question to the owner of a Partition, and waits a while for there to be one.
func (b *Bus) ask(ctx context.Context, p *partition, q question) (*reply, error) {
	data, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var m *natsgo.Msg
	for m == nil {
		p.mu.Lock()
		own := p.mu.own
		p.mu.Unlock()
		if own != nil {
			return own.reply(ctx, q)
		}
		m, err = b.js.Conn().RequestWithContext(ctx, asksSubject+strconv.Itoa(p.num), data)
		if errors.Is(err, natsgo.ErrNoResponders) && ctx.Err() == nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		if err != nil {
			return nil, errs.New(errs.Unavailable, "ask for partition %d of the event bus: no node serves it now: %w", p.num, err).WithHint("Try again in a moment.")
		}
	}
	var r reply
	if err := json.Unmarshal(m.Data, &r); err != nil {
		return nil, fmt.Errorf("ask for partition %d of the event bus: %w", p.num, err)
	}
	if r.Code != "" {
		return nil, errs.New(r.Code, "%s", r.Error)
	}
	return &r, nil
}

// answer makes the owner reachable.
func (o *owner) answer() error {
	sub, err := o.b.js.Conn().Subscribe(asksSubject+strconv.Itoa(o.p.num), func(m *natsgo.Msg) {
		select {
		case o.asked <- struct{}{}: // bounds how many are answered at once
		case <-o.ctx.Done():
			return
		}
		o.p.mu.Lock()
		defer o.p.mu.Unlock()
		if o.p.mu.own != o { // silent, and perhaps being waited for
			<-o.asked
			return
		}
		o.wait.Go(func() {
			defer func() { <-o.asked }()
			o.respond(m)
		})
	})
	if err != nil {
		return fault("listen for questions", err)
	}
	o.sub = sub
	if err := o.q.listen(); err != nil {
		return err
	}
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	o.p.mu.own = o
	return nil
}

func (o *owner) respond(m *natsgo.Msg) {
	ctx, cancel := context.WithTimeout(o.ctx, askWait)
	defer cancel()
	var q question
	r, err := &reply{}, json.Unmarshal(m.Data, &q)
	if err == nil {
		r, err = o.reply(ctx, q)
	}
	if err != nil {
		r = &reply{Code: errs.CodeOf(err), Error: err.Error()}
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil && !o.stopping() {
		o.b.opt.Log.Warn("a question about events is not answered", "err", err)
	}
}

func (o *owner) silence() {
	o.p.mu.Lock()
	o.p.mu.own = nil
	o.p.mu.Unlock()
	o.q.silence()
	if o.sub != nil {
		_ = o.sub.Unsubscribe() // an error says that the connection is gone
	}
}

func (o *owner) reply(ctx context.Context, q question) (*reply, error) {
	r, err := o.look(ctx, q)
	if err != nil && errs.CodeOf(err) == errs.Internal {
		return nil, indexError(err)
	}
	return r, err
}

func (o *owner) look(ctx context.Context, q question) (*reply, error) {
	var err error
	r := &reply{}
	switch {
	case q.ID != "":
		d, _, perr := parseID(q.ID)
		if perr != nil {
			return nil, perr
		}
		r.Statuses, err = o.statuses(ctx, "d.seq = ? AND d.idx = ? AND d.sub = ?", []any{int64(d.Seq), d.Idx, d.Sub}, 1, false)
		if err == nil && len(r.Statuses) == 0 {
			return nil, errs.New(errs.NotFound, "there is no delivery %s", q.ID).WithHint("It may be older than the retention.")
		}
		o.withEvents(ctx, r.Statuses)
	case q.Event != nil:
		var at spot
		err = o.x.db.QueryRowContext(ctx, "SELECT seq, idx FROM events WHERE h = ?", q.Event).Scan(&at.seq, &at.idx)
		if errors.Is(err, sql.ErrNoRows) {
			return r, nil
		}
		if err == nil {
			r.Statuses, err = o.deliveriesOf(ctx, at)
		}
		o.withEvents(ctx, r.Statuses)
	case q.Query != nil:
		r.Statuses, err = o.list(ctx, *q.Query)
	case q.Subs:
		r.Subs, err = o.subscriptions(ctx)
	case q.Counts:
		r.Counts, err = o.counts(ctx)
	case q.Running:
		r.Running, err = o.runningNow(ctx)
	case q.Count != nil:
		r.Count, err = o.count(ctx, *q.Count)
	case q.Queue != nil:
		r.Queue, err = o.lookQueue(ctx, q)
	case q.Stream != nil:
		r.Stream, err = o.lookStream(ctx, q.Stream)
	case q.Reach > 0:
		err = o.progress.reach(ctx, o.ctx, q.Reach)
	case q.Schedules != nil:
		err = o.schedules(ctx, *q.Schedules, r)
	case q.Trace != nil:
		r.Trace, err = o.lookTrace(ctx, *q.Trace)
	case q.Flows:
		r.Flows, err = o.lookFlows(ctx)
	case q.Topics != nil:
		err = o.topics(ctx, *q.Topics, r)
	case q.Replay != "":
		r.Replay, err = o.replayStatus(ctx, q.Replay)
	}
	return r, err
}

func (o *owner) list(ctx context.Context, q Query) ([]Status, error) {
	where, args := "1", []any(nil)
	add := func(cond string, v ...any) { where, args = where+" AND "+cond, append(args, v...) }
	if q.Subscription != "" {
		add("d.sub IN (SELECT id FROM subs WHERE name = ?)", q.Subscription)
	}
	if q.Prefix != "" {
		add("d.sub IN (SELECT id FROM subs WHERE substr(name, 1, length(?)) = ?)", q.Prefix, q.Prefix)
	}
	if q.Live {
		add("d.sub IN (SELECT id FROM subs WHERE live = 1)")
	}
	if q.State != nil {
		add(fmt.Sprintf("d.state = %d", *q.State)) // in the text: partial indexes need it there
	}
	if q.Cause != "" {
		add("d.cause = ?", q.Cause)
	}
	if q.After != "" {
		d, part, err := parseID(q.After)
		if err != nil {
			return nil, err
		}
		if part == o.p.num {
			add("(d.seq, d.idx, d.sub) > (?, ?, ?)", int64(d.Seq), d.Idx, d.Sub)
		}
	}
	list, err := o.statuses(ctx, where, args, min(q.Limit, 1000), q.Newest)
	if err == nil && q.Events {
		o.withEvents(ctx, list)
	}
	return list, err
}

func (o *owner) statuses(ctx context.Context, where string, args []any, limit int, newest bool) ([]Status, error) {
	order := "d.seq, d.idx, d.sub"
	if newest {
		order = "d.seq DESC, d.idx DESC, d.sub DESC"
	}
	rows, err := o.x.db.QueryContext(ctx, `SELECT d.seq, d.idx, d.sub, d.eseq, d.eidx, d.key, d.state, d.at, d.due, d.updated, d.runs, d.redriven, d.replay, d.cause, d.log, coalesce(s.name, '')
		FROM deliveries d LEFT JOIN subs s ON s.id = d.sub WHERE `+where+" ORDER BY "+order+" LIMIT ?", append(slices.Clone(args), limit)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Status
	for rows.Next() {
		var id did
		var s Status
		var at, due, updated int64
		var log string
		if err := rows.Scan(&id.Seq, &id.Idx, &id.Sub, &s.eseq, &s.eidx, &s.Key, &s.State, &at, &due, &updated, &s.Tries, &s.Redriven, &s.Replay, &s.Cause, &log, &s.Subscription); err != nil {
			return nil, err
		}
		s.ID = id.id(o.p.num)
		s.Published, s.Updated = time.UnixMilli(at).UTC(), time.UnixMilli(updated).UTC()
		if s.State == Pending {
			s.Due = time.UnixMilli(due).UTC()
			if at, ok := o.running.Load(id); ok {
				s.Running = at.(time.Time).UTC()
			}
		}
		if err := json.Unmarshal([]byte("["+log+"]"), &s.Attempts); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

// deliveriesOf gives the deliveries of an event, replayed ones included. Both parts of the condition have an index.
func (o *owner) deliveriesOf(ctx context.Context, e spot) ([]Status, error) {
	return o.statuses(ctx, "d.seq = ?1 AND d.idx = ?2 OR d.eseq = ?1 AND d.eidx = ?2 AND d.seq <> d.eseq", []any{int64(e.seq), e.idx}, 1000, false)
}

// withEvents adds source and id of the events, where the log still has them.
func (o *owner) withEvents(ctx context.Context, all []Status) {
	for i := range all {
		if e, err := o.blocks.event(ctx, all[i].eseq, all[i].eidx); err == nil {
			all[i].Source, all[i].EventID, all[i].Subject = e.Source, e.ID, e.Subject
		}
	}
}

func (o *owner) subscriptions(ctx context.Context) ([]Subscription, error) {
	rows, err := o.x.db.QueryContext(ctx, "SELECT spec FROM subs WHERE live = 1 ORDER BY name")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Subscription
	for rows.Next() {
		var spec []byte
		var s Subscription
		if err := errors.Join(rows.Scan(&spec), json.Unmarshal(spec, &s)); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func (o *owner) count(ctx context.Context, t tally) (int, error) {
	if len(t.States) == 0 {
		return 0, nil
	}
	in := make([]string, len(t.States))
	for i, s := range t.States {
		in[i] = strconv.Itoa(int(s))
	}
	where, args := "state IN ("+strings.Join(in, ", ")+") AND sub IN (SELECT id FROM subs WHERE live = 1", []any(nil)
	if t.Subscription != "" {
		where, args = where+" AND name = ?", append(args, t.Subscription)
	}
	where += ")"
	if t.Cause != "" {
		where, args = where+" AND cause = ?", append(args, t.Cause)
	}
	ids := [][]any{nil}
	if len(t.IDs) > 0 {
		where, ids = where+" AND (seq, idx, sub) = (?, ?, ?)", nil
		for _, id := range t.IDs {
			d, _, err := parseID(id)
			if err != nil {
				return 0, err
			}
			ids = append(ids, []any{int64(d.Seq), d.Idx, d.Sub})
		}
	}
	all := 0
	for _, id := range ids {
		n := 0
		if err := o.x.db.QueryRowContext(ctx, "SELECT count(*) FROM deliveries WHERE "+where, append(slices.Clone(args), id...)...).Scan(&n); err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}

package bus

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Extensions that say where an event comes from, beside Hops.
const (
	TraceParent = "traceparent"  // W3C trace context; CloudEvents extension "Distributed Tracing"
	Parent      = "ebbparent"    // ID of the Invocation that published the event
	Publisher   = "ebbpublisher" // name of who did
)

// kindWork is a Work.
const kindWork kind = 'w'

// traceSchema is the part of the index by which traces are found: what stands in the log of each, and of each id. A key is the 16 bytes of a
// trace ID, or eight bytes of an id's hash and zeros. The trace that an event without one is given begins with those eight bytes, so that its row serves
// for both.
const traceSchema = `
CREATE TABLE found(k BLOB NOT NULL, seq INTEGER NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY(k, seq, idx)) WITHOUT ROWID;
CREATE INDEX again ON deliveries(eseq, eidx) WHERE seq <> eseq; -- replayed ones
`

// TraceID names all that follows from one beginning.
type TraceID [16]byte

// String writes the 32 hexadecimal digits.
func (t TraceID) String() string { return hex.EncodeToString(t[:]) }

// ParseTrace reads a W3C traceparent, version 00 or one that begins like it. One that is not valid gives false.
func ParseTrace(s string) (t TraceID, ok bool) {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" || len(s) > 55 && (s[:2] == "00" || s[55] != '-') {
		return t, false
	}
	for _, part := range []string{s[:2], s[3:35], s[36:52], s[53:55]} {
		for i := range len(part) {
			if c := part[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return t, false
			}
		}
	}
	_, _ = hex.Decode(t[:], []byte(s[3:35])) // checked above
	return t, t != TraceID{} && s[36:52] != "0000000000000000"
}

// idHash is the part of a key that an id has.
func idHash(id string) (h [8]byte) {
	sum := sha256.Sum256([]byte(id))
	copy(h[:], sum[:])
	if h == [8]byte{} {
		h[0] = 1
	}
	return h
}

func idKey(id string) (k TraceID) {
	h := idHash(id)
	copy(k[:], h[:])
	return k
}

// rootTrace is the trace that something with an id begins: always the same, so that whoever publishes again says the same.
func rootTrace(id string, h hash) (t TraceID) {
	k := idHash(id)
	copy(t[:], k[:])
	copy(t[8:], h[8:])
	return t
}

// traceText writes a traceparent for a trace: its span is named by what is in it.
func traceText(t TraceID, h hash) string {
	if h[0]|h[1]|h[2]|h[3]|h[4]|h[5]|h[6]|h[7] == 0 {
		h[0] = 1
	}
	return "00-" + t.String() + "-" + hex.EncodeToString(h[:8]) + "-01"
}

// TraceOf gives the trace that an event belongs to: the one that it carries, or the one that it begins.
func TraceOf(e *event.Event) TraceID {
	if t, ok := ParseTrace(e.Extension(TraceParent)); ok {
		return t
	}
	return rootTrace(e.ID, hashEvent(e))
}

// TraceContext gives the traceparent that an event carries, or the one by which it begins a trace.
func TraceContext(e *event.Event) string {
	if _, ok := ParseTrace(e.Extension(TraceParent)); ok {
		return e.Extension(TraceParent)
	}
	h := hashEvent(e)
	return traceText(rootTrace(e.ID, h), h)
}

// TraceOfInvocation gives the traceparent by which an Invocation begins a trace.
func TraceOfInvocation(id string) string {
	h := hashOf("invocation", "", id)
	return traceText(rootTrace(id, h), h)
}

// HopsOf is how many events are in the chain of causes of an event.
func HopsOf(e *event.Event) int { return hops(e) }

// traceOf is the trace that a message belongs to.
func (s *sending) traceOf() TraceID {
	if t, ok := ParseTrace(s.Trace); ok {
		return t
	}
	return rootTrace(s.ID, messageHash(s.ID))
}

// messageHash names a message by its ID alone, which stays when it is moved.
func messageHash(id string) hash { return hashOf("message", "", id) }

// TraceOfMessage gives the traceparent that a message of a queue carries, or the one by which it begins a trace. The event is what BatchOf made of it.
func TraceOfMessage(e *event.Event) string {
	if _, ok := ParseTrace(e.Extension(TraceParent)); ok {
		return e.Extension(TraceParent)
	}
	h := messageHash(e.ID)
	return traceText(rootTrace(e.ID, h), h)
}

// Work is an Invocation that is not a delivery of the Bus, and is part of a trace: it took messages from a queue, or it published events and its
// caller waited for its answer.
type Work struct {
	ID       string        `json:"id"`   // the Invocation's
	Name     string        `json:"name"` // who ran
	Queue    string        `json:"queue,omitempty"`
	Trace    string        `json:"trace,omitempty"` // traceparent
	Start    time.Time     `json:"start"`
	Took     time.Duration `json:"took"`
	Error    string        `json:"error,omitempty"`
	Messages []string      `json:"messages,omitempty"` // IDs of those it took
	Failed   []int         `json:"failed,omitempty"`   // indices of Messages
	Traces   []TraceID     `json:"traces,omitempty"`   // of the messages
}

// MarshalText writes a TraceID as its digits.
func (t TraceID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (t *TraceID) UnmarshalText(b []byte) error {
	if len(b) != 32 {
		return errs.New(errs.Invalid, "%q is no trace ID", clip(string(b)))
	}
	_, err := hex.Decode(t[:], b)
	return err
}

// maxWorkMessages is how many of its messages a Work names.
const maxWorkMessages = 1000

// Note records a Work. It returns when that is durable.
func (b *Bus) Note(ctx context.Context, w Work) error {
	w.Error = clip(w.Error)
	w.Messages, w.Traces = w.Messages[:min(len(w.Messages), maxWorkMessages)], w.Traces[:min(len(w.Traces), maxWorkMessages)]
	for len(w.Failed) > 0 && w.Failed[len(w.Failed)-1] >= len(w.Messages) {
		w.Failed = w.Failed[:len(w.Failed)-1]
	}
	h := hashOf("work", "", w.ID)
	p := b.parts[int(h[0])%len(b.parts)]
	_, err := p.log.append(ctx, []item{jsonItem(kindWork, w)})
	return err
}

// find makes an item of the log findable.
func (f *folder) find(ctx context.Context, k TraceID, at did) error {
	return f.x.exec(ctx, "INSERT OR IGNORE INTO found(k, seq, idx) VALUES(?, ?, ?)", k[:], int64(at.Seq), at.Idx)
}

// trace makes an item findable by its trace and its id.
func (f *folder) trace(ctx context.Context, at did, t TraceID, id string) error {
	if err := f.find(ctx, t, at); err != nil {
		return err
	}
	if k := idKey(id); [8]byte(k[:8]) != [8]byte(t[:8]) {
		return f.find(ctx, k, at)
	}
	return nil
}

func (f *folder) work(ctx context.Context, at did, now int64, w Work) error {
	t, ok := ParseTrace(w.Trace)
	if !ok {
		t = rootTrace(w.ID, hashOf("invocation", "", w.ID))
	}
	if err := f.trace(ctx, at, t, w.ID); err != nil {
		return err
	}
	for _, t := range w.Traces {
		if err := f.find(ctx, t, at); err != nil {
			return err
		}
	}
	if w.Queue != "" {
		f.flow(now, flowKey{Over: OverQueue + w.Queue, To: w.Name}, max(len(w.Messages), 1))
	}
	return nil
}

// Traced is what stands in the log of a trace: one of Event, Message and Work is set.
type Traced struct {
	Trace   TraceID        `json:"trace"`
	At      time.Time      `json:"at"` // when it was durable
	Event   *TracedEvent   `json:"event,omitempty"`
	Message *TracedMessage `json:"message,omitempty"`
	Work    *Work          `json:"work,omitempty"`
}

// TracedEvent is an event without its data, and what became of it.
type TracedEvent struct {
	ID         string            `json:"id"`
	Source     string            `json:"source"`
	Type       string            `json:"type"`
	Subject    string            `json:"subject,omitempty"`
	Extensions map[string]string `json:"extensions,omitempty"`
	Size       int               `json:"size"` // bytes of its data
	Duplicate  bool              `json:"duplicate,omitempty"`
	Deliveries []Status          `json:"deliveries,omitempty"` // without results
}

// TracedMessage is a message of a queue without its body, and what became of it.
type TracedMessage struct {
	ID        string    `json:"id"`
	Queue     string    `json:"queue"` // where it was sent to
	In        string    `json:"in,omitempty"`
	DeadFrom  string    `json:"deadFrom,omitempty"`
	Group     string    `json:"group,omitempty"`
	Parent    string    `json:"parent,omitempty"`
	Publisher string    `json:"publisher,omitempty"`
	Moved     bool      `json:"moved,omitempty"` // it came from another part of the log
	Receives  int       `json:"receives"`        // of what is in a queue
	Visible   time.Time `json:"visible,omitzero"`
	Size      int       `json:"size"`
}

// traceQuestion asks for what is found under keys that begin with Prefix.
type traceQuestion struct {
	Prefix []byte `json:"prefix"`
	Keys   bool   `json:"keys,omitempty"` // only the traces
	Seq    uint64 `json:"seq,omitempty"`  // behind this item
	Idx    int    `json:"idx,omitempty"`
}

type traceReply struct {
	Found []Traced `json:"found,omitempty"`
	Seq   uint64   `json:"seq,omitempty"` // there is more behind it
	Idx   int      `json:"idx,omitempty"`
	More  bool     `json:"more,omitempty"`
}

const (
	// tracePage bounds what one answer about a trace holds: items, and bytes of JSON.
	tracePage, traceBytes = 500, 512 << 10
	// MaxTrace is how many items of a trace are given at most.
	MaxTrace = 5000
	// maxTraces is how many traces an id may lead to.
	maxTraces = 20
)

// Find gives the traces that an id leads to: that of a trace, an event, a message, an Invocation or a delivery. It looks at what is in the index;
// what was published a moment ago needs a Sync before.
func (b *Bus) Find(ctx context.Context, id string) ([]TraceID, error) {
	var direct TraceID
	if t, ok := ParseTrace(id); ok {
		direct = t
	} else if err := direct.UnmarshalText([]byte(id)); err != nil {
		direct = TraceID{}
	}
	if direct != (TraceID{}) {
		return b.traces(ctx, direct[:])
	}
	h := idHash(id)
	out, err := b.traces(ctx, h[:])
	if err != nil || len(out) > 0 {
		return out, err
	}
	if p, ok := InvocationPrefix(id); ok {
		return b.traces(ctx, p[:])
	}
	if p, err := b.partitionOfID(id); err == nil {
		return b.tracesOfDelivery(ctx, p, id)
	}
	return nil, nil
}

func (b *Bus) tracesOfDelivery(ctx context.Context, p *partition, id string) ([]TraceID, error) {
	r, err := b.ask(ctx, p, question{ID: id})
	if errs.CodeOf(err) == errs.NotFound {
		return nil, nil
	}
	if err != nil || len(r.Statuses) == 0 || r.Statuses[0].EventID == "" {
		return nil, err
	}
	h := idHash(r.Statuses[0].EventID)
	return b.traces(ctx, h[:])
}

// InvocationPrefix gives the first bytes of the trace to which a UUID that InvocationID made belongs.
func InvocationPrefix(id string) (p [6]byte, ok bool) {
	if len(id) != 36 || id[8] != '-' || id[14] != '8' {
		return p, false
	}
	_, err := hex.Decode(p[:], []byte(id[:8]+id[9:13]))
	return p, err == nil
}

// InvocationID makes a UUID of a delivery's Invocation, the same in all attempts: version 8, which is free for such use. It begins like the trace.
func InvocationID(t TraceID, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write([]byte(strconv.Itoa(len(p)) + ":" + p))
	}
	b := h.Sum(nil)
	copy(b, t[:6])
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:16])
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

// traces gives the traces of what is found under keys that begin with a prefix.
func (b *Bus) traces(ctx context.Context, prefix []byte) ([]TraceID, error) {
	var out []TraceID
	seen := map[TraceID]bool{}
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Trace: &traceQuestion{Prefix: prefix, Keys: true}})
		if err != nil {
			return nil, err
		}
		for _, f := range r.Trace.Found {
			if !seen[f.Trace] && len(out) < maxTraces {
				seen[f.Trace] = true
				out = append(out, f.Trace)
			}
		}
	}
	return out, nil
}

// Trace gives what stands in the log of a trace; more says that it is not all.
func (b *Bus) Trace(ctx context.Context, t TraceID) (out []Traced, more bool, _ error) {
	for _, p := range b.parts {
		q := traceQuestion{Prefix: t[:]}
		for {
			r, err := b.ask(ctx, p, question{Trace: &q})
			if err != nil {
				return nil, false, err
			}
			out = append(out, r.Trace.Found...)
			if !r.Trace.More {
				break
			}
			if len(out) >= MaxTrace {
				return out, true, nil
			}
			q.Seq, q.Idx = r.Trace.Seq, r.Trace.Idx
		}
	}
	return out, false, nil
}

// lookTrace answers from the index.
func (o *owner) lookTrace(ctx context.Context, q traceQuestion) (*traceReply, error) {
	upper := append(append([]byte{}, q.Prefix...), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"...)
	rows, err := o.x.db.QueryContext(ctx, "SELECT DISTINCT seq, idx FROM found WHERE k >= ? AND k <= ? AND (seq, idx) > (?, ?) ORDER BY seq, idx LIMIT ?",
		q.Prefix, upper, int64(q.Seq), q.Idx, tracePage)
	if err != nil {
		return nil, err
	}
	var at []spot
	for rows.Next() {
		var s spot
		if err := rows.Scan(&s.seq, &s.idx); err != nil {
			_ = rows.Close()
			return nil, err
		}
		at = append(at, s)
	}
	if err := rows.Close(); err != nil {
		return nil, err
	}
	out := &traceReply{More: len(at) == tracePage}
	if len(at) == 0 {
		return out, nil
	}
	page, err := o.tracePage(ctx, q.Prefix, upper, at[0], at[len(at)-1], q.Keys)
	if err != nil {
		return nil, err
	}
	defer page.published.Close()
	size := 0
	for _, s := range at {
		f, err := o.traced(ctx, s, page)
		if errs.CodeOf(err) == errs.NotFound {
			continue // purged
		}
		if err != nil {
			return nil, err
		}
		out.Seq, out.Idx = s.seq, s.idx
		if f == nil {
			continue
		}
		out.Found = append(out.Found, *f)
		n, err := json.Marshal(f)
		if err != nil {
			return nil, err
		}
		if size += len(n); size > traceBytes {
			out.More = true
			break
		}
	}
	if q.Keys {
		out.More = false
	}
	return out, nil
}

// foundPage is what the index says of the items of one answer.
type foundPage struct {
	keys       bool // only the traces are asked for
	deliveries map[spot][]Status
	published  *sql.Stmt // when an event was durable
}

// maxPageDeliveries bounds the deliveries that one answer looks at.
const maxPageDeliveries = 20_000

func (o *owner) tracePage(ctx context.Context, prefix, upper []byte, first, last spot, keys bool) (*foundPage, error) {
	p := &foundPage{keys: keys, deliveries: map[spot][]Status{}}
	var err error
	if p.published, err = o.x.db.PrepareContext(ctx, "SELECT coalesce(max(at), 0) FROM events WHERE h = ?"); err != nil || keys {
		return p, err
	}
	for _, on := range []string{"e.seq = f.seq AND e.idx = f.idx", "e.eseq = f.seq AND e.eidx = f.idx AND e.seq <> e.eseq"} {
		list, err := o.statuses(ctx, `(d.seq, d.idx, d.sub) IN (SELECT e.seq, e.idx, e.sub FROM found f CROSS JOIN deliveries e ON `+on+`
			WHERE f.k >= ? AND f.k <= ? AND (f.seq, f.idx) >= (?, ?) AND (f.seq, f.idx) <= (?, ?))`,
			[]any{prefix, upper, int64(first.seq), first.idx, int64(last.seq), last.idx}, maxPageDeliveries, false)
		if err != nil {
			return p, errors.Join(err, p.published.Close())
		}
		for _, st := range list {
			e := spot{st.eseq, st.eidx}
			p.deliveries[e] = append(p.deliveries[e], st)
		}
	}
	return p, nil
}

// traced reads an item of the log.
func (o *owner) traced(ctx context.Context, s spot, page *foundPage) (*Traced, error) {
	items, err := o.blocks.items(ctx, s.seq)
	if err != nil || s.idx >= len(items) {
		return nil, err
	}
	it := items[s.idx]
	switch it.kind {
	case kindWork:
		w := &Work{}
		if err := json.Unmarshal(it.body, w); err != nil {
			return nil, err
		}
		t, ok := ParseTrace(w.Trace)
		if !ok {
			t = rootTrace(w.ID, hashOf("invocation", "", w.ID))
		}
		return &Traced{Trace: t, At: w.Start.Add(w.Took), Work: w}, nil
	case kindSend:
		m, body, err := parseSend(it)
		if err != nil {
			return nil, err
		}
		f := &Traced{Trace: m.traceOf()}
		if page.keys {
			return f, nil
		}
		return f, o.tracedMessage(ctx, s, &m, len(body)+it.dataSize(), f)
	}
	e, err := it.event()
	if err != nil || e == nil {
		return nil, err
	}
	f := &Traced{Trace: TraceOf(e)}
	if page.keys {
		return f, nil
	}
	return f, tracedEvent(ctx, s, e, f, page, it.dataSize())
}

func tracedEvent(ctx context.Context, s spot, e *event.Event, f *Traced, page *foundPage, apart int) error {
	out := &TracedEvent{ID: e.ID, Source: e.Source, Type: e.Type, Subject: e.Subject, Size: len(e.Data) + apart}
	for name := range e.Extensions {
		if out.Extensions == nil {
			out.Extensions = map[string]string{}
		}
		out.Extensions[name] = e.Extension(name)
	}
	f.At = e.Time
	list := page.deliveries[s]
	if len(list) == 0 {
		h, at := hashEvent(e), int64(0)
		if err := page.published.QueryRowContext(ctx, h[:]).Scan(&at); err != nil {
			return err
		}
		if at > 0 {
			f.At = time.UnixMilli(at).UTC()
		}
	}
	for i := range list {
		list[i].Source, list[i].EventID, list[i].Subject = e.Source, e.ID, e.Subject
		if list[i].Replay == "" && !list[i].Published.IsZero() {
			f.At = list[i].Published
		}
		for k := range list[i].Attempts {
			list[i].Attempts[k].Result = nil
		}
	}
	out.Deliveries, f.Event = list, out
	return nil
}

func (o *owner) tracedMessage(ctx context.Context, s spot, m *sending, size int, f *Traced) error {
	out := &TracedMessage{ID: m.ID, Queue: m.Queue, Group: m.Group, DeadFrom: m.Dead, Moved: m.Move != "", Size: size, Parent: m.Parent, Publisher: m.Publisher}
	f.Message = out
	f.At = time.UnixMilli(m.Sent).UTC()
	rows, err := o.x.db.QueryContext(ctx, `SELECT q.key, m.sent, m.visible, m.receives, m.dead FROM messages m JOIN queues q ON q.gen = m.gen WHERE m.seq = ? AND m.idx = ?`, int64(s.seq), s.idx)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var sent, visible int64
		if err := rows.Scan(&out.In, &sent, &visible, &out.Receives, &out.DeadFrom); err != nil {
			return err
		}
		f.At, out.Visible = time.UnixMilli(sent).UTC(), time.UnixMilli(visible).UTC()
	}
	return rows.Err()
}

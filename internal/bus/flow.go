package bus

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/event"
)

// Flow is what went one way: from whom, over what, to whom.
type Flow struct {
	From string    `json:"from,omitempty"` // the extension Publisher of the events; empty for those that came from outside
	Over string    `json:"over"`           // a channel, or OverQueue and a queue's key
	Type string    `json:"type,omitempty"` // of the events; "*" where there are too many
	To   string    `json:"to,omitempty"`   // a Subscription's name, who took messages, or OverQueue and the queue that has dead letters; empty for what was published or sent, whoever took it
	N    int       `json:"n"`
	Last time.Time `json:"last"`
}

// OverQueue begins the Over of a Flow of messages.
const OverQueue = "queue:"

const flowSchema = `
CREATE TABLE flows(day INTEGER NOT NULL, fro TEXT NOT NULL, over TEXT NOT NULL, type TEXT NOT NULL, dest TEXT NOT NULL, n INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY(day, fro, over, type, dest)) WITHOUT ROWID;
`

const (
	dayMS = 24 * 60 * 60 * 1000
	// maxFlows bounds the Flows of a day in one Partition: with more, types are not told apart; with twice as many, nothing new is counted.
	maxFlows = 4000
	// maxFlowText bounds each of their texts.
	maxFlowText = 200
)

type flowKey struct{ From, Over, Type, To string }

type flowSum struct {
	n    int
	last int64
}

// flowFold is what the fold keeps of Flows besides the table.
type flowFold struct {
	max   int
	day   int64
	known map[flowKey]bool // rows of the day
	block map[flowKey]flowSum
}

func shortened(s string) string {
	if len(s) <= maxFlowText {
		return s
	}
	return strings.ToValidUTF8(s[:maxFlowText], "") + "…"
}

// flow counts n of something in the block.
func (f *folder) flow(now int64, k flowKey, n int) {
	if f.flows.block == nil {
		f.flows.block = map[flowKey]flowSum{}
	}
	k = flowKey{shortened(k.From), shortened(k.Over), shortened(k.Type), shortened(k.To)}
	s := f.flows.block[k]
	f.flows.block[k] = flowSum{s.n + n, max(s.last, now)}
}

// flowOfEvent counts an event for each that takes it.
func (f *folder) flowOfEvent(now int64, e *event.Event, to []*liveSub) {
	k := flowKey{From: e.Extension(Publisher), Over: e.Extension(Channel), Type: e.Type}
	f.flow(now, k, 1) // what was published; then to whom it goes
	for _, s := range to {
		k.To = s.spec.Name
		f.flow(now, k, 1)
	}
}

// flowOfDead counts messages that go to a dead-letter queue.
func (f *folder) flowOfDead(now int64, l *liveQueue, s settled, n int) {
	if s.Dead && n > 0 {
		f.flow(now, flowKey{Over: OverQueue + l.key, To: OverQueue + s.To}, n)
	}
}

// flushFlows writes what a block has counted. The order of new rows is that of their keys, so that the bound cuts the same every time.
func (f *folder) flushFlows(ctx context.Context, now int64) error {
	if len(f.flows.block) == 0 {
		return nil
	}
	day := now / dayMS
	if f.flows.known == nil || f.flows.day != day {
		if err := f.loadFlows(ctx, day); err != nil {
			return err
		}
	}
	keys := make([]flowKey, 0, len(f.flows.block))
	for k := range f.flows.block {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b flowKey) int {
		for _, c := range []int{strings.Compare(a.From, b.From), strings.Compare(a.Over, b.Over), strings.Compare(a.Type, b.Type)} {
			if c != 0 {
				return c
			}
		}
		return strings.Compare(a.To, b.To)
	})
	for _, k := range keys {
		s := f.flows.block[k]
		if !f.flows.known[k] && len(f.flows.known) >= f.flows.max {
			if k.Type = "*"; !f.flows.known[k] && len(f.flows.known) >= 2*f.flows.max {
				continue
			}
		}
		f.flows.known[k] = true
		if err := f.x.exec(ctx, `INSERT INTO flows(day, fro, over, type, dest, n, last) VALUES(?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET n = n + excluded.n, last = max(last, excluded.last)`, day, k.From, k.Over, k.Type, k.To, s.n, s.last); err != nil {
			return err
		}
	}
	clear(f.flows.block)
	return nil
}

func (f *folder) loadFlows(ctx context.Context, day int64) error {
	f.flows.day, f.flows.known = day, map[flowKey]bool{}
	rows, err := f.x.query(ctx, "SELECT fro, over, type, dest FROM flows WHERE day = ?", day)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k flowKey
		if err := rows.Scan(&k.From, &k.Over, &k.Type, &k.To); err != nil {
			return err
		}
		f.flows.known[k] = true
	}
	return rows.Err()
}

// lookFlows answers from the index.
func (o *owner) lookFlows(ctx context.Context) ([]Flow, error) {
	rows, err := o.x.db.QueryContext(ctx, "SELECT fro, over, type, dest, sum(n), max(last) FROM flows GROUP BY 1, 2, 3, 4 ORDER BY 6 DESC, 1, 2, 3, 4 LIMIT ?", flowsPage)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Flow
	for rows.Next() {
		var v Flow
		var last int64
		if err := rows.Scan(&v.From, &v.Over, &v.Type, &v.To, &v.N, &last); err != nil {
			return nil, err
		}
		v.Last = time.UnixMilli(last).UTC()
		out = append(out, v)
	}
	return out, rows.Err()
}

// flowsPage bounds one answer, so that it fits into a message of NATS.
const flowsPage = 1000

// Flows tells what went from whom to whom: whole days, as long as the log is kept; the latest first in each Partition, and not more than fit.
func (b *Bus) Flows(ctx context.Context) ([]Flow, error) {
	sums := map[flowKey]Flow{}
	for _, p := range b.parts {
		r, err := b.ask(ctx, p, question{Flows: true})
		if err != nil {
			return nil, err
		}
		for _, v := range r.Flows {
			k := flowKey{v.From, v.Over, v.Type, v.To}
			if old, ok := sums[k]; ok {
				v.N += old.N
				if old.Last.After(v.Last) {
					v.Last = old.Last
				}
			}
			sums[k] = v
		}
	}
	out := make([]Flow, 0, len(sums))
	for _, v := range sums {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Flow) int {
		for _, c := range []int{strings.Compare(a.From, b.From), strings.Compare(a.Over, b.Over), strings.Compare(a.Type, b.Type)} {
			if c != 0 {
				return c
			}
		}
		return strings.Compare(a.To, b.To)
	})
	return out, nil
}

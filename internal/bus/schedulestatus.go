package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// ScheduleStatus is what is known of a Schedule.
type ScheduleStatus struct {
	Schedule
	Next       []Firing  `json:"next,omitempty"`       // what comes, earliest slot first; none when it is disabled or has run its course
	Last       time.Time `json:"last,omitzero"`        // newest slot that was fired; none before it fires any more, whatever the clock says
	LastID     string    `json:"lastId,omitempty"`     // id of that slot's event
	Deliveries []string  `json:"deliveries,omitempty"` // IDs of what it was delivered as, while these are kept
	Fault      string    `json:"fault,omitempty"`      // why this ebb cannot read it
}

// Firing is a slot and when it is due in its window.
type Firing struct {
	Slot time.Time `json:"slot"` // in the Schedule's zone
	Due  time.Time `json:"due"`
}

// ScheduleQuery chooses Schedules; fields that are set must all hold.
type ScheduleQuery struct {
	Tenant string
	Prefix string // of the name
	Name   string
	Next   int // how many of the next firings are told; 0 means 1, 100 is the most
}

// schedulePage asks a Partition for Schedules behind a name.
type schedulePage struct {
	ScheduleQuery
	After [2]string // Tenant and name
}

// maxNext bounds ScheduleQuery.Next.
const maxNext = 100

// Schedules gives the chosen Schedules by Tenant and name.
func (b *Bus) Schedules(ctx context.Context, q ScheduleQuery) ([]ScheduleStatus, error) {
	var out []ScheduleStatus
	for _, p := range b.parts {
		if q.Tenant != "" && q.Name != "" && p != b.partitionOfSchedule(q.Tenant, q.Name) {
			continue
		}
		for page := (schedulePage{ScheduleQuery: q}); ; {
			r, err := b.ask(ctx, p, question{Schedules: &page})
			if err != nil {
				return nil, err
			}
			out = append(out, r.Schedules...)
			if !r.More || len(r.Schedules) == 0 {
				break
			}
			last := r.Schedules[len(r.Schedules)-1]
			page.After = [2]string{last.Tenant, last.Name}
		}
	}
	slices.SortFunc(out, func(a, b ScheduleStatus) int {
		return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Name, b.Name))
	})
	return out, nil
}

// maxPage bounds the bytes of an answer, which other Nodes get as one message.
const maxPage = 400 << 10

// schedules fills an answer with a page.
func (o *owner) schedules(ctx context.Context, q schedulePage, r *reply) error {
	rows, err := o.x.db.QueryContext(ctx, "SELECT "+scheduleColumns+`, spec FROM schedules WHERE (tenant, name) > (?1, ?2)
		AND (?3 = '' OR tenant = ?3) AND (?4 = '' OR name = ?4) AND substr(name, 1, length(?5)) = ?5 ORDER BY tenant, name`, q.After[0], q.After[1], q.Tenant, q.Name, q.Prefix)
	if err != nil {
		return err
	}
	defer rows.Close()
	var fired []ref
	now := o.b.opt.Now()
	for size := 0; rows.Next(); {
		var key scheduleKey
		var l liveSchedule
		if err := l.scan(rows.Scan, &key); err != nil {
			return err
		}
		s := l.status(now, min(max(q.Next, 1), maxNext))
		data, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if size += len(data); size > maxPage && len(r.Schedules) > 0 {
			r.More = true
			break
		}
		r.Schedules, fired = append(r.Schedules, s), append(fired, l.fired)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := rows.Close(); err != nil { // its connection serves what follows
		return err
	}
	for i, f := range fired {
		if f.Seq == 0 {
			continue
		}
		if err := o.deliveredAs(ctx, f, &r.Schedules[i]); err != nil {
			return err
		}
	}
	return nil
}

func (o *owner) deliveredAs(ctx context.Context, f ref, s *ScheduleStatus) error {
	rows, err := o.x.db.QueryContext(ctx, "SELECT sub FROM deliveries WHERE seq = ? AND idx = ? ORDER BY sub", int64(f.Seq), f.Idx)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		id := did{Seq: f.Seq, Idx: f.Idx}
		if err := rows.Scan(&id.Sub); err != nil {
			return err
		}
		s.Deliveries = append(s.Deliveries, id.id(o.p.num))
	}
	return rows.Err()
}

// status tells of a Schedule and its next n firings.
func (l *liveSchedule) status(now time.Time, n int) ScheduleStatus {
	s := ScheduleStatus{Schedule: l.spec}
	if l.last > 0 {
		s.Last = time.UnixMilli(l.last).UTC()
		s.LastID = l.spec.event(s.Last).ID
	}
	slots, err := l.spec.slots(time.UnixMilli(l.anchor))
	if err != nil {
		s.Fault = err.Error()
		return s
	}
	if l.spec.Disabled {
		return s
	}
	from := now.Add(-l.spec.Window)
	if after := l.after(); from.Before(after) {
		from = after
	}
	for at := slots.Next(from); !at.IsZero() && len(s.Next) < n; at = slots.Next(at) {
		if due := at.Add(l.spec.offset(at)); due.After(now) {
			s.Next = append(s.Next, Firing{at, due.UTC()})
		}
	}
	return s
}

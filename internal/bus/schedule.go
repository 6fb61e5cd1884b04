package bus

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"time"

	"github.com/ebb-run/ebb/internal/cron"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/event"
)

// Schedule says when an event is published, and which. It is stored in the log as JSON.
type Schedule struct {
	Tenant     string    `json:"tenant"`         // empty means "default"
	Name       string    `json:"name"`           // unique in its Tenant; a second one with the name replaces the first
	Expression string    `json:"expression"`     // as package cron reads it: cron(), rate(), at() or Unix cron
	Zone       string    `json:"zone,omitempty"` // IANA name; empty means UTC
	Start      time.Time `json:"start,omitzero"` // first moment of a slot; a rate counts from it, or else from when the expression was put
	End        time.Time `json:"end,omitzero"`   // last moment of a slot
	// AtOnce says that a rate without a Start has its first slot when it is put, as EventBridge Scheduler has it, and not one rate later, as its rules have it.
	AtOnce bool          `json:"atOnce,omitempty"`
	Window time.Duration `json:"window,omitempty"` // each firing is due at some moment of it, from the slot on: whole seconds, up to 24 hours
	Missed Missed        `json:"missed,omitempty"`
	// Of MissedAll: how many missed slots fire at most, the newest of them (0 means 100, 1000 is the most), and how old they may be (0 means 24 hours).
	MissedLimit int           `json:"missedLimit,omitempty"`
	MissedAge   time.Duration `json:"missedAge,omitempty"`
	Disabled    bool          `json:"disabled,omitempty"`    // what its slots would have fired meanwhile is not missed
	DeleteAfter bool          `json:"deleteAfter,omitempty"` // when no slot is left
	Event       Template      `json:"event"`
}

// Missed says what becomes of slots that were not fired within Lateness of their time: nothing ran, or clocks were set.
type Missed string

// The policies. Empty means MissedOnce for an at(), and MissedSkip for what comes again.
const (
	MissedSkip Missed = "skip" // they do not fire
	MissedOnce Missed = "once" // the newest slot that is due fires for all of them
	MissedAll  Missed = "all"  // each fires, up to a number and an age
)

// Lateness is how late a slot fires without being missed. It is above the time in which another Node takes over a Partition.
const Lateness = 2 * time.Minute

// Bounds of a Schedule.
const (
	maxSpread      = 24 * time.Hour // EventBridge Scheduler: 1,440 minutes
	maxMissed      = 1000
	maxAge         = 31 * 24 * time.Hour
	defaultMissed  = 100
	defaultAge     = 24 * time.Hour
	maxTenant      = 64
	defaultTenant  = "default"
	scheduleSource = "/ebb/schedules/"
)

// Template is the event that a Schedule publishes. Its id is the Schedule's name, a slash and the slot in RFC 3339 (UTC), its time the slot; the
// extensions ebbschedule and ebbslot hold both apart.
type Template struct {
	// Source must differ between Tenants, because events with the same source and id are duplicates. Empty means /ebb/schedules/ and the Tenant.
	Source      string            `json:"source,omitempty"`
	Type        string            `json:"type"`
	Subject     string            `json:"subject,omitempty"`
	ContentType string            `json:"contentType,omitempty"` // of Data
	Data        []byte            `json:"data,omitempty"`
	Extensions  map[string]string `json:"extensions,omitempty"` // all but "partitionkey"
}

// Names of the extensions.
const (
	ExtSchedule = "ebbschedule"
	ExtSlot     = "ebbslot"
)

func (s Schedule) orDefaults() Schedule {
	if s.Tenant == "" {
		s.Tenant = defaultTenant
	}
	if s.MissedLimit == 0 {
		s.MissedLimit = defaultMissed
	}
	if s.MissedAge == 0 {
		s.MissedAge = defaultAge
	}
	return s
}

// event makes the event of a slot.
func (s Schedule) event(slot time.Time) *event.Event {
	t := s.Event
	text := slot.UTC().Format(time.RFC3339)
	e := &event.Event{ID: s.Name + "/" + text, Source: t.Source, Type: t.Type, Subject: t.Subject, Time: slot.UTC(), DataContentType: t.ContentType, Data: t.Data}
	if e.Source == "" {
		e.Source = scheduleSource + s.Tenant
	}
	for k, v := range t.Extensions {
		e.SetExtension(k, v)
	}
	e.SetExtension(ExtSchedule, s.Name)
	e.SetExtension(ExtSlot, text)
	return e
}

// offset is how long after its slot a firing is due: within the window, and the same on every Node.
func (s Schedule) offset(slot time.Time) time.Duration {
	if s.Window <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.Tenant + "\x00" + s.Name))
	_, _ = h.Write(binary.LittleEndian.AppendUint64([]byte{0}, uint64(slot.Unix())))
	// The low bits of this hash follow the last byte written; the finalizer of splitmix64 spreads them.
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return (time.Duration((x ^ x>>31) % uint64(s.Window))).Truncate(time.Millisecond)
}

// sameTimes tells whether two Schedules have the same slots.
func (s Schedule) sameTimes(o Schedule) bool {
	return s.Expression == o.Expression && s.Zone == o.Zone && s.Start.Equal(o.Start)
}

// slots reads the expression, with the anchor for a rate that has no Start.
func (s Schedule) slots(anchor time.Time) (*cron.Schedule, error) {
	c, err := cron.Parse(s.Expression, s.Zone)
	if err != nil {
		return nil, err
	}
	start := s.Start
	if start.IsZero() && c.Rate() > 0 {
		start = anchor
	}
	return c.Within(start, s.End), nil
}

// check refuses what cannot be fired.
func (s Schedule) check(limit int) error {
	switch {
	case s.Name == "" || len(s.Name) > maxName:
		return errs.New(errs.Invalid, "a schedule's name has 1 to %d bytes", maxName)
	case len(s.Tenant) > maxTenant:
		return errs.New(errs.Invalid, "a tenant's name has up to %d bytes", maxTenant)
	case s.Window < 0 || s.Window > maxSpread || s.Window%time.Second != 0:
		return errs.New(errs.Invalid, "schedule %s: a window is of whole seconds, up to %v", s.Name, maxSpread)
	case s.MissedLimit < 0 || s.MissedLimit > maxMissed || s.MissedAge < 0 || s.MissedAge > maxAge:
		return errs.New(errs.Invalid, "schedule %s: up to %d missed slots of up to %v can fire", s.Name, maxMissed, maxAge)
	case s.Missed != "" && s.Missed != MissedSkip && s.Missed != MissedOnce && s.Missed != MissedAll:
		return errs.New(errs.Invalid, "schedule %s: %q is no policy for missed slots: skip, once or all", s.Name, clip(string(s.Missed)))
	case !s.Start.IsZero() && !s.End.IsZero() && s.End.Before(s.Start):
		return errs.New(errs.Invalid, "schedule %s ends before it starts", s.Name)
	}
	c, err := s.slots(time.Unix(0, 0))
	if err != nil {
		wrapped := errs.New(errs.Invalid, "schedule %s: %w", s.Name, err)
		if hint := errs.HintOf(err); hint != "" {
			wrapped = wrapped.WithHint("%s", hint)
		}
		return wrapped
	}
	// An at() that has passed, or an end that has, is what a schedule that has run its course looks like.
	if c.Rate() == 0 && !c.Once() && c.Within(time.Time{}, time.Time{}).Next(time.Unix(0, 0)).IsZero() {
		return errs.New(errs.Invalid, "schedule %s: %s is never", s.Name, s.Expression)
	}
	for k := range s.Event.Extensions {
		switch k {
		case ExtSchedule, ExtSlot:
			return errs.New(errs.Invalid, "schedule %s: the extension %s is set when it fires", s.Name, k)
		case PartitionKey:
			return errs.New(errs.Unsupported, "schedule %s: its events stand beside it in the log, and cannot have the extension %s", s.Name, k)
		}
	}
	if err := s.event(time.Unix(0, 0)).Validate(limit); err != nil {
		return errs.New(errs.CodeOf(err), "schedule %s: %w", s.Name, err)
	}
	return nil
}

// PutSchedule puts a Schedule, and returns when it is durable. One of the same name is replaced, and what of it was fired is not fired again: with the
// same expression, zone and start its slots go on as if nothing had been put; with others, or after it was disabled, only slots after now fire.
func (b *Bus) PutSchedule(ctx context.Context, s Schedule) error {
	s = s.orDefaults()
	if err := s.check(min(b.opt.Limits.Event, maxSpec)); err != nil {
		return err
	}
	if c, err := s.slots(time.Time{}); err != nil || c.Rate() == 0 || !s.Start.IsZero() {
		s.AtOnce = false
	}
	it := jsonItem(kindSchedule, schedulePut{s, ms(b.opt.Now())})
	if it.size() > maxSpec {
		return errs.New(errs.TooLarge, "schedule %s has %d bytes, the limit is %d", s.Name, it.size(), maxSpec)
	}
	_, err := b.partitionOfSchedule(s.Tenant, s.Name).log.append(ctx, []item{it})
	return err
}

// maxSpec bounds what a Schedule takes as JSON: one fits into an answer to another Node, and into a part of a base.
const maxSpec = 400 << 10

// DeleteSchedule deletes a Schedule. What it has fired is delivered. To delete what is not there is no error.
func (b *Bus) DeleteSchedule(ctx context.Context, tenant, name string) error {
	if tenant == "" {
		tenant = defaultTenant
	}
	_, err := b.partitionOfSchedule(tenant, name).log.append(ctx, []item{jsonItem(kindUnschedule, unschedule{Tenant: tenant, Name: name})})
	return err
}

func (b *Bus) partitionOfSchedule(tenant, name string) *partition {
	h := hashOf("schedule", tenant, name)
	return b.parts[binary.LittleEndian.Uint64(h[8:])%uint64(len(b.parts))]
}

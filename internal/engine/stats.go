package engine

import (
	"sync/atomic"

	"github.com/ebb-run/ebb/internal/errs"
)

// UnitStats says what one Revision of one Unit is doing.
type UnitStats struct {
	Stack, ID, Revision, Tenant string

	Retired bool // drains; a newer Revision serves

	Starting, Idle, Busy, Draining int // Instances
	Frozen                         int // of the Idle ones
	Queue                          int // waiting Invocations
	MemoryMB                       int64

	Provisioned, ProvisionedReady, ProvisionedInUse int // Instances to be kept; of these past Init; of these Busy

	Totals Totals // of the Unit, over its Revisions since its Stack is served
}

// Totals count since the Unit was first committed.
type Totals struct {
	Invocations  uint64 // that ended on an Instance, or with the failure of one to start
	Errors       uint64 // of these, that failed
	ColdStarts   uint64 // of these, that waited for Init
	Throttled    uint64 // refused
	Starts       uint64 // Instances
	FailedStarts uint64
	Ahead        uint64 // of the Starts, before an Invocation asked for them
	Spilled      uint64 // Invocations that came when all provisioned Instances were taken
}

type totals struct {
	invocations, errors, cold, throttled, starts, failedStarts, ahead, spilled atomic.Uint64

	habit *habit // of a Unit whose keep-alive is learned
}

// count notes an Invocation that was refused.
func (t *totals) count(err error) {
	if errs.CodeOf(err) == errs.Throttled {
		t.throttled.Add(1)
	}
}

func (t *totals) invoked(r *Report) {
	t.invocations.Add(1)
	if r.Error != nil || r.Err != nil {
		t.errors.Add(1)
	}
	if r.Cold {
		t.cold.Add(1)
	}
}

// Stats lists every Unit that is served or has Instances.
func (e *Engine) Stats() []UnitStats {
	pools := *e.pools.Load()
	out := make([]UnitStats, 0, len(pools))
	for _, p := range pools {
		out = append(out, p.stats())
	}
	return out
}

func (p *pool) stats() UnitStats {
	t := p.totals
	s := UnitStats{
		Stack: p.stack, ID: p.unit.ID, Revision: p.unit.Revision, Tenant: p.unit.Tenant,
		Totals: Totals{
			Invocations: t.invocations.Load(), Errors: t.errors.Load(), ColdStarts: t.cold.Load(),
			Throttled: t.throttled.Load(), Starts: t.starts.Load(), FailedStarts: t.failedStarts.Load(),
			Ahead: t.ahead.Load(), Spilled: t.spilled.Load(),
		},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Retired = p.mu.retired
	s.Queue = p.mu.waiters.len
	s.MemoryMB = int64(p.mu.live) * p.mem
	for i := range p.mu.all {
		switch {
		case i.quitting:
			s.Draining++
		case !i.served && !i.last:
			s.Starting++
		case len(i.runs) > 0:
			s.Busy++
		default:
			s.Idle++
			if i.iced.Load() {
				s.Frozen++
			}
		}
	}
	s.Provisioned = p.mu.floor
	s.ProvisionedReady, s.ProvisionedInUse = min(p.mu.floor, p.mu.serving), min(p.mu.floor, s.Busy)
	return s
}

package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/cron"
	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
)

// provisioned says how many Instances of the Function are kept, as the engine asks it: what is declared, until the first time of its
// schedule has come. Expressions that cannot be read are left out; unkept tells of them.
func provisioned(f *app.Function) func(time.Time) (int, time.Time) {
	type change struct {
		at *cron.Schedule
		n  int
	}
	var changes []change
	for _, s := range f.Schedule {
		if at, err := clockTimes(s); err == nil {
			changes = append(changes, change{at, s.Provisioned})
		}
	}
	base := f.Provisioned
	if len(changes) == 0 {
		return engine.Always(base)
	}
	return func(now time.Time) (n int, until time.Time) {
		n = base
		var newest time.Time
		for _, c := range changes {
			if last := c.at.Last(now); !last.IsZero() && !last.Before(newest) {
				n, newest = c.n, last
			}
			if next := c.at.Next(now); !next.IsZero() && (until.IsZero() || next.Before(until)) {
				until = next
			}
		}
		return n, until
	}
}

// clockTimes reads when a change is due. A rate says no time of day, so nobody could tell which change holds after a restart.
func clockTimes(c app.Scaling) (*cron.Schedule, error) {
	at, err := cron.Parse(c.When, c.TimeZone)
	if err == nil && at.Rate() > 0 {
		return nil, errs.New(errs.Invalid, "%s says no time of day", c.When).WithHint("Write cron() or at().")
	}
	return at, err
}

// readyBytes is the memory that programs may use which are held ready for Instances: a sixteenth of what those have, and beside it.
func (s *Server) readyBytes() int64 {
	memory := int64(s.o.Config.MemoryMB)
	if memory == 0 {
		memory = machineMemoryMB() * 8 / 10
	}
	return memory << 20 / 16
}

// declarable is how many MB Instances may declare together.
func (s *Server) declarable() int64 {
	memory := int64(s.o.Config.MemoryMB)
	if memory == 0 {
		memory = machineMemoryMB() * 8 / 10
	}
	return memory * int64(max(s.o.Config.Overcommit, 1))
}

// unkept lists what of the declared provisioned Instances cannot be kept.
func (s *Server) unkept(a *app.App) (warnings []string) {
	mem := 0
	for i := range a.Functions {
		f := &a.Functions[i]
		most := f.Provisioned
		for _, c := range f.Schedule {
			if _, err := clockTimes(c); err != nil {
				warnings = append(warnings, fmt.Sprintf("the schedule of function %s is not kept: %v", f.Key, err))
				continue
			}
			most = max(most, c.Provisioned)
		}
		mem += most * s.declares(f)
	}
	if budget := int(s.declarable()); budget > 0 && mem > budget {
		warnings = append(warnings, fmt.Sprintf("the provisioned instances need %d MB and this server has %d MB for functions: not all will be started", mem, budget))
	}
	return warnings
}

// provisionedCounts is read whenever metrics are.
func (s *Server) provisionedCounts() []telemetry.ProvisionedCount {
	var out []telemetry.ProvisionedCount
	for _, u := range s.engine.Stats() {
		if u.Provisioned == 0 && u.Totals.Spilled == 0 && u.Totals.Ahead == 0 {
			continue
		}
		tenantName, rest, _ := strings.Cut(u.Stack, "/")
		appName, stage, _ := strings.Cut(rest, "/")
		out = append(out, telemetry.ProvisionedCount{
			Tenant: tenantName, App: appName, Stage: stage,
			Function: s.functionOf(state.StackKey{Tenant: tenantName, App: appName, Stage: stage}, u.ID),
			Asked:    u.Provisioned, Ready: u.ProvisionedReady, InUse: u.ProvisionedInUse, Spilled: u.Totals.Spilled, Ahead: u.Totals.Ahead,
		})
	}
	return out
}

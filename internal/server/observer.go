package server

import (
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/engine"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
)

// observer writes what the engine tells into logs and metrics, in Lambda's words.
type observer struct {
	logs      *telemetry.Logs
	metrics   *telemetry.Metrics
	sink      *sink
	functions sync.Map // Unit ID -> *telemetry.FunctionMetrics, of Functions that were called
}

// function returns the Function's numbers.
func (o *observer) function(u *engine.Unit) *telemetry.FunctionMetrics {
	if f, ok := o.functions.Load(u.ID); ok {
		return f.(*telemetry.FunctionMetrics)
	}
	r := record(u, "", "", "", time.Time{}, "")
	f, _ := o.functions.LoadOrStore(u.ID, o.metrics.Function(r.Tenant, r.App, r.Stage, r.Function))
	return f.(*telemetry.FunctionMetrics)
}

// forget drops the numbers of a Stack's Functions.
func (o *observer) forget(k state.StackKey, functions []api.FunctionInfo) {
	for _, f := range functions {
		o.functions.Delete(stackID(k) + "/" + f.Key)
		o.metrics.RemoveFunction(k.Tenant, k.App, k.Stage, f.Name)
	}
}

// record starts a Record of the Unit, whose ID is "tenant/app/stage/key".
func record(u *engine.Unit, instance, id, kind string, at time.Time, text string) telemetry.Record {
	_, rest, _ := strings.Cut(u.ID, "/")
	appName, rest, _ := strings.Cut(rest, "/")
	stage, _, _ := strings.Cut(rest, "/")
	return telemetry.Record{
		Time: at, Tenant: u.Tenant, App: appName, Stage: stage, Function: u.Functions[0].Name, Instance: instance,
		Invocation: id, Kind: kind, Text: text,
	}
}

// InvocationStarted writes the START line.
func (o *observer) InvocationStarted(u *engine.Unit, instance string, inv *invocation.Invocation) {
	version := inv.Qualifier
	if version == "" {
		version = "$LATEST"
	}
	o.logs.Write(record(u, instance, inv.ID, telemetry.KindStart, time.Now(), telemetry.FormatStart(inv.ID, version)))
}

// Output writes what the function printed.
func (o *observer) Output(u *engine.Unit, instance, id string, at time.Time, line []byte) {
	kind := telemetry.KindLine
	if id == "" {
		kind = telemetry.KindInit
	}
	o.logs.Write(record(u, instance, id, kind, at, string(line)))
}

// InvocationEnded writes what ended it, the END line and the REPORT line, and counts it.
func (o *observer) InvocationEnded(u *engine.Unit, r engine.Report) {
	now := time.Now()
	o.sink.ended(&r)
	id, status, errorType := r.InvocationID, "", ""
	records := make([]telemetry.Record, 0, 3)
	if e := r.Error; e != nil {
		switch e.Cause {
		case invocation.CauseTimeout:
			status = "timeout"
			records = append(records, record(u, r.Instance, id, telemetry.KindPlatform, now, telemetry.FormatTimeout(now, id, r.Duration)))
		case invocation.CauseExit, invocation.CauseMemory, invocation.CauseInit:
			status, errorType = "error", e.Type
			records = append(records, record(u, r.Instance, id, telemetry.KindPlatform, now, "RequestId: "+id+" Error: "+e.Message))
		case invocation.CauseResponse:
			// AWS keeps this to itself; without it nobody finds out why the front answered 502.
			records = append(records, record(u, r.Instance, id, telemetry.KindPlatform, now, "RequestId: "+id+" Error: the answer cannot be used: "+e.Message))
		}
	} else if code := errs.CodeOf(r.Err); code == errs.TooLarge || code == errs.Invalid {
		records = append(records, record(u, r.Instance, id, telemetry.KindPlatform, now, "RequestId: "+id+" Error: "+r.Err.Error()))
	}
	report := telemetry.FormatReport(telemetry.Report{
		ID: id, Duration: r.Duration, Billed: r.Duration, Init: r.Init, Queue: r.Queued, Sandbox: r.Sandbox, HandlerInit: r.Handler, MemoryMB: int(u.Limits.MemoryBytes >> 20),
		MaxMemoryMB: int((r.MemoryPeak + 1<<20 - 1) >> 20), Status: status, ErrorType: errorType,
	})
	o.logs.Write(append(records,
		record(u, r.Instance, id, telemetry.KindEnd, now, telemetry.FormatEnd(id)),
		record(u, r.Instance, id, telemetry.KindReport, now, report))...)
	f := o.function(u)
	f.Invocation(outcome(r), r.Duration)
	f.Queued(r.Queued)
	if r.FirstByte > 0 {
		f.FirstByte(r.FirstByte)
	}
	if r.Cold {
		f.ColdStart(telemetry.ColdStart{Queue: r.Queued, Sandbox: r.Sandbox, Init: r.Init, Handler: r.Handler})
	}
}

// InstanceChanged needs no line: the count of Instances is read when metrics are.
func (o *observer) InstanceChanged(u *engine.Unit, instance string, s engine.State) {
	o.sink.changed(u, instance, s)
}

var outcomes = map[invocation.Cause]telemetry.Outcome{ // never written
	invocation.CauseHandler: telemetry.FailedHandler, invocation.CauseInit: telemetry.FailedInit, invocation.CauseTimeout: telemetry.FailedTimeout,
	invocation.CauseExit: telemetry.FailedExit, invocation.CauseMemory: telemetry.FailedMemory, invocation.CauseResponse: telemetry.FailedResponse,
}

func outcome(r engine.Report) telemetry.Outcome {
	switch {
	case r.Error != nil:
		return outcomes[r.Error.Cause]
	case errs.CodeOf(r.Err) == errs.Canceled:
		return telemetry.Canceled
	case r.Err != nil:
		return telemetry.Faulted
	}
	return telemetry.Succeeded
}

// instanceCounts is read whenever metrics are.
func (s *Server) instanceCounts() []telemetry.InstanceCount {
	var out []telemetry.InstanceCount
	for _, u := range s.engine.Stats() {
		tenantName, rest, _ := strings.Cut(u.Stack, "/")
		appName, stage, _ := strings.Cut(rest, "/")
		name := s.functionOf(state.StackKey{Tenant: tenantName, App: appName, Stage: stage}, u.ID)
		for st, n := range map[string]int{"starting": u.Starting, "idle": u.Idle - u.Frozen, "frozen": u.Frozen, "busy": u.Busy, "draining": u.Draining} {
			if n > 0 {
				out = append(out, telemetry.InstanceCount{Tenant: tenantName, App: appName, Stage: stage, Function: name, State: st, N: n})
			}
		}
	}
	return out
}

// functionOf is the full name of the Function that a Unit holds.
func (s *Server) functionOf(k state.StackKey, unit string) string {
	key := strings.TrimPrefix(unit, stackID(k)+"/")
	if now := s.stacks.get(k); now != nil {
		for _, f := range now.functions {
			if f.Key == key {
				return f.Name
			}
		}
	}
	return key
}

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/audit"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// The audit logs: each has room of its own, so that nobody can push out what operators did by being refused, or by what functions may change.
const (
	auditChanges   = "changes"   // by people and their tools
	auditFunctions = "functions" // by functions
	auditDenials   = "denials"
)

func auditNames() []string { return []string{auditChanges, auditFunctions, auditDenials} }

// auditLog is one of them.
type auditLog struct {
	*audit.Log
	kept    *state.AuditLog
	written atomic.Uint64
}

// append writes a Record, and counts it.
func (l *auditLog) append(ctx context.Context, r audit.Record) (uint64, error) {
	seq, err := l.Append(ctx, r)
	if err == nil {
		l.written.Add(1)
	}
	return seq, err
}

type audits struct {
	logs    map[string]*auditLog
	denials *audit.Denials
}

// openAudit opens the audit logs, and notes the start.
func (s *Server) openAudit(ctx context.Context) error {
	s.audit.logs = map[string]*auditLog{}
	for _, name := range auditNames() {
		limits := state.AuditLimits{Records: int64(s.o.Config.AuditMax), Age: s.o.Config.AuditAge, Replicas: s.replicas()}
		if name != auditChanges {
			limits.Records /= 4
		}
		kept, err := state.OpenAudit(ctx, s.nats.JetStream(), name, limits)
		if err != nil {
			return err
		}
		s.audit.logs[name] = &auditLog{Log: audit.New(kept, name, s.key), kept: kept}
	}
	s.audit.denials = audit.NewDenials(s.audit.logs[auditDenials].Log, func(err error) {
		s.o.Log.Error("a denial is not recorded yet; it is tried again", "error", err)
	})
	c := s.o.Config
	_, err := s.audit.logs[auditChanges].append(ctx, audit.Record{Who: "local", What: "server:start", On: "ebb " + s.o.Version, Outcome: audit.Done,
		Text: fmt.Sprintf("listen %s, api-listen %s, iam %s, egress %s, isolation %s", c.Listen, c.APIListen, c.IAM, c.Egress, c.Isolation)})
	return err
}

func (s *Server) runAudit(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { s.audit.denials.Run(ctx) })
}

// auditCounts are how many Records this Node has written.
func (s *Server) auditCounts() map[string]uint64 {
	out := map[string]uint64{}
	for name, l := range s.audit.logs {
		out[name] = l.written.Load()
	}
	out[auditDenials] = s.audit.denials.Written()
	return out
}

// begin records that a change is about to be made. The change may go on once it has returned nil; end records what became of it, and its error is for
// who asked: the change may have been made.
func (s *Server) begin(ctx context.Context, log string, r audit.Record) (end func(error) error, err error) {
	l := s.audit.logs[log]
	ctx = context.WithoutCancel(ctx) // what is done is recorded, whoever has left
	r.Outcome = audit.Begun
	seq, err := l.append(ctx, r)
	if err != nil {
		return nil, unrecorded(err, "nothing was changed: it could not be recorded")
	}
	return func(failed error) error {
		r.Time, r.Of, r.Outcome = time.Time{}, seq, outcomeOf(failed)
		if _, err := l.append(ctx, r); err != nil {
			return unrecorded(err, "it may have been changed, but its end could not be recorded")
		}
		return nil
	}, nil
}

func unrecorded(err error, what string) error {
	return errs.New(errs.Unavailable, "%s: %w", what, err).WithHint("%s", or(errs.HintOf(err), "The server's disk or store may be full; try again once that is mended."))
}

// outcomeOf names an error by its code alone: its text may hold what is nobody's business.
func outcomeOf(err error) string {
	var e *wire.Error
	switch {
	case err == nil:
		return audit.Done
	case errors.As(err, &e):
		return audit.Failed(e.Code)
	case errs.CodeOf(err) == errs.Forbidden:
		return audit.Denied
	}
	return audit.Failed(string(errs.CodeOf(err)))
}

// BeginChange records what a caller of the control API is about to do.
func (s *Server) BeginChange(ctx context.Context, r audit.Record) (func(error) error, error) {
	return s.begin(ctx, auditChanges, r)
}

// Denied notes that a caller of the control API was refused.
func (s *Server) Denied(r audit.Record) { s.audit.denials.Deny(r) }

// host is an address without its port: one caller is one.
func host(addr string) string {
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

// recordOf says who asks for what by AWS's APIs.
func recordOf(c *wire.Call, on string) audit.Record {
	r := audit.Record{Who: "nobody", App: c.Caller.App, On: on}
	if c.Service != nil {
		r.What = c.Service.Name + ":" + or(c.Operation, "unknown")
	}
	switch {
	case c.Caller.Function != "":
		r.Who = "function " + c.Caller.Function // from its sandbox
	case c.Caller.KeyID != "":
		_, name, _ := strings.Cut(c.Caller.ARN, ":user/")
		r.Who, r.From = "key "+c.Caller.KeyID+" ("+name+")", host(c.Request.RemoteAddr)
	default:
		r.From = host(c.Request.RemoteAddr)
	}
	return r
}

// change records the control changes among what AWS's clients ask for.
func (w *wires) change(ctx context.Context, c *wire.Call, on string) (func(error) error, error) {
	if !isControl(c.Service.Name, c.Operation) {
		return nil, nil
	}
	log := auditChanges
	if c.Caller.Function != "" {
		log = auditFunctions
	}
	return w.s.begin(ctx, log, recordOf(c, on))
}

// stranger notes a request whose signature does not hold.
func (w *wires) stranger(c *wire.Call, err error) {
	var f *sign.Fault
	if errors.As(err, &f) && (f.Kind == sign.TooLarge || f.Kind == sign.Cut) {
		return // it says nothing of who sends it
	}
	r := recordOf(c, "")
	r.What, r.Text = "aws:authenticate", err.Error()
	w.s.audit.denials.Deny(r)
}

// denied notes what a function or a key may not.
func (w *wires) denied(c *wire.Call, e *wire.Error) {
	r := recordOf(c, c.About())
	r.Text = e.Message
	w.s.audit.denials.Deny(r)
}

// egressRefused notes a connection that a guest may not make.
func (s *Server) egressRefused(d sandbox.Destination) {
	r := audit.Record{Who: d.Owner, What: "egress:connect", On: net.JoinHostPort(d.Host, fmt.Sprint(d.Port))}
	if part := strings.SplitN(d.Owner, "/", 4); len(part) == 4 { // a Unit's ID
		r.Who, r.App = "function "+strings.Join(part[1:], "/"), part[1]
	}
	s.audit.denials.Deny(r)
}

// AuditRecords tells what is recorded, by time, and with follow what comes.
func (s *Server) AuditRecords(ctx context.Context, q api.AuditQuery, begun func(), each func(api.AuditRecord) error) error {
	if q.Follow {
		var stop context.CancelFunc
		ctx, stop = context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(s.following, stop)()
	}
	names := auditNames()
	if q.Denials {
		names = []string{auditDenials}
	}
	begun()
	wanted := func(r api.AuditRecord) error {
		if q.App != "" && r.App != q.App {
			return nil
		}
		return each(r)
	}
	last, err := s.auditMerged(ctx, names, q.Since, wanted)
	if err != nil || !q.Follow {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	failed := make([]error, len(names))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for i, name := range names {
		wg.Go(func() {
			defer stop()
			failed[i] = s.audit.logs[name].Read(ctx, last[name]+1, q.Since, true, func(r audit.Record) error {
				mu.Lock() // one record at a time; who is told is the caller, whose connection bounds it
				defer mu.Unlock()
				return wanted(api.AuditRecord{Log: name, Record: r})
			})
		})
	}
	wg.Wait()
	if s.following.Err() != nil || ctx.Err() != nil && errors.Join(failed...) != nil {
		return nil
	}
	return errors.Join(failed...)
}

// auditMerged reads some logs up to now in the order of time, and tells the last number of each.
func (s *Server) auditMerged(ctx context.Context, names []string, since time.Time, each func(api.AuditRecord) error) (map[string]uint64, error) {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	from := make([]chan audit.Record, len(names))
	failed := make([]error, len(names))
	for i, name := range names {
		from[i] = make(chan audit.Record, 64)
		wg.Go(func() {
			defer close(from[i])
			failed[i] = s.audit.logs[name].Read(ctx, 1, since, false, func(r audit.Record) error {
				select {
				case from[i] <- r:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
	}
	last := map[string]uint64{}
	next := make([]*audit.Record, len(names))
	for {
		first := -1
		for i := range from {
			if next[i] == nil {
				if r, ok := <-from[i]; ok {
					next[i] = &r
				}
			}
			if next[i] != nil && (first < 0 || next[i].Time.Before(next[first].Time)) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		r := *next[first]
		next[first], last[names[first]] = nil, r.Seq
		if err := each(api.AuditRecord{Log: names[first], Record: r}); err != nil {
			return nil, err
		}
	}
	return last, errors.Join(failed...)
}

// VerifyAudit checks the chains of all logs. heads are those that were noted before, by log.
func (s *Server) VerifyAudit(ctx context.Context, heads map[string]audit.Head) (map[string]*audit.Report, error) {
	out := map[string]*audit.Report{}
	for name := range heads {
		if s.audit.logs[name] == nil {
			return nil, errs.New(errs.Invalid, "there is no audit log %q", name).WithHint("changes, functions and denials are there.")
		}
	}
	for _, name := range auditNames() {
		l := s.audit.logs[name]
		dropped, err := l.kept.Dropped(ctx)
		if err != nil {
			return nil, err
		}
		if out[name], err = l.Verify(ctx, heads[name], dropped); err != nil {
			return nil, err
		}
	}
	return out, nil
}

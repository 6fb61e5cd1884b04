package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/lambda"
	"github.com/ebb-run/ebb/internal/wire/logs"
	"github.com/ebb-run/ebb/internal/wire/secrets"
	"github.com/ebb-run/ebb/internal/wire/ssm"
)

// calls is what functions ask of each other, and tools of what is deployed, through AWS's APIs.
type calls struct {
	s  *Server
	mu struct {
		sync.Mutex
		read map[state.StackKey]*state.Deployment // those that are current, as far as they were asked for
	}
}

// callServices lists the services that are answered by what is deployed and kept.
func (s *Server) callServices() []*wire.Service {
	c := &calls{s: s}
	return []*wire.Service{
		lambda.New(c),
		ssm.New(sealedRecords{s.state, parameterKind}, s.referredSecret),
		secrets.New(sealedRecords{s.state, secretKind}),
		logs.New(logs.Options{Groups: c.logGroups, Store: sealedRecords{s.state, logGroupKind}, Output: s.logs, Events: s.logEvents}),
	}
}

// deployment gives what a Stack serves.
func (c *calls) deployment(ctx context.Context, k state.StackKey, id string) (*state.Deployment, error) {
	c.mu.Lock()
	d := c.mu.read[k]
	c.mu.Unlock()
	if d != nil && d.ID == id {
		return d, nil
	}
	d, err := c.s.state.Deployment(ctx, k, id)
	if err != nil {
		return nil, err
	}
	now := c.s.stacks.all()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.read == nil {
		c.mu.read = map[state.StackKey]*state.Deployment{}
	}
	c.mu.read[k] = d
	for k := range c.mu.read {
		if now[k] == nil {
			delete(c.mu.read, k)
		}
	}
	return d, nil
}

// each calls f for the Deployments that are served; empty fields select all.
func (c *calls) each(ctx context.Context, appName, stage string, f func(d *state.Deployment, now *serving) error) error {
	for k, now := range c.s.stacks.all() {
		if appName != "" && k.App != appName || stage != "" && k.Stage != stage || now.deployment == "" {
			continue
		}
		d, err := c.deployment(ctx, k, now.deployment)
		switch {
		case errs.CodeOf(err) == errs.NotFound: // removed meanwhile
		case err != nil:
			return err
		default:
			if err := f(d, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// Function gives the Function with the full name, or with a key that no other has.
func (c *calls) Function(_ context.Context, name string) (lambda.Function, error) {
	full, err := c.s.find(name)
	if err != nil {
		return lambda.Function{}, err
	}
	for k, now := range c.s.stacks.all() {
		for _, f := range now.functions {
			if f.Name == full {
				return lambda.Function{App: k.App, Stage: k.Stage, Name: full}, nil
			}
		}
	}
	return lambda.Function{}, errs.New(errs.NotFound, "no function %s is deployed", name)
}

// Describe lists the Functions of Stacks.
func (c *calls) Describe(ctx context.Context, appName, stage string) (list []lambda.Description, err error) {
	err = c.each(ctx, appName, stage, func(d *state.Deployment, now *serving) error {
		for i := range d.App.Functions {
			list = append(list, c.describe(d, now, &d.App.Functions[i]))
		}
		return nil
	})
	slices.SortFunc(list, func(a, b lambda.Description) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

func (c *calls) describe(d *state.Deployment, now *serving, f *app.Function) lambda.Description {
	r := c.s.resolver(d)
	r.secret = func(name string) (string, error) { return "{{resolve:" + name + "}}", nil } // who may see a Function may not see every secret
	text := func(v app.Value) string {                                                      // what cannot be resolved was told at the deploy
		s, _ := v.Resolve(r.values())
		return s
	}
	out := lambda.Description{
		Function: lambda.Function{App: d.Stack.App, Stage: d.Stack.Stage, Name: f.Name, Region: region(d.App)},
		Text:     f.Description, Runtime: f.Runtime, Handler: f.Handler, Arch: f.Arch, MemoryMB: f.MemoryMB, TimeoutSec: f.TimeoutSec, TmpMB: f.TmpMB,
		Role: arn.New("iam", "", r.account, "role/"+d.Stack.App+"-"+d.Stack.Stage+"-role").String(),
		Tags: f.Tags, Reserved: f.Reserved, Provisioned: f.Provisioned, Changed: now.changed, Env: map[string]string{},
	}
	env, _ := r.env(f)
	for _, one := range env {
		k, v, _ := strings.Cut(one, "=")
		out.Env[k] = v
	}
	if role := roleOf(d.App, f); role != nil {
		if full, err := r.attr(role.ID, "Arn"); err == nil {
			out.Role = full
		}
		if full := text(role.ARN); full != "" {
			out.Role = full
		}
	}
	for _, l := range f.Layers {
		if full := text(l); strings.HasPrefix(full, "arn:") {
			out.Layers = append(out.Layers, full)
		}
	}
	if i := slices.IndexFunc(d.Units, func(u state.Unit) bool { return u.Key == f.Key }); i >= 0 {
		out.Revision, out.Code = d.Units[i].Revision, d.Units[i].Code
		if m, err := c.s.artifacts.Manifest(out.Code); err == nil {
			for _, e := range m.Entries {
				out.CodeSize += e.Size
			}
		}
	}
	if f.Async != nil {
		out.MaxRetries, out.MaxAgeSec = f.Async.MaxRetries, f.Async.MaxAgeSec
		out.OnSuccess, out.OnFailure, out.DeadLetter = text(f.Async.OnSuccess), text(f.Async.OnFailure), text(f.Async.DeadLetter)
	}
	if f.URL != nil {
		out.URL, out.URLAuth, out.URLStream = c.s.stackURL(d.Stack)+"/_url/"+f.Key+"/", f.URL.Auth, f.URL.Stream
	}
	out.Aliases = aliases(r, f)
	return out
}

// aliases are the names that an App declares for a Function beside its own.
func aliases(r resolver, f *app.Function) (names []string) {
	for i := range r.app.Resources {
		res := &r.app.Resources[i]
		if res.Type != "AWS::Lambda::Alias" {
			continue
		}
		var p struct{ Name, FunctionName string }
		for k, to := range map[string]*string{"Name": &p.Name, "FunctionName": &p.FunctionName} {
			if v, err := r.plain(res.Properties[k]); err == nil {
				*to, _ = v.(string)
			}
		}
		if p.Name == "" && !res.Name.IsZero() {
			p.Name, _ = res.Name.Resolve(r.values())
		}
		if name, _, err := arn.FunctionName(p.FunctionName); err == nil && name == f.Name && p.Name != "" {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// roleOf is the Role that a Function runs as, where its App declares one.
func roleOf(a *app.App, f *app.Function) *app.Role {
	for i := range a.Roles {
		if r := &a.Roles[i]; r.ID == f.Role || f.Role == "" && len(a.Roles) == 1 {
			return r
		}
	}
	return nil
}

// May says whether a Function's Role names another App's Function: one that allows all Functions names none of them.
func (c *calls) May(ctx context.Context, who *wire.Caller, action string, f lambda.Function) bool {
	return c.granted(ctx, who, action, func(resource string) bool {
		name, _, err := arn.FunctionName(strings.TrimSuffix(resource, ":*"))
		if resource == "*" || err != nil {
			return false
		}
		return strings.Trim(name, "*?-_") != "" && glob(name, f.Name)
	})
}

// granted says whether the Role of the Function that calls allows an action on a resource that names takes.
func (c *calls) granted(ctx context.Context, who *wire.Caller, action string, names func(resource string) bool) bool {
	k := state.StackKey{Tenant: who.Tenant, App: who.App, Stage: who.Stage}
	now := c.s.stacks.get(k)
	if now == nil {
		return false
	}
	d, err := c.deployment(ctx, k, now.deployment)
	if err != nil {
		return false
	}
	f := d.App.Function(who.Function)
	if f == nil {
		return false
	}
	role := roleOf(d.App, f)
	if role == nil {
		return false
	}
	r, allowed := c.s.resolver(d), false
	for _, st := range role.Statements {
		actions, resources := r.texts(st["Action"]), r.texts(st["Resource"])
		hits := slices.ContainsFunc(actions, func(a string) bool { return glob(strings.ToLower(a), strings.ToLower(action)) })
		if !hits {
			continue
		}
		if st["Effect"] == "Deny" && slices.ContainsFunc(resources, func(one string) bool { return one == "*" || names(one) }) {
			return false
		}
		allowed = allowed || st["Effect"] != "Deny" && slices.ContainsFunc(resources, names)
	}
	return allowed
}

// texts resolves a text or a list of them; what cannot be resolved is left out.
func (r resolver) texts(v any) (out []string) {
	if list, ok := v.([]any); ok {
		for _, one := range list {
			out = append(out, r.texts(one)...)
		}
		return out
	}
	if plain, err := r.plain(v); err == nil {
		if s, ok := plain.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// glob matches * and ?, in a time that is bounded by the product of the lengths.
func glob(pattern, s string) bool {
	p, at, star, mark := 0, 0, -1, 0
	for at < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, at
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[at]):
			p, at = p+1, at+1
		case star >= 0:
			mark++
			p, at = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// Mappings lists event source mappings, sorted by their ID.
func (c *calls) Mappings(ctx context.Context, appName, stage string) (list []lambda.Mapping, err error) {
	err = c.each(ctx, appName, stage, func(d *state.Deployment, now *serving) error {
		r := c.s.resolver(d)
		c.s.eachMapping(d, func(t *app.Trigger, name string) {
			f := d.App.Function(t.Function)
			source, err := t.Source.Resolve(r.values())
			if f == nil || err != nil {
				return
			}
			settings, _ := r.plain(t.Settings)
			m := lambda.Mapping{ID: uuidFrom(name), Function: f.Name, Source: source, Enabled: t.Enabled, Changed: now.changed}
			m.Settings, _ = settings.(map[string]any)
			list = append(list, m)
		})
		return nil
	})
	slices.SortFunc(list, func(a, b lambda.Mapping) int { return strings.Compare(a.ID, b.ID) })
	return list, err
}

// uuidFrom is a UUID, version 8, that is always the same for a text.
func uuidFrom(text string) string {
	b := sha256.Sum256([]byte(text))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Invoke runs an Invocation whose caller waits.
func (c *calls) Invoke(ctx context.Context, inv *invocation.Invocation, sink invocation.Sink) error {
	return invoker{c.s}.Invoke(ctx, inv, sink)
}

// InvokeAsync keeps an Invocation.
func (c *calls) InvokeAsync(ctx context.Context, inv *invocation.Invocation, cause wire.Cause) error {
	if err := c.s.takesAsync(ctx, inv.Function); err != nil {
		return err
	}
	e := asyncEvent(inv)
	if cause.Invocation != "" {
		e.SetExtension(bus.Parent, cause.Invocation)
	}
	if cause.Publisher != "" {
		e.SetExtension(bus.Publisher, cause.Publisher)
	}
	if inv.Hops > 0 {
		e.SetExtension(bus.Hops, int32(min(inv.Hops, 1<<30)))
	}
	_, err := c.s.events.bus.Publish(ctx, e)
	return err
}

// Tail gives the lines of an Invocation.
func (c *calls) Tail(ctx context.Context, f lambda.Function, id string, since time.Time) (lines []string, err error) {
	err = c.s.logs.Read(ctx, telemetry.Query{Function: f.Name, Invocation: id, Since: since.Add(-time.Second)}, func(r telemetry.Record) error {
		lines = append(lines, r.Text)
		return nil
	})
	return lines, err
}

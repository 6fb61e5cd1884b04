package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/policy"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/telemetry"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// role is what a Function's role lets it do.
type role struct {
	id      string
	name    string // in its ARN
	none    bool   // the App declares none for the Function: it is asked for nothing
	policy  policy.Policy
	unknown string // why it is not known whole: what it does not allow may be allowed after all

	mu struct {
		sync.Mutex
		shown map[string]bool // actions and resources that were said to be missing
	}
}

// maxShown bounds what is said of one Function to be missing.
const maxShown = 100

// roles reads the roles of a Deployment's Functions.
func (r resolver) roles() map[string]*role {
	byID := map[string]*role{}
	for i := range r.app.Roles {
		one := readRole(&r.app.Roles[i], r.values())
		if one.name = r.app.Roles[i].Name; one.name == "" {
			one.name = r.app.Name + "-" + r.app.Stage + "-" + one.id
		}
		byID[one.id] = one
	}
	out := map[string]*role{}
	for _, f := range r.app.Functions {
		out[f.Name] = &role{none: true}
		if r := byID[f.Role]; r != nil {
			out[f.Name] = &role{id: r.id, name: r.name, policy: r.policy, unknown: r.unknown}
		}
	}
	return out
}

// readRole resolves and reads the statements of a role.
func readRole(r *app.Role, values app.Resolver) *role {
	out := &role{id: r.ID}
	if !r.ARN.IsZero() {
		out.unknown = "it exists outside of the app"
	}
	var left []string
	for _, m := range r.Managed {
		arn, err := m.Resolve(values)
		p, ok := policy.Managed(arn)
		if err != nil || !ok {
			left = append(left, "managed policy "+m.String())
		}
		out.policy = policy.Join(out.policy, p)
	}
	for i, st := range r.Statements {
		plain, err := resolved(st, values)
		var p policy.Policy
		if err == nil {
			m, _ := plain.(map[string]any)
			p, err = policy.Parse([]map[string]any{m})
		}
		if err != nil {
			left = append(left, fmt.Sprintf("statement %d: %v", i+1, err))
		}
		out.policy = policy.Join(out.policy, p)
	}
	if len(left) > 0 {
		out.unknown = strings.Join(left, "; ")
	}
	return out
}

// resolved puts texts in the place of Values.
func resolved(x any, values app.Resolver) (any, error) {
	switch x := x.(type) {
	case app.Value:
		return x.Resolve(values)
	case map[string]any:
		if v, ok := app.AsValue(x); ok { // an App that came over the API
			return v.Resolve(values)
		}
		out := make(map[string]any, len(x))
		for k, v := range x {
			r, err := resolved(v, values)
			if err != nil {
				return nil, err
			}
			out[k] = r
		}
		return out, nil
	case []any:
		out := make([]any, len(x))
		for i, v := range x {
			r, err := resolved(v, values)
			if err != nil {
				return nil, err
			}
			out[i] = r
		}
		return out, nil
	}
	return x, nil
}

// authorize asks whose a thing is, and a Function's role. What a statement denies is refused, whatever is set; what is another Stack's unless that is
// declared; what no statement allows is refused or shown.
func (w *wires) authorize(ctx context.Context, c *wire.Call, about []wire.Subject) error {
	who := c.Caller
	if who.Function == "" {
		return nil // what keys may is said by their own role
	}
	now := w.s.stacks.get(state.StackKey{Tenant: who.Tenant, App: who.App, Stage: who.Stage})
	if now == nil || now.roles[who.Function] == nil {
		return accessDenied(c, about[0], "because the function is not deployed any more")
	}
	r := now.roles[who.Function]
	for _, a := range about {
		request := policy.Request{Action: a.Action, Resource: a.Resource, Context: iamContext(c, a)}
		v, err := w.crossed(ctx, c, r, a, request)
		if err != nil {
			return err
		}
		if a.Reach || r.none {
			continue
		}
		d := r.policy.Decide(request)
		if a.Also != "" && d.Effect != policy.Deny {
			request.Resource = a.Also
			if also := r.policy.Decide(request); also.Effect != policy.Silent {
				d = also
			}
		}
		switch {
		case d.Effect == policy.Deny, a.Vague && r.policy.MayDeny(a.Action):
			return accessDenied(c, a, "with an explicit deny in an identity-based policy")
		case d.Effect == policy.Allow, v.effect == policy.Allow, w.s.o.Config.IAM == config.IAMOff:
		case w.s.o.Config.IAM == config.IAMEnforce:
			why := "because no identity-based policy allows the " + a.Action + " action"
			if r.unknown != "" {
				why += " (of the role, ebb does not know " + r.unknown + ")"
			}
			return accessDenied(c, a, why)
		case r.unknown == "":
			w.missing(ctx, c, r, a)
		}
	}
	return nil
}

// iamContext are the condition keys that a request has.
func iamContext(c *wire.Call, a wire.Subject) map[string][]string {
	all := map[string][]string{
		"aws:currenttime":      {c.Now.UTC().Format(time.RFC3339)},
		"aws:epochtime":        {fmt.Sprint(c.Now.Unix())},
		"aws:securetransport":  {fmt.Sprint(c.Request.TLS != nil)},
		"aws:principaltype":    {"AssumedRole"},
		"aws:principalarn":     {c.Caller.ARN},
		"aws:principalaccount": {c.Caller.Account},
		"aws:userid":           {c.Caller.UserID},
		"aws:requestedregion":  {c.Region},
		"aws:useragent":        {c.Request.UserAgent()},
	}
	for k, v := range a.Context {
		all[k] = v
	}
	return all
}

// accessDenied is AWS's refusal.
func accessDenied(c *wire.Call, a wire.Subject, why string) error {
	code := "AccessDeniedException"
	if c.Service != nil && (c.Service.Name == "s3" || c.Service.Name == "sqs" || c.Service.Name == "sns" || c.Service.Name == "sts") {
		code = "AccessDenied"
	}
	on := ""
	if a.Resource != "*" {
		on = " on resource: " + a.Resource
	}
	status := http.StatusForbidden
	if c.Protocol == shape.JSON && code == "AccessDeniedException" { // the common errors of services with that protocol: "HTTP Status Code: 400"
		status = http.StatusBadRequest
	}
	return wire.Errorf(code, "User: %s is not authorized to perform: %s%s %s", c.Caller.ARN, a.Action, on, why).With(status)
}

// missing shows once in a function's log what its role would need on AWS.
func (w *wires) missing(ctx context.Context, c *wire.Call, r *role, a wire.Subject) {
	w.once(ctx, c, r, a.Action+" "+a.Resource, fmt.Sprintf("warning: on AWS this would be refused: the role %s does not allow %s on %s; it takes the statement %s",
		r.id, a.Action, a.Resource, policy.Missing(policy.Request{Action: a.Action, Resource: a.Resource})))
}

// once writes into the log of the function that calls, unless it was said before.
func (w *wires) once(ctx context.Context, c *wire.Call, r *role, key, text string) {
	r.mu.Lock()
	if r.mu.shown == nil {
		r.mu.shown = map[string]bool{}
	}
	told := r.mu.shown[key] || len(r.mu.shown) >= maxShown
	r.mu.shown[key] = true
	r.mu.Unlock()
	if !told {
		w.tell(ctx, c.Caller, text)
	}
}

// tell writes into the log of the function that calls.
func (w *wires) tell(ctx context.Context, who wire.Caller, text string) {
	r := telemetry.Record{Time: time.Now(), Tenant: who.Tenant, App: who.App, Stage: who.Stage, Function: who.Function, Kind: telemetry.KindLine, Text: "ebb: " + text}
	if o := originOf(ctx); o != nil {
		r.Invocation, r.Instance = o.current().id, o.instance
	}
	w.s.logs.Write(r)
}

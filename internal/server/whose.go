package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/policy"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	eventbridge "github.com/ebb-run/ebb/internal/wire/events"
	"github.com/ebb-run/ebb/internal/wire/scheduler"
)

// thing is what may belong to a Stack, as ARNs name it: "sqs" and "jobs", "dynamodb" and "table/notes".
type thing struct{ service, name string }

// arn names it for policies, which region and account count for nothing in.
func (t thing) arn() string { return "arn:aws:" + t.service + ":::" + t.name }

// thingIn gives what an ARN is about: of an object its bucket, of an index its table. false: it is nothing that belongs to somebody.
func thingIn(resource string) (thing, bool) {
	rest, ok := strings.CutPrefix(resource, "arn:")
	if !ok {
		return thing{}, false
	}
	var service string
	for i := range 4 { // partition, service, region and account
		var part string
		if part, rest, ok = strings.Cut(rest, ":"); !ok {
			return thing{}, false
		}
		if i == 1 {
			service = part
		}
	}
	upTo := func(end byte) string {
		if i := strings.IndexByte(rest, end); i >= 0 {
			return rest[:i]
		}
		return rest
	}
	var name string
	switch service {
	case "sqs":
		name = rest[strings.LastIndexByte(rest, ':')+1:]
	case "sns":
		name = upTo(':')
	case "s3":
		name = upTo('/')
	case "dynamodb", "kinesis":
		kind, _, _ := strings.Cut(rest, "/")
		if kind != "table" && kind != "stream" || len(rest) == len(kind) {
			return thing{}, false
		}
		name, _, _ = strings.Cut(rest[len(kind)+1:], "/")
		name = kind + "/" + name
	case "lambda":
		full, _, err := arn.FunctionName(resource)
		if err != nil {
			return thing{}, false
		}
		name = "function:" + full
	case "events", "scheduler":
		name = rest
	}
	return thing{service, name}, name != ""
}

// whose remembers what belongs to whom.
type whose struct {
	round atomic.Uint64 // of what is remembered: things made or deleted since begin another
	mu    struct {
		sync.RWMutex
		known map[thing]owned
	}
}

type owned struct {
	by    string // the Stack, or empty
	round uint64
	at    time.Time
}

const (
	// ownedFor is how long what was read is good for: what other Nodes make is seen by then, as settings of queues are.
	ownedFor = time.Second
	maxOwned = 10_000
)

// changed makes the next question about anything read it anew.
func (w *whose) changed() { w.round.Add(1) }

// ownerOf gives the Stack that something belongs to: that which declares it, or whose function has made it. It is empty for what nobody's App has made.
func (s *Server) ownerOf(ctx context.Context, t thing) (string, error) {
	if t.service == "lambda" {
		return s.stackOf(strings.TrimPrefix(t.name, "function:")), nil
	}
	w := &s.whose
	round := w.round.Load()
	w.mu.RLock()
	o, ok := w.mu.known[t]
	w.mu.RUnlock()
	if ok && o.round == round && time.Since(o.at) < ownedFor {
		return o.by, nil
	}
	now := time.Now()
	by, err := s.readOwner(ctx, t)
	if errs.CodeOf(err) == errs.NotFound { // not remembered: it may be made at any time
		return by, nil
	}
	if err != nil {
		return "", fmt.Errorf("find out whose %s is: %w", t.arn(), err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.known == nil || len(w.mu.known) >= maxOwned {
		w.mu.known = map[thing]owned{}
	}
	w.mu.known[t] = owned{by, round, now}
	return by, nil
}

// stackOf is the Stack that serves a Function with the full name, or a key that no other has.
func (s *Server) stackOf(function string) string {
	if full, err := s.find(function); err == nil {
		function = full
	}
	for k, v := range s.stacks.all() {
		if slices.ContainsFunc(v.functions, func(f api.FunctionInfo) bool { return f.Name == function }) {
			return stackID(k)
		}
	}
	return ""
}

// readOwner asks what keeps a thing. The error is NotFound where there is none.
func (s *Server) readOwner(ctx context.Context, t thing) (string, error) {
	kind, name, _ := strings.Cut(t.name, "/")
	switch t.service {
	case "dynamodb":
		tb, err := s.tableStore.Table(ctx, tenant, name)
		return or(tb.Owner, tb.Extra[wire.Made]), err
	case "s3":
		b, err := s.objects.Bucket(ctx, bucketID(t.name))
		if errors.Is(err, store.ErrNoBucket) {
			err = errs.New(errs.NotFound, "%w", err)
		}
		return or(string(b.Documents[ownerDocument]), string(b.Documents[wire.Made])), err
	case "sqs":
		q, err := s.events.bus.QueueStatus(ctx, tenant+"/"+t.name)
		return madeBy(q.Tags), err
	case "sns":
		one, err := s.events.bus.Topic(ctx, tenant+"/"+t.name)
		return madeBy(one.Tags), err
	case "kinesis":
		if table, ok := strings.CutPrefix(name, bus.TableStream); ok {
			return s.ownerOf(ctx, thing{"dynamodb", "table/" + table})
		}
		st, err := s.events.bus.StreamStatus(ctx, tenant+"/"+name)
		return madeBy(st.Tags), err
	case "events":
		return s.readOwnerOnBus(ctx, kind, name)
	case "scheduler":
		if kind == "schedule-group" {
			return s.noted(ctx, scheduler.KindGroup, name)
		}
		return s.noted(ctx, scheduler.KindSchedule, strings.Replace(name, "/", "\n", 1))
	}
	return "", nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// madeBy is the Stack in tags.
func madeBy(tags map[string]string) string { return or(tags[ownerTag], tags[wire.Made]) }

// readOwnerOnBus is readOwner for event buses, their rules and archives.
func (s *Server) readOwnerOnBus(ctx context.Context, kind, name string) (string, error) {
	switch kind {
	case "event-bus":
		if name == defaultBus {
			return "", nil
		}
		for k, v := range s.stacks.all() {
			if slices.Contains(v.buses, name) {
				return stackID(k), nil
			}
		}
		return s.noted(ctx, eventbridge.KindBus, name)
	case "rule":
		on := defaultBus
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			on, name = name[:i], name[i+1:]
		}
		note := (&eventbridge.Rule{Bus: on, Name: name}).NoteName()
		for k, v := range s.stacks.all() {
			if slices.Contains(v.rules, note) {
				return stackID(k), nil
			}
		}
		return s.noted(ctx, eventbridge.KindRule, note)
	case "archive":
		return s.noted(ctx, eventbridge.KindArchive, name)
	}
	return "", nil
}

// noted is the Stack that a note says has made it.
func (s *Server) noted(ctx context.Context, kind, name string) (string, error) {
	n, err := s.state.Note(ctx, tenant, kind, name)
	if err != nil {
		return "", err
	}
	var of struct{ Made string }
	return of.Made, json.Unmarshal(n.Data, &of)
}

// asking is who wants to reach something.
type asking struct {
	stack      string // ID
	role       *role  // nil: it has none
	principals []string
}

func (s *Server) asking(k state.StackKey, r *role, also ...string) asking {
	a := asking{stackID(k), r, append(also, "arn:aws:iam:::root", "arn:aws:iam:::role/"+k.App+"-"+k.Stage+"-role")}
	if r != nil && r.name != "" {
		a.principals = append(a.principals, "arn:aws:iam:::role/"+r.name)
	}
	return a
}

// verdict says how somebody else's thing is reached.
type verdict struct {
	owner   string // another Stack, or empty: nothing more is to be said
	effect  policy.Effect
	allowed bool // its owner's policy allows it, or the role names it
}

// across asks whether something of another Stack may be reached: where its owner's policy says so, or a statement of the role names it.
func (s *Server) across(ctx context.Context, who asking, t thing, request policy.Request) (verdict, error) {
	owner, err := s.ownerOf(ctx, t)
	if err != nil || owner == "" || owner == who.stack || t.service == "lambda" && sameApp(owner, who.stack) {
		return verdict{}, err
	}
	v := verdict{owner: owner}
	request.Principals = who.principals
	shared, err := s.sharedBy(ctx, owner, t)
	if err != nil {
		return v, err
	}
	v.effect = shared.Decide(request).Effect
	v.allowed = v.effect == policy.Allow || v.effect != policy.Deny && who.role != nil && who.role.policy.Names(request, t.arn())
	return v, nil
}

// sameApp says whether two Stacks are of one App.
func sameApp(a, b string) bool {
	return a[:strings.LastIndexByte(a, '/')] == b[:strings.LastIndexByte(b, '/')]
}

// sharedBy is what a Stack lets others do with something of its: by the policies that it declares, and by those that were put on the thing.
func (s *Server) sharedBy(ctx context.Context, owner string, t thing) (policy.Policy, error) {
	var p policy.Policy
	for k, v := range s.stacks.all() {
		if stackID(k) == owner {
			p = v.shared[t]
		}
	}
	var text string
	switch t.service {
	case "s3":
		b, err := s.objects.Bucket(ctx, bucketID(t.name))
		if err != nil {
			return p, err
		}
		text = string(b.Documents["policy"])
	case "sqs":
		q, err := s.events.bus.QueueStatus(ctx, tenant+"/"+t.name)
		if err != nil {
			return p, err
		}
		text = q.Tags["ebb:sqs:Policy"]
	case "sns":
		one, err := s.events.bus.Topic(ctx, tenant+"/"+t.name)
		if err != nil {
			return p, err
		}
		text = one.Tags["ebb:sns:Policy"]
	}
	var doc any
	if text != "" && json.Unmarshal([]byte(text), &doc) == nil {
		p = policy.Join(p, lenient(policy.Documents(doc)))
	}
	return p, nil
}

// lenient reads the statements of a policy that can be read: others allow nothing. One that denies and cannot be read denies all.
func lenient(list []map[string]any) (p policy.Policy) {
	for _, st := range list {
		one, err := policy.ParseShared([]map[string]any{st})
		if err != nil && st["Effect"] == "Deny" {
			one, _ = policy.ParseShared([]map[string]any{{"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"}})
		}
		p = policy.Join(p, one)
	}
	return p
}

// shared reads the policies that a Deployment declares on its things.
func (r resolver) shared() map[thing]policy.Policy {
	out := map[thing]policy.Policy{}
	add := func(at string, statements ...map[string]any) {
		if t, ok := thingIn(at); ok {
			out[t] = policy.Join(out[t], lenient(statements))
		}
	}
	for i := range r.app.Resources {
		res := &r.app.Resources[i]
		plain, err := r.plain(pick(res.Properties, "PolicyDocument", "Queues", "Topics", "ResourceArn", "ResourcePolicy", "EventBusName", "Statement", "Action", "Principal", "FunctionName"))
		p, _ := plain.(map[string]any)
		if err != nil {
			continue // what cannot be resolved allows nothing
		}
		switch res.Type {
		case "AWS::SQS::QueuePolicy":
			for _, url := range r.texts(p["Queues"]) {
				add("arn:aws:sqs:::"+url[strings.LastIndexByte(url, '/')+1:], policy.Documents(p["PolicyDocument"])...)
			}
		case "AWS::SNS::TopicPolicy":
			for _, topic := range r.texts(p["Topics"]) {
				add(topic, policy.Documents(p["PolicyDocument"])...)
			}
		case "AWS::Kinesis::ResourcePolicy":
			at, _ := p["ResourceArn"].(string)
			add(at, policy.Documents(p["ResourcePolicy"])...)
		case "AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable":
			name, err := r.physicalName(res)
			m, _ := p["ResourcePolicy"].(map[string]any)
			if err == nil {
				add("arn:aws:dynamodb:::table/"+name, policy.Documents(m["PolicyDocument"])...)
			}
		case "AWS::Events::EventBusPolicy":
			name, _ := p["EventBusName"].(string)
			st, ok := p["Statement"].(map[string]any)
			if !ok {
				st = map[string]any{"Effect": "Allow", "Principal": p["Principal"], "Action": p["Action"], "Resource": "*"}
			}
			add("arn:aws:events:::event-bus/"+wire.NameIn(name, ":event-bus/"), st)
		case "AWS::Lambda::Permission":
			name, _ := p["FunctionName"].(string)
			if f, _, err := arn.FunctionName(name); err == nil {
				add("arn:aws:lambda:::function:"+f, map[string]any{"Effect": "Allow", "Principal": p["Principal"], "Action": p["Action"], "Resource": "*"})
			}
		}
	}
	return out
}

// crossed refuses a call of a Function that reaches another Stack's thing undeclared.
func (w *wires) crossed(ctx context.Context, c *wire.Call, r *role, a wire.Subject, request policy.Request) (verdict, error) {
	t, ok := thingIn(a.Resource)
	if !ok || w.s.o.Config.IAM == config.IAMOff || t.service == "lambda" && !a.Reach { // Lambda's API asks for itself whose a function is
		return verdict{}, nil
	}
	k := state.StackKey{Tenant: c.Caller.Tenant, App: c.Caller.App, Stage: c.Caller.Stage}
	if owner, err := w.s.ownerOf(ctx, t); err != nil || owner == "" || owner == stackID(k) {
		return verdict{}, err
	}
	who := w.s.asking(k, r)
	if a.Reach { // by the service, for what the request is about
		who.principals = append(who.principals, c.Service.Name+".amazonaws.com")
		request.Context = maps.Clone(request.Context)
		request.Context["aws:sourcearn"], request.Context["aws:sourceaccount"] = []string{c.About()}, []string{c.Caller.Account}
	}
	v, err := w.s.across(ctx, who, t, request)
	if err != nil || v.owner == "" || v.allowed {
		return v, err
	}
	why := "because no resource-based policy allows the " + a.Action + " action"
	if v.effect == policy.Deny {
		why = "with an explicit deny in a resource-based policy"
	}
	mend := a.Resource
	if t.service == "s3" && mend != t.arn() {
		mend = t.arn() + "/*"
	}
	w.once(ctx, c, r, "across "+a.Action+" "+mend, fmt.Sprintf("refused: %s belongs to %s; what another app has is reached by a statement of the role that names it, %s, or where a policy of its owner allows it",
		mend, stackName(v.owner), policy.Missing(policy.Request{Action: a.Action, Resource: mend})))
	return v, accessDenied(c, a, why)
}

// stackName is a Stack's ID for people.
func stackName(id string) string {
	part := strings.SplitN(id, "/", 3)
	if len(part) < 3 {
		return id
	}
	return "app " + part[1] + ", stage " + part[2]
}

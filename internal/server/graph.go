package server

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/bus/rule"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

// The kinds of node of a graph. What has another kind adds it here, and a function to declaredGraph or Graph.
const (
	nodeFunction = "function"
	nodeBus      = "bus"
	nodeQueue    = "queue"
	nodeTopic    = "topic"
	nodeStream   = "stream"
	nodeEndpoint = "endpoint"
	nodeSchedule = "schedule"
	nodeOutside  = "outside"
)

// outside is who publishes, sends and invokes without being a Function.
const outside = nodeOutside + ":"

// graph is a graph while it is put together.
type graph struct {
	nodes map[string]api.GraphNode
	edges map[edgeKey]api.GraphEdge
	by    map[string]edgeKey // the edge that a Subscription is
}

type edgeKey struct{ from, to, kind, label string }

func newGraph() *graph {
	return &graph{nodes: map[string]api.GraphNode{}, edges: map[edgeKey]api.GraphEdge{}, by: map[string]edgeKey{}}
}

// node adds a node, and gives its ID. One with an App stays so.
func (g *graph) node(kind, name string, k state.StackKey) string {
	id := kind + ":" + name
	if old, ok := g.nodes[id]; !ok || old.App == "" {
		g.nodes[id] = api.GraphNode{ID: id, Kind: kind, Name: name, App: k.App, Stage: k.Stage}
	}
	return id
}

// at gives the ID of a node that may be another Stack's, or nobody's.
func (g *graph) at(kind, name string) string {
	id := kind + ":" + name
	if _, ok := g.nodes[id]; !ok {
		g.nodes[id] = api.GraphNode{ID: id, Kind: kind, Name: name}
	}
	return id
}

// edge adds an edge. What is declared and seen is one.
func (g *graph) edge(e api.GraphEdge) edgeKey {
	k := edgeKey{e.From, e.To, e.Kind, e.Label}
	old := g.edges[k]
	e.Declared, e.Uncounted, e.N = e.Declared || old.Declared, e.Uncounted || old.Uncounted, e.N+old.N
	if old.Last.After(e.Last) {
		e.Last = old.Last
	}
	g.edges[k] = e
	return k
}

// Graph tells who publishes what to whom: what is declared, and what was seen.
func (s *Server) Graph(ctx context.Context, appName string) (*api.GraphInfo, error) {
	if err := s.events.bus.Sync(ctx); err != nil {
		return nil, err
	}
	g := newGraph()
	stacks := s.stacks.all()
	for k, v := range stacks {
		for _, f := range v.functions {
			g.node(nodeFunction, f.Name, k)
		}
		for _, name := range v.buses {
			g.node(nodeBus, name, k)
		}
	}
	for k, v := range stacks {
		d, err := s.state.Deployment(ctx, k, v.deployment)
		if errs.CodeOf(err) == errs.NotFound {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		s.declaredGraph(g, d)
	}
	if err := s.queueGraph(ctx, g); err != nil {
		return nil, err
	}
	subs, err := s.events.bus.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	places := map[string]string{}
	for _, sub := range subs {
		if t, ok := targetIn(sub); ok {
			places[sub.Name] = g.place(&t)
			g.own(sub, &t)
		}
	}
	flows, err := s.events.bus.Flows(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range flows {
		g.seen(f, places)
	}
	if appName != "" && !slices.ContainsFunc(keysOf(stacks), func(k state.StackKey) bool { return k.App == appName }) {
		return nil, errs.New(errs.NotFound, "no app %s is deployed", appName).WithHint("`ebb ls` shows what is deployed.")
	}
	return g.info(appName), nil
}

func keysOf(m map[state.StackKey]*serving) (keys []state.StackKey) {
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// declaredGraph adds what a Deployment declares.
func (s *Server) declaredGraph(g *graph, d *state.Deployment) {
	w := s.triggers(d)
	for _, sub := range w.subs {
		t, ok := targetIn(sub)
		from, kind := g.channel(sub.Channel)
		if !ok || from == "" {
			continue
		}
		g.by[sub.Name] = g.edge(api.GraphEdge{From: from, To: g.place(&t), Kind: kind, Label: ruleLabel(sub.Filter), Declared: true})
		g.told(from, "deadLetters", t.Dead)
	}
	for _, one := range w.timed {
		t, ok := targetIn(one.sub)
		if !ok {
			continue
		}
		from := g.node(nodeSchedule, scheduleName(one.schedule.Name), d.Stack)
		g.by[one.sub.Name] = g.edge(api.GraphEdge{From: from, To: g.place(&t), Kind: "schedule", Label: one.schedule.Expression, Declared: true})
	}
	list, _ := s.mappings(d)
	for _, m := range list {
		kind, name := nodeQueue, m.Queue
		if m.stream != nil {
			kind, name = nodeStream, m.stream.Stream
		}
		from := g.at(kind, bareQueue(name))
		g.edge(api.GraphEdge{From: from, To: g.at(nodeFunction, m.function), Kind: "mapping", Declared: true, Uncounted: kind == nodeStream})
	}
	for i := range d.App.Functions {
		f := &d.App.Functions[i]
		to, _ := s.destinations(s.resolver(d), f)
		from := g.at(nodeFunction, f.Name)
		g.told(from, "onSuccess", to.success)
		g.told(from, "onFailure", to.failure)
		g.told(from, "deadLetters", to.dead)
	}
	for i := range d.App.Resources {
		switch res := &d.App.Resources[i]; res.Kind {
		case app.Queue:
			if q, err := s.queueOf(d, res); err == nil {
				g.node(nodeQueue, q.Name, d.Stack)
			}
		case app.Topic:
			if t, err := s.topicOf(d, res); err == nil {
				g.node(nodeTopic, t.Name, d.Stack)
			}
		case app.Stream:
			if st, err := s.streamOf(d, res); err == nil {
				g.node(nodeStream, st.Name, d.Stack)
			}
		}
	}
}

// own adds a Subscription that somebody has put.
func (g *graph) own(sub bus.Subscription, t *target) {
	from, kind := g.channel(sub.Channel)
	label := ruleLabel(sub.Filter)
	switch {
	case t.Own != nil:
		kind = "subscription"
		if label == "" {
			label = t.Own.Name
		}
	case !strings.HasPrefix(sub.Name, rulesPrefix) && !strings.HasPrefix(sub.Name, schedulerPrefix):
		return
	case sub.Channel == scheduleChannel:
		from, kind, label = g.at(nodeSchedule, scheduleName(sub.Subject)), "schedule", t.Rule
	case from == "": // of a rule that is disabled
		return
	}
	g.by[sub.Name] = g.edge(api.GraphEdge{From: from, To: g.place(t), Kind: kind, Label: label, Declared: true})
	g.told(from, "deadLetters", t.Dead)
}

// channel is where a Subscription takes events from that is shown, and what it is called there.
func (g *graph) channel(channel string) (from, kind string) {
	if name, ok := strings.CutPrefix(channel, busChannel("")); ok {
		return g.at(nodeBus, name), "rule"
	}
	if name, ok := strings.CutPrefix(channel, bus.TopicChannel(tenant+"/")); ok {
		return g.at(nodeTopic, name), "subscription"
	}
	return "", ""
}

// place is where a target stands.
func (g *graph) place(t *target) string {
	switch {
	case t.Queue != "":
		return g.at(nodeQueue, t.Queue)
	case t.Topic != "":
		return g.at(nodeTopic, t.Topic)
	case t.Endpoint != "":
		return g.at(nodeEndpoint, redacted(t.Endpoint))
	case t.Bus != "":
		return g.at(nodeBus, t.Bus)
	case t.Function != "":
		return g.at(nodeFunction, t.Function)
	}
	return ""
}

// told adds who is told of an end.
func (g *graph) told(from, kind string, to *destination) {
	if to == nil {
		return
	}
	at := g.place(&target{Function: to.Function, Queue: to.Queue, Topic: to.Topic})
	if to.Bus != "" {
		at = g.at(nodeBus, to.Bus)
	}
	g.edge(api.GraphEdge{From: from, To: at, Kind: kind, Declared: true})
}

// scheduleName is how people know a schedule.
func scheduleName(name string) string { return strings.TrimPrefix(name, "trigger/"+tenant+"/") }

// queueGraph adds the queues that stand, and where their dead letters go.
func (s *Server) queueGraph(ctx context.Context, g *graph) error {
	list, err := s.events.bus.Queues(ctx)
	if err != nil {
		return err
	}
	for _, q := range list {
		var k state.StackKey
		if part := strings.Split(q.Tags[ownerTag], "/"); len(part) == 3 {
			k = state.StackKey{Tenant: part[0], App: part[1], Stage: part[2]}
		}
		id := g.node(nodeQueue, q.Name, k)
		if q.MaxReceives > 0 && q.DeadLetters != "" {
			g.edge(api.GraphEdge{From: id, To: g.at(nodeQueue, bareQueue(q.DeadLetters)), Kind: "deadLetters", Declared: true})
		}
	}
	return nil
}

// ruleLabel says in a few words what a rule matches: the types and sources that its pattern names.
func ruleLabel(filter json.RawMessage) string {
	var f rule.Filter
	if len(filter) == 0 || json.Unmarshal(filter, &f) != nil {
		return ""
	}
	var pattern struct {
		Type   []json.RawMessage `json:"detail-type"`
		Source []json.RawMessage `json:"source"`
	}
	if json.Unmarshal(f.Pattern, &pattern) != nil {
		return ""
	}
	for _, list := range [][]json.RawMessage{pattern.Type, pattern.Source} {
		var words []string
		for _, raw := range list {
			var word string
			if json.Unmarshal(raw, &word) != nil {
				word = string(raw)
			}
			words = append(words, word)
		}
		if len(words) > 0 {
			return strings.Join(words, ", ")
		}
	}
	return ""
}

// seen adds what went one way.
func (g *graph) seen(f bus.Flow, places map[string]string) {
	from, bySub := outside, places[f.From] != "" // a Subscription is an edge itself
	if f.From != "" && !bySub {
		from = g.at(nodeFunction, f.From)
	}
	to := places[f.To]
	switch {
	case strings.HasPrefix(f.Over, bus.OverQueue):
		q := g.at(nodeQueue, bareQueue(strings.TrimPrefix(f.Over, bus.OverQueue)))
		if dead, ok := strings.CutPrefix(f.To, bus.OverQueue); ok {
			g.edge(api.GraphEdge{From: q, To: g.at(nodeQueue, bareQueue(dead)), Kind: "deadLetters", N: f.N, Last: f.Last})
			return
		}
		if f.To != "" {
			g.edge(api.GraphEdge{From: q, To: g.at(nodeFunction, f.To), Kind: "mapping", N: f.N, Last: f.Last})
			return
		}
		if bySub {
			return
		}
		g.out(from)
		g.edge(api.GraphEdge{From: from, To: q, Kind: "sends", N: f.N, Last: f.Last})
	case f.Over == asyncChannel:
		if f.To == "" {
			return
		}
		if to == "" {
			to = g.at(nodeFunction, functionOf(f.To))
		}
		g.out(from)
		g.invoked(from, to, f)
	case f.Over == scheduleChannel:
		if !g.fill(f) && to != "" {
			g.edge(api.GraphEdge{From: g.at(nodeSchedule, scheduleName(f.To)), To: to, Kind: "schedule", N: f.N, Last: f.Last})
		}
	default:
		at, _ := g.channel(f.Over)
		if at == "" {
			return
		}
		if f.To != "" {
			if !g.fill(f) && to != "" { // by a rule that was changed since
				g.edge(api.GraphEdge{From: at, To: to, Kind: "delivers", Label: f.Type, N: f.N, Last: f.Last})
			}
			return
		}
		if bySub {
			return
		}
		g.out(from)
		label := f.Type
		if label == bus.NotificationType {
			label = "" // every message to a topic is one
		}
		g.edge(api.GraphEdge{From: from, To: at, Kind: "publishes", Label: label, N: f.N, Last: f.Last})
	}
}

// invoked adds asynchronous Invocations, to the Destination that they were where only one can be meant.
func (g *graph) invoked(from, to string, f bus.Flow) {
	var kinds []string
	for _, kind := range []string{"onSuccess", "onFailure"} {
		if e, ok := g.edges[edgeKey{from, to, kind, ""}]; ok && e.Declared {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 1 {
		kinds = []string{"invokes"}
	}
	g.edge(api.GraphEdge{From: from, To: to, Kind: kinds[0], N: f.N, Last: f.Last})
}

// out adds the world outside once it does something.
func (g *graph) out(from string) {
	if from == outside {
		g.nodes[outside] = api.GraphNode{ID: outside, Kind: nodeOutside, Name: "outside"}
	}
}

// fill counts what went over the edge that a Subscription is.
func (g *graph) fill(f bus.Flow) bool {
	k, ok := g.by[f.To]
	if ok {
		g.edge(api.GraphEdge{From: k.from, To: k.to, Kind: k.kind, Label: k.label, N: f.N, Last: f.Last})
	}
	return ok
}

// info gives the graph in order; with an App only its nodes and those that are a step away.
func (g *graph) info(appName string) *api.GraphInfo {
	out := &api.GraphInfo{Nodes: []api.GraphNode{}, Edges: []api.GraphEdge{}}
	own := func(id string) bool { return appName == "" || g.nodes[id].App == appName }
	keep := map[string]bool{}
	for _, e := range g.edges {
		if own(e.From) || own(e.To) {
			out.Edges = append(out.Edges, e)
			keep[e.From], keep[e.To] = true, true
		}
	}
	for id, n := range g.nodes {
		if keep[id] || own(id) {
			out.Nodes = append(out.Nodes, n)
		}
	}
	slices.SortFunc(out.Nodes, func(a, b api.GraphNode) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(out.Edges, func(a, b api.GraphEdge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Label, b.Label))
	})
	return out
}

package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

// outline writes a tree in a few words.
func outline(nodes []api.TraceNode) string {
	var b strings.Builder
	for _, n := range nodes {
		name := n.ID
		if n.Kind == api.TraceInvocation {
			name = n.Function + ":" + n.State
		}
		if n.Elsewhere {
			name += "*"
		}
		b.WriteString(n.Kind[:1] + " " + name)
		if len(n.Children) > 0 {
			b.WriteString("(" + outline(n.Children) + ")")
		}
		b.WriteString(" ")
	}
	return strings.TrimSpace(b.String())
}

func TestTraceOf_PutsCausesAndEffectsTogether(t *testing.T) {
	t.Parallel()
	id := bus.TraceID{1, 2, 3}
	at := func(n int) time.Time { return time.Unix(1000+int64(n), 0).UTC() }
	functions := map[string]string{"rule": "bill", "other": "mail"}
	event := func(n int, name, parent string, subs ...string) bus.Traced {
		e := &bus.TracedEvent{ID: name, Source: "/s", Type: "t", Extensions: map[string]string{bus.Channel: busChannel("default"), bus.Parent: parent, bus.Publisher: "place"}}
		for i, sub := range subs {
			e.Deliveries = append(e.Deliveries, bus.Status{ID: fmt.Sprint(n, "-", i), Subscription: sub, State: bus.Done, Published: at(n)})
		}
		return bus.Traced{Trace: id, At: at(n), Event: e}
	}
	invocation := func(n, i int, name string) string { return invocationOf(id, fmt.Sprint(n, "-", i), at(n), "/s", name) }
	async := func(n int, name, function, parent string, st bus.State) bus.Traced {
		e := &bus.TracedEvent{ID: name, Source: asyncSource, Type: asyncType, Subject: function, Extensions: map[string]string{bus.Channel: asyncChannel, bus.Parent: parent}}
		e.Deliveries = []bus.Status{{ID: "x", Subscription: asyncName(function), State: st, Cause: bus.CauseExhausted, Published: at(n), Tries: 1, Attempts: []bus.Attempt{{Took: time.Second, Code: errs.Failed, Error: "boom"}}}}
		return bus.Traced{Trace: id, At: at(n), Event: e}
	}
	message := func(n int, name, parent, in, dead string, receives int) bus.Traced {
		return bus.Traced{Trace: id, At: at(n), Message: &bus.TracedMessage{ID: name, Queue: "default/q", In: in, DeadFrom: dead, Receives: receives, Parent: parent}}
	}
	work := func(n int, name, function string, messages ...string) bus.Traced {
		w := &bus.Work{ID: name, Name: function, Start: at(n), Took: time.Second, Messages: messages}
		if len(messages) > 0 {
			w.Queue = "default/q"
		}
		return bus.Traced{Trace: id, At: at(n), Work: w}
	}
	for name, c := range map[string]struct {
		found      []bus.Traced
		want       string
		open, dead int
	}{
		"nothing":                    {nil, "", 0, 0},
		"an event that nobody takes": {[]bus.Traced{event(1, "a", "")}, "e a", 0, 0},
		"a chain, out of order": {[]bus.Traced{event(3, "c", invocation(2, 0, "b")), event(2, "b", invocation(1, 0, "a"), "rule"), event(1, "a", "", "rule", "other")},
			"e a(i bill:succeeded(e b(i bill:succeeded(e c))) i mail:succeeded)", 0, 0},
		"a call":                             {[]bus.Traced{event(2, "a", "call", "rule"), work(1, "call", "place")}, "i place:succeeded(e a(i bill:succeeded))", 0, 0},
		"a call of which nothing is written": {[]bus.Traced{event(2, "a", "call")}, "i place:(e a)", 0, 0},
		"a call that runs":                   {[]bus.Traced{event(2, "a", "busy")}, "i place:running(e a)", 1, 0},
		"a message that is being worked on":  {[]bus.Traced{message(1, "busy", "", "", "", 0)}, "m busy", 1, 0},
		"a dead letter and its destination": {[]bus.Traced{async(1, "call", "f", "", bus.Dead), async(2, "told", "g", "call", bus.Pending)},
			"i f:dead(i g:retrying)", 1, 1},
		"a batch of two messages": {[]bus.Traced{message(1, "m1", "", "", "", 0), message(2, "m2", "", "", "", 0), work(3, "w", "work", "m1", "m2", "of another trace"), event(4, "a", "w")},
			"m m1(i work:succeeded(e a)) m m2(i work:succeeded*)", 0, 0},
		"messages that are there": {[]bus.Traced{message(1, "m1", "", "default/q", "", 0), message(2, "m2", "", "default/dead", "default/q", 0)}, "m m1 m m2", 1, 1},
		"one that was moved":      {[]bus.Traced{message(1, "m", "call", "", "", 0), {Trace: id, At: at(2), Message: &bus.TracedMessage{ID: "m", Queue: "default/dead", In: "default/dead", DeadFrom: "default/q", Moved: true}}, work(0, "call", "place")}, "i place:succeeded(m m)", 0, 1},
		"what causes itself":      {[]bus.Traced{async(1, "a", "f", "b", bus.Done), async(2, "b", "f", "a", bus.Done)}, "i f:succeeded(i f:succeeded)", 0, 0},
		"the same twice":          {[]bus.Traced{event(1, "a", ""), event(2, "a", "")}, "e a", 0, 0},
		"a subscription is gone": {[]bus.Traced{{Trace: id, At: at(1), Event: &bus.TracedEvent{ID: "a", Source: "/s", Extensions: map[string]string{bus.Channel: busChannel("b")},
			Deliveries: []bus.Status{{ID: "d", Subscription: "gone", State: bus.Cancelled, Published: at(1)}}}}}, "e a(i gone:cancelled)", 0, 0},
	} {
		got := traceOf(id, c.found, functions, map[string]bool{"busy": true})
		if o := outline(got.Roots); o != c.want || got.Open != c.open || got.Dead != c.dead || got.Trace != id.String() {
			t.Errorf("%s: %s, %d open, %d dead; want %s, %d, %d", name, o, got.Open, got.Dead, c.want, c.open, c.dead)
		}
	}
}

func TestGraph_TellsWhatIsDeclaredAndWhatWasSeen(t *testing.T) {
	t.Parallel()
	g := newGraph()
	at := time.Unix(1000, 0)
	bill := g.node(nodeFunction, "bill", declaredIn)
	g.node(nodeFunction, "alone", declaredIn)
	g.by["rule"] = g.edge(api.GraphEdge{From: g.at(nodeBus, "default"), To: bill, Kind: "rule", Label: "order", Declared: true})
	g.edge(api.GraphEdge{From: bill, To: g.at(nodeFunction, "sorry"), Kind: "onFailure", Declared: true})
	g.edge(api.GraphEdge{From: g.at(nodeQueue, "jobs"), To: bill, Kind: "mapping", Declared: true})
	places := map[string]string{"rule": bill, "later": g.at(nodeFunction, "mail"), asyncName("sorry"): g.at(nodeFunction, "sorry"), "to jobs": g.at(nodeQueue, "jobs")}
	for _, f := range []bus.Flow{
		{From: "place", Over: busChannel("default"), Type: "order", N: 2, Last: at}, {Over: busChannel("default"), Type: "order", N: 2, Last: at},
		{From: "place", Over: busChannel("default"), Type: "order", To: "rule", N: 2, Last: at}, {Over: busChannel("default"), Type: "order", To: "rule", N: 1, Last: at},
		{Over: busChannel("default"), Type: "order", To: "later", N: 1}, {From: "place", Over: busChannel("own"), Type: "x", N: 5}, {Over: asyncChannel, To: asyncName("sorry"), N: 1},
		{From: "bill", Over: asyncChannel, To: asyncName("sorry"), N: 7}, {Over: bus.OverQueue + "default/jobs", To: "bill", N: 3}, {From: "place", Over: bus.OverQueue + "default/jobs", N: 4},
		{Over: bus.OverQueue + "default/jobs", To: bus.OverQueue + "default/dead", N: 1}, {Over: "something/else", To: "x", N: 9}, {From: "to jobs", Over: bus.OverQueue + "default/jobs", N: 3},
	} {
		g.seen(f, places)
	}
	info := g.info("")
	var got []string
	for _, e := range info.Edges {
		got = append(got, fmt.Sprintf("%s>%s %s %s %v %d", e.From, e.To, e.Kind, e.Label, e.Declared, e.N))
	}
	want := `bus:default>function:bill rule order true 3
bus:default>function:mail delivers order false 1
function:bill>function:sorry onFailure  true 7
function:place>bus:default publishes order false 2
function:place>bus:own publishes x false 5
function:place>queue:jobs sends  false 4
outside:>bus:default publishes order false 2
outside:>function:sorry invokes  false 1
queue:jobs>function:bill mapping  true 3
queue:jobs>queue:dead deadLetters  false 1`
	if strings.Join(got, "\n") != want {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	var names []string
	for _, n := range g.info("shop").Nodes {
		names = append(names, n.ID)
	}
	if s := strings.Join(names, " "); s != "bus:default function:alone function:bill function:sorry queue:jobs" {
		t.Errorf("near the app are %s", s)
	}
}

var declaredIn = state.StackKey{Tenant: tenant, App: "shop", Stage: "dev"}

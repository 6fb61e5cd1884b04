package bus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/event"
)

const parentText = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestParseTrace_TakesWhatTraceContextAllows(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		parentText: true, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00": true,
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more": true, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": true,
		"": false, parentText + "-more": false, parentText + "x": false, "ff" + parentText[2:]: false, parentText[:54]: false,
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more": false,
		strings.ToUpper(parentText):                                    false, "00-00000000000000000000000000000000-00f067aa0ba902b7-01": false, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01": false, "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": false,
	} {
		got, ok := bus.ParseTrace(text)
		if ok != want || ok && got.String() != "4bf92f3577b34da6a3ce929d0e0e4736" {
			t.Errorf("%q: %s, %v", text, got, ok)
		}
	}
}

func FuzzParseTrace_NeverFailsAndComesBack(f *testing.F) {
	f.Add(parentText)
	f.Add("ff-" + strings.Repeat("-", 52))
	f.Fuzz(func(t *testing.T, text string) {
		id, ok := bus.ParseTrace(text)
		if ok && (text[3:35] != id.String() || id == bus.TraceID{}) {
			t.Fatalf("%q gives %s", text, id)
		}
		e := &event.Event{ID: "1", Source: "/s", Type: "t"}
		e.SetExtension(bus.TraceParent, text)
		again, valid := bus.ParseTrace(bus.TraceContext(e))
		if !valid || again != bus.TraceOf(e) || ok && again != id {
			t.Fatalf("%q is continued as %q", text, bus.TraceContext(e))
		}
	})
}

func TestTraceContext_IsTheSameForTheSameEvent(t *testing.T) {
	t.Parallel()
	a, b := newEvent("one"), newEvent("one", "colour", "red")
	if bus.TraceContext(a) != bus.TraceContext(b) {
		t.Error("who publishes again gets another trace")
	}
	b.SetExtension(bus.Channel, "other")
	if bus.TraceContext(a) == bus.TraceContext(b) || bus.TraceContext(a) == bus.TraceContext(newEvent("two")) {
		t.Error("different events have one trace")
	}
	a.SetExtension(bus.TraceParent, parentText)
	if bus.TraceContext(a) != parentText {
		t.Error("a trace that is carried is replaced")
	}
	bus.Caused(b, a)
	if bus.TraceContext(b) != parentText || bus.HopsOf(b) != 1 {
		t.Errorf("%v", b.Extensions)
	}
	c := newEvent("three")
	bus.Caused(c, newEvent("two"))
	if bus.TraceOf(c) != bus.TraceOf(newEvent("two")) {
		t.Error("a trace that was only begun is not gone on with")
	}
}

func TestInvocationID_LeadsToItsTrace(t *testing.T) {
	t.Parallel()
	id, _ := bus.ParseTrace(parentText)
	a := bus.InvocationID(id, "x", "y")
	if a != bus.InvocationID(id, "x", "y") || a == bus.InvocationID(id, "xy") || a == bus.InvocationID(id, "x", "z") {
		t.Errorf("%s", a)
	}
	p, ok := bus.InvocationPrefix(a)
	if !ok || [6]byte(id[:6]) != p || a[14] != '8' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("%s leads to %x", a, p)
	}
	for _, bad := range []string{"", "x", "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", strings.Replace(a, "-", "x", 1), strings.Replace(a, a[:1], "g", 1)} {
		if _, ok := bus.InvocationPrefix(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}

// chain makes a bus with a trace of events, messages and Invocations beside them.
func chain(t *testing.T, dir string, o bus.Options) *world {
	t.Helper()
	o.Deliver = &target{}
	w := start(t, dir, o)
	w.subscribe(t, bus.Subscription{Name: "a", Retry: quick})
	w.queue(t, bus.Queue{Name: "q", MaxReceives: 1, DeadLetters: "dead", Visibility: new(time.Duration)})
	w.queue(t, bus.Queue{Name: "dead"})
	root := newEvent("root")
	w.publish(t, root)
	for i := range 5 {
		e := newEvent(fmt.Sprint("child", i), bus.Parent, "inv", bus.Publisher, "fn")
		bus.Caused(e, root)
		w.publish(t, e)
	}
	sent, err := w.Send(t.Context(), "q", []bus.Message{{ID: "m1", Body: []byte("x"), Trace: bus.TraceContext(root), Parent: "inv", Publisher: "fn", Hops: 1}, {ID: "m2", Body: []byte("y")}})
	if err := errors.Join(err, sent[0].Err, sent[1].Err); err != nil {
		t.Fatal(err)
	}
	got := w.await(t, "q", 2)
	for _, m := range got {
		if m.ID == "m1" && (m.Parent != "inv" || m.Publisher != "fn" || m.Hops != 1) {
			t.Errorf("%+v", m.Message)
		}
	}
	until(t, "dead letters", func() (bool, error) {
		if _, err := w.Receive(t.Context(), "q", bus.Receive{Max: 10}); err != nil {
			return false, err
		}
		s, err := w.QueueStatus(t.Context(), "dead")
		return s.Visible == 2, err
	})
	if err := w.Note(t.Context(), bus.Work{ID: "work", Name: "fn2", Queue: "default/q", Trace: bus.TraceContext(root), Start: time.Now().UTC(), Messages: []string{"m1", "m2"},
		Traces: []bus.TraceID{bus.TraceOf(root), {1}}, Failed: []int{1}}); err != nil {
		t.Fatal(err)
	}
	w.publish(t, newEvent("other"))
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.states(t, "a", map[bus.State]int{bus.Done: 7})
	return w
}

// dump is all that a bus knows of a trace, and its flows.
func dump(t *testing.T, w *world, id bus.TraceID) string {
	t.Helper()
	all, more, err := w.Trace(t.Context(), id)
	if err != nil || more {
		t.Fatalf("%v, %v", more, err)
	}
	flows, err := w.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent([]any{all, flows}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTrace_HasAllOfItAndComesOutTheSameFromTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := chain(t, dir, bus.Options{Partitions: 2})
	root := bus.TraceOf(newEvent("root"))
	all, _, err := w.Trace(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range all {
		switch {
		case f.Event != nil:
			names = append(names, fmt.Sprint("event ", f.Event.ID, " ", len(f.Event.Deliveries)))
			if d := f.Event.Deliveries; len(d) != 1 || d[0].State != bus.Done || f.At.IsZero() || f.Trace != root {
				t.Errorf("%+v", f)
			}
		case f.Message != nil:
			names = append(names, "message "+f.Message.ID+" in "+f.Message.In+" from "+f.Message.DeadFrom)
		case f.Work != nil:
			names = append(names, "work "+f.Work.ID+" "+f.Work.Name)
		}
	}
	slices.Sort(names)
	want := []string{"event child0 1", "event child1 1", "event child2 1", "event child3 1", "event child4 1", "event root 1", "message m1 in default/dead from default/q", "work work fn2"}
	// A message that went to another Partition is in the log twice.
	if got := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == "message m1 in  from " }); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", names, want)
	}
	delivery := ""
	for _, f := range all {
		if f.Event != nil && f.Event.ID == "child1" {
			delivery = f.Event.Deliveries[0].ID
		}
	}
	for id, trace := range map[string]bus.TraceID{
		"root": root, "child3": root, "m1": root, "work": root, root.String(): root, bus.TraceContext(newEvent("root")): root,
		bus.InvocationID(root, "whatever"): root, delivery: root, "other": bus.TraceOf(newEvent("other")),
	} {
		if got, err := w.Find(t.Context(), id); err != nil || len(got) != 1 || got[0] != trace {
			t.Errorf("%s leads to %v, %v; want %s", id, got, err, trace)
		}
	}
	for _, id := range []string{"", "nothing", "0-ffff-0-0", strings.Repeat("0", 32), strings.Repeat("f", 32), "9-1-1-1"} {
		if got, err := w.Find(t.Context(), id); err != nil || len(got) != 0 {
			t.Errorf("%q leads to %v, %v", id, got, err)
		}
	}
	before := dump(t, w, root)
	// A Node that owns nothing asks the one that does.
	other, err := bus.Open(t.Context(), w.conn.JetStream(), bus.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if far := dump(t, &world{Bus: other}, root); far != before {
		t.Errorf("another node says\n%s\nwant\n%s", far, before)
	}
	if got, err := other.Find(t.Context(), "m1"); err != nil || len(got) != 1 || got[0] != root {
		t.Errorf("to another node m1 leads to %v, %v", got, err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	w.stop()
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, bus.Options{Deliver: &target{}})
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := dump(t, w, root); again != before {
		t.Errorf("made again:\n%s\nwas\n%s", again, before)
	}
}

func TestFlows_CountWhoPublishesWhatToWhom(t *testing.T) {
	t.Parallel()
	w := chain(t, t.TempDir(), bus.Options{})
	flows, err := w.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range flows {
		if time.Since(f.Last) > time.Hour || time.Since(f.Last) < -time.Hour {
			t.Errorf("%+v", f)
		}
		got = append(got, fmt.Sprintf("%s|%s|%s|%s %d", f.From, f.Over, f.Type, f.To, f.N))
	}
	want := []string{"||| 2", "|||a 2", "|queue:default/q|| 1", "|queue:default/q||fn2 2", "|queue:default/q||queue:default/dead 2", "fn||| 5", "fn|||a 5", "fn|queue:default/q|| 1"}
	for i := range got {
		got[i] = strings.Replace(got[i], "|"+newEvent("x").Type+"|", "||", 1)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestFlows_AreBoundedWhateverTypesThereAre(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.MaxFlows(bus.Options{Partitions: 1}, 40))
	var all []*event.Event
	for i := range 100 {
		e := newEvent(fmt.Sprint(i))
		e.Type = fmt.Sprint("type-", i, strings.Repeat("x", 300))
		all = append(all, e)
	}
	w.publish(t, all[:50]...)
	w.publish(t, all[50:]...)
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	flows, err := w.Flows(t.Context())
	if err != nil || len(flows) != 41 {
		t.Fatalf("%d flows, %v", len(flows), err)
	}
	rest := 0
	for _, f := range flows {
		if len(f.Type) > 250 {
			t.Errorf("%q is not cut", f.Type)
		}
		if f.Type == "*" {
			rest = f.N
		}
	}
	if rest != 60 {
		t.Errorf("%d events are counted without their types, want those beyond 40", rest)
	}
}

func TestTrace_GoesWithTheEvents(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Sweep(bus.Options{Deliver: &target{}, Retention: 300 * time.Millisecond, DedupWindow: 100 * time.Millisecond}, 50*time.Millisecond))
	w.publish(t, newEvent("old"))
	published := 1
	until(t, "the purge", func() (bool, error) {
		w.publish(t, newEvent(fmt.Sprint("new", time.Now().UnixNano())))
		published++
		if err := w.Sync(t.Context()); err != nil {
			return false, err
		}
		got, err := w.Find(t.Context(), "old")
		if err != nil || len(got) > 0 {
			return false, err
		}
		rows, err := bus.Rows(t.Context(), w.Bus, "found")
		return rows < published, err
	})
	all, _, err := w.Trace(t.Context(), bus.TraceOf(newEvent("old")))
	if err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestTrace_HasWhatWasReplayed(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Deliver: &target{}})
	w.subscribe(t, bus.Subscription{Name: "a", Retry: quick})
	w.publish(t, newEvent("one"), newEvent("two"))
	if err := w.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, err := w.Replay(t.Context(), bus.Replay{Subscription: "a", From: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the replay", func() (bool, error) { s, err := w.ReplayStatus(t.Context(), id); return s.Done, err })
	all, _, err := w.Trace(t.Context(), bus.TraceOf(newEvent("two")))
	if err != nil || len(all) != 1 || len(all[0].Event.Deliveries) != 2 || all[0].Event.Deliveries[0].Replay != "" || all[0].Event.Deliveries[1].Replay != id {
		t.Fatalf("%+v, %v", all, err)
	}
	if all[0].At != all[0].Event.Deliveries[0].Published {
		t.Errorf("published %v, with its replay", all[0].At)
	}
	if st, err := w.StatusOfEvent(t.Context(), "", "/test", "two"); err != nil || len(st) != 2 {
		t.Errorf("%v, %v", st, err)
	}
}

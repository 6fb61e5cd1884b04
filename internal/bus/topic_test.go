package bus_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// topic puts a topic, and a Subscription on it with the name of its channel.
func (w *world) topic(t *testing.T, tp bus.Topic) string {
	t.Helper()
	if err := w.PutTopic(t.Context(), tp); err != nil {
		t.Fatal(err)
	}
	name := bus.TopicChannel(tp.Name)
	w.subscribe(t, bus.Subscription{Name: name, Channel: name, Ordered: tp.FIFO, Retry: quick})
	return name
}

// note publishes texts; "group:dedup:text" where the topic is FIFO.
func (w *world) note(t *testing.T, topic string, texts ...string) []bus.Noted {
	t.Helper()
	var all []bus.Publication
	for _, text := range texts {
		p := bus.Publication{Message: []byte(text)}
		if strings.HasSuffix(topic, ".fifo") {
			parts := strings.SplitN(text, ":", 3)
			p.Group, p.Dedup, p.Message = parts[0], parts[1], []byte(parts[2])
		}
		all = append(all, p)
	}
	out, err := w.PublishTopic(t.Context(), topic, all...)
	for _, n := range out {
		if err == nil {
			err = n.Err
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) topicNames(t *testing.T) []string {
	t.Helper()
	list, err := w.Topics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, tp := range list {
		data, err := json.Marshal(tp)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(data))
	}
	return names
}

func TestPublishTopic_ReachesItsSubscriptionsAlone(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Partitions: 3, Deliver: &r})
	news := w.topic(t, bus.Topic{Name: "news"})
	w.topic(t, bus.Topic{Name: "other"})
	attributes := map[string]invocation.Attribute{
		"colour": {Type: "String", Text: "blué\u0085\ufffe<"}, "n": {Type: "Number", Text: "1.5e3"}, "all": {Type: "String.Array", Text: `["a",1]`}, "pic": {Type: "Binary", Binary: []byte{0, 255}},
	}
	out, err := w.PublishTopic(t.Context(), "news", bus.Publication{Message: []byte(`{"a":1}`), Subject: "Hi", Attributes: attributes, Group: "g", Trace: "00-x"})
	if err != nil || out[0].Err != nil || out[0].ID == "" || out[0].Sequence != "" {
		t.Fatal(out, err)
	}
	got := r.wait(t, count(1))
	w.states(t, news, map[bus.State]int{bus.Done: 1})
	d := got[0]
	if len(got) != 1 || d.Subscription != news || d.Event.ID != out[0].ID || string(d.Event.Data) != `{"a":1}` || d.Event.Subject != "Hi" ||
		d.Event.Extension(bus.PartitionKey) != "g" || d.Event.Extension("traceparent") != "00-x" || d.Event.DataContentType != "application/json" {
		t.Errorf("got %+v", d.Event)
	}
	have, want := bus.Attributes(d.Event), attributes
	if a, b := fmt.Sprint(have), fmt.Sprint(want); a != b {
		t.Errorf("attributes %s, want %s", a, b)
	}
}

func TestPublishTopic_RefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.topic(t, bus.Topic{Name: "news"})
	w.topic(t, bus.Topic{Name: "news.fifo", FIFO: true})
	w.topic(t, bus.Topic{Name: "same.fifo", FIFO: true, ContentDedup: true})
	text := []byte("x")
	attr := func(name, kind, value string) bus.Publication {
		return bus.Publication{Message: text, Attributes: map[string]invocation.Attribute{name: {Type: kind, Text: value}}}
	}
	for _, row := range []struct {
		topic, says string
		code        errs.Code
		p           bus.Publication
	}{
		{"news", "", "", bus.Publication{Message: text}},
		{"news", "no message", errs.Invalid, bus.Publication{}},
		{"news", "not text", errs.Invalid, bus.Publication{Message: []byte{0xff}}},
		{"news", "takes 1048576", errs.TooLarge, bus.Publication{Message: []byte(strings.Repeat("x", bus.DefaultData+1))}},
		{"news", "", "", bus.Publication{Message: []byte(strings.Repeat("x", bus.DefaultData-100)), Subject: strings.Repeat("s", 99)}},
		{"news", "subject", errs.Invalid, bus.Publication{Message: text, Subject: strings.Repeat("s", 100)}},
		{"news", "subject", errs.Invalid, bus.Publication{Message: text, Subject: "a\nb"}},
		{"news", "dedup", errs.Invalid, bus.Publication{Message: text, Dedup: "d"}},
		{"news", "default", errs.Invalid, bus.Publication{Message: text, Structured: true}},
		{"news", "default", errs.Invalid, bus.Publication{Message: []byte(`{"default":1}`), Structured: true}},
		{"news", "", "", bus.Publication{Message: []byte(`{"default":"d","sqs":"q"}`), Structured: true}},
		{"news", "a b", errs.Invalid, attr("a b", "String", "x")},
		{"news", ".a", errs.Invalid, attr(".a", "String", "x")},
		{"news", "no value", errs.Invalid, attr("a", "String", "")},
		{"news", "no number", errs.Invalid, attr("a", "Number", "x")},
		{"news", "no JSON array", errs.Invalid, attr("a", "String.Array", "x")},
		{"news", "no type", errs.Invalid, attr("a", "Text", "x")},
		{"news.fifo", "needs a group", errs.Invalid, bus.Publication{Message: text, Dedup: "d"}},
		{"news.fifo", "needs a dedup ID", errs.Invalid, bus.Publication{Message: text, Group: "g"}},
		{"news.fifo", "spaces", errs.Invalid, bus.Publication{Message: text, Group: "g g", Dedup: "d"}},
		{"same.fifo", "", "", bus.Publication{Message: text, Group: "g"}},
	} {
		out, err := w.PublishTopic(t.Context(), row.topic, row.p)
		if err != nil {
			t.Fatal(err)
		}
		if err := out[0].Err; row.code == "" && err != nil || row.code != "" && (errs.CodeOf(err) != row.code || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s %.60s %s: %v; want %s %q", row.topic, row.p.Message, row.p.Subject, err, row.code, row.says)
		}
	}
	if _, err := w.PublishTopic(t.Context(), "nothere", bus.Publication{Message: text}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("a topic that is not there: %v", err)
	}
	if err := w.DeleteTopic(t.Context(), "nothere"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("delete a topic that is not there: %v", err)
	}
	if err := w.DeleteTopic(t.Context(), "news"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PublishTopic(t.Context(), "news", bus.Publication{Message: text}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("a topic that was deleted: %v", err)
	}
	for _, tp := range []bus.Topic{{Name: ""}, {Name: "a b"}, {Name: "a.fifo"}, {Name: "a", FIFO: true}, {Name: "a", ContentDedup: true}, {Name: "a", Tenant: "x/y"}, {Name: strings.Repeat("x", 257)}} {
		if err := w.PutTopic(t.Context(), tp); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%+v: %v", tp, err)
		}
	}
}

// One with three texts gives each protocol its own.
func TestMessageFor_ChoosesByProtocol(t *testing.T) {
	t.Parallel()
	e := newEvent("1")
	e.Data = []byte(`{"default":"d","sqs":"q","lambda":5}`)
	if got := bus.MessageFor(e, "sqs"); string(got) != string(e.Data) {
		t.Errorf("without a structure: %s", got)
	}
	e.SetExtension("ebbstructured", true)
	for protocol, want := range map[string]string{"sqs": "q", "http": "d", "lambda": "d"} {
		if got := bus.MessageFor(e, protocol); string(got) != want {
			t.Errorf("%s: %s, want %s", protocol, got, want)
		}
	}
}

func TestPublishTopic_FIFOKeepsOrderAndDropsDuplicates(t *testing.T) {
	t.Parallel()
	for _, groupDedup := range []bool{false, true} {
		t.Run(fmt.Sprint(groupDedup), func(t *testing.T) {
			t.Parallel()
			var r target
			w := start(t, t.TempDir(), bus.Options{Partitions: 4, Deliver: &r})
			name := w.topic(t, bus.Topic{Name: "t.fifo", FIFO: true, GroupDedup: groupDedup})
			want := map[string][]string{}
			last := ""
			for i := range 30 {
				g := fmt.Sprint("g", i%3)
				n := w.note(t, "t.fifo", fmt.Sprintf("%s:d%d:%d", g, i, i))
				want[g] = append(want[g], fmt.Sprint(i))
				if n[0].Sequence <= last {
					t.Errorf("sequence %s after %s", n[0].Sequence, last)
				}
				last = n[0].Sequence
			}
			// The same dedup ID in the same group, and in another one.
			first := w.note(t, "t.fifo", "g0:same:a")[0].ID
			if again := w.note(t, "t.fifo", "g0:same:b")[0].ID; again != first {
				t.Errorf("a duplicate has the ID %s, the first %s", again, first)
			}
			w.note(t, "t.fifo", "g1:same:c")
			want["g0"] = append(want["g0"], "a")
			n := 31
			if groupDedup {
				want["g1"] = append(want["g1"], "c")
				n++
			}
			w.states(t, name, map[bus.State]int{bus.Done: n})
			got := map[string][]string{}
			for _, d := range r.all() {
				g := d.Event.Extension(bus.PartitionKey)
				got[g] = append(got[g], string(d.Event.Data))
				if bus.Dedup(d.Event) == "" {
					t.Errorf("no dedup ID on %+v", d.Event)
				}
			}
			for g := range want {
				if !slices.Equal(got[g], want[g]) {
					t.Errorf("%s: %v, want %v", g, got[g], want[g])
				}
			}
		})
	}
}

// A topic that was deleted and made again knows nothing of the old one's duplicates.
func TestPublishTopic_NewTopicHasNewDuplicates(t *testing.T) {
	t.Parallel()
	var r target
	w := start(t, t.TempDir(), bus.Options{Deliver: &r})
	tp := bus.Topic{Name: "t.fifo", FIFO: true, ContentDedup: true}
	name := w.topic(t, tp)
	first := w.note(t, "t.fifo", "g::a", "g::a", "g::b")[0].ID
	w.states(t, name, map[bus.State]int{bus.Done: 2})
	if err := w.PutTopic(t.Context(), tp); err != nil { // the same topic still
		t.Fatal(err)
	}
	if again := w.note(t, "t.fifo", "g::a")[0].ID; again != first {
		t.Error("a topic whose settings are put again has another number")
	}
	if err := w.DeleteTopic(t.Context(), "t.fifo"); err != nil {
		t.Fatal(err)
	}
	if err := w.PutTopic(t.Context(), tp); err != nil {
		t.Fatal(err)
	}
	w.note(t, "t.fifo", "g::a")
	w.states(t, name, map[bus.State]int{bus.Done: 3})
}

func TestTopics_ComeOutTheSameFromTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := start(t, dir, bus.Options{Partitions: 4})
	for i := range 20 {
		tp := bus.Topic{Name: fmt.Sprint("t", i), Tags: map[string]string{"n": fmt.Sprint(i)}}
		if err := w.PutTopic(t.Context(), tp); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			tp.Tags["n"] = "changed"
			if err := w.PutTopic(t.Context(), tp); err != nil {
				t.Fatal(err)
			}
		}
		if i%5 == 0 {
			if err := w.DeleteTopic(t.Context(), tp.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := w.topicNames(t)
	if len(before) != 16 || !slices.IsSorted(before) || before[0] != `{"tenant":"default","name":"t1","tags":{"n":"1"}}` {
		t.Errorf("%v", before)
	}
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, w.opt)
	if after := w.topicNames(t); !slices.Equal(before, after) {
		t.Errorf("%v\nwas %v", after, before)
	}
}

// Topics whose items were purged from the log stand, with their numbers.
func TestTopics_SurviveThePurgeOfTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := bus.SweepQueues(bus.Sweep(bus.Options{Partitions: 1, Retention: time.Millisecond, DedupWindow: time.Hour}, 10*time.Millisecond), 10*time.Millisecond)
	o.DedupWindow = time.Millisecond
	w := start(t, dir, o)
	first := func() uint64 {
		s, err := w.conn.JetStream().Stream(t.Context(), "EBB_BUS_0")
		if err != nil {
			t.Fatal(err)
		}
		var st jetstream.StreamState = s.CachedInfo().State
		return st.FirstSeq
	}
	for _, name := range []string{"gone", "stays", "stays.fifo"} {
		if err := w.PutTopic(t.Context(), bus.Topic{Name: name, FIFO: name == "stays.fifo"}); err != nil {
			t.Fatal(err)
		}
	}
	id := w.note(t, "stays.fifo", "g:d:x")[0].ID
	if err := w.DeleteTopic(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := w.PutTopic(t.Context(), bus.Topic{Name: "stays", Tags: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	var until20 uint64 = 20
	until(t, "purge", func() (bool, error) {
		w.publish(t, newEvent(fmt.Sprint(time.Now().UnixNano())))
		return first() > until20, nil
	})
	before := w.topicNames(t)
	if len(before) != 2 {
		t.Errorf("%v", before)
	}
	w.stop()
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	w = start(t, dir, w.opt)
	if after := w.topicNames(t); !slices.Equal(before, after) {
		t.Errorf("%v\nwas %v", after, before)
	}
	if again := w.note(t, "stays.fifo", "g:d:x")[0].ID; again != id {
		t.Error("the topic has another number")
	}
}

func TestTopics_WorkFromANodeThatIsNotTheOwner(t *testing.T) {
	t.Parallel()
	owner, other := pair(t)
	for _, tp := range []bus.Topic{{Name: "a"}, {Name: "b"}, {Name: "c.fifo", FIFO: true}} {
		if err := other.PutTopic(t.Context(), tp); err != nil {
			t.Fatal(err)
		}
	}
	if here, there := owner.topicNames(t), other.topicNames(t); len(here) != 3 || !slices.Equal(here, there) {
		t.Errorf("%v and %v", here, there)
	}
	if first, second := owner.note(t, "c.fifo", "g:d:x")[0].ID, other.note(t, "c.fifo", "g:d:x")[0].ID; first != second {
		t.Errorf("two nodes tell one publication as %s and %s", first, second)
	}
	other.note(t, "a", "x", "y")
	if err := owner.DeleteTopic(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	until(t, "the other node knows", func() (bool, error) {
		_, err := other.PublishTopic(t.Context(), "a", bus.Publication{Message: []byte("z")})
		return errs.CodeOf(err) == errs.NotFound, nil
	})
	if _, err := other.Topic(t.Context(), "nothere"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("%v", err)
	}
}

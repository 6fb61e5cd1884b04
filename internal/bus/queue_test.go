package bus_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

func (w *world) queue(t testing.TB, q bus.Queue) string {
	t.Helper()
	if err := w.PutQueue(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	return q.Key()
}

// send sends bodies; "group:body" where the queue is FIFO.
func (w *world) send(t testing.TB, queue string, bodies ...string) []bus.Sent {
	t.Helper()
	var msgs []bus.Message
	for _, b := range bodies {
		m := bus.Message{Body: []byte(b)}
		if strings.HasSuffix(queue, ".fifo") {
			m.Group, _, _ = strings.Cut(b, ":")
			m.Dedup, _, _ = strings.Cut(b, " ")
		}
		msgs = append(msgs, m)
	}
	out, err := w.Send(t.Context(), queue, msgs)
	for _, s := range out {
		if err == nil {
			err = s.Err
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// receive takes what there is, up to n, without waiting.
func (w *world) receive(t testing.TB, queue string, n int) []bus.Received {
	t.Helper()
	out, err := w.Receive(t.Context(), queue, bus.Receive{Max: n, Wait: new(time.Duration(0))})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// await takes n messages, and waits for them.
func (w *world) await(t testing.TB, queue string, n int) []bus.Received {
	t.Helper()
	var out []bus.Received
	until(t.(*testing.T), "messages", func() (bool, error) {
		got, err := w.Receive(t.Context(), queue, bus.Receive{Max: n - len(out), Wait: new(time.Second)})
		out = append(out, got...)
		return len(out) == n, err
	})
	return out
}

func bodies(msgs []bus.Received) []string {
	var out []string
	for _, m := range msgs {
		out = append(out, string(m.Body))
	}
	return out
}

func receipts(msgs []bus.Received) []string {
	var out []string
	for _, m := range msgs {
		out = append(out, m.Receipt)
	}
	return out
}

func (w *world) remove(t testing.TB, queue string, msgs []bus.Received) {
	t.Helper()
	for _, err := range w.DeleteMessages(t.Context(), queue, receipts(msgs)) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// show makes messages visible again at once.
func (w *world) show(t testing.TB, queue string, msgs []bus.Received) {
	t.Helper()
	var all []bus.VisibilityChange
	for _, r := range receipts(msgs) {
		all = append(all, bus.VisibilityChange{Receipt: r})
	}
	for _, err := range w.ChangeVisibility(t.Context(), queue, all) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) counted(t testing.TB, queue string, visible, inFlight, delayed int) {
	t.Helper()
	s, err := w.QueueStatus(t.Context(), queue)
	if err != nil || s.Visible != visible || s.InFlight != inFlight || s.Delayed != delayed {
		t.Errorf("%s has %d visible, %d in flight, %d delayed, %v; want %d, %d, %d", queue, s.Visible, s.InFlight, s.Delayed, err, visible, inFlight, delayed)
	}
}

func want(t testing.TB, got []bus.Received, bodiesWanted ...string) {
	t.Helper()
	if !slices.Equal(bodies(got), bodiesWanted) {
		t.Errorf("got %q, want %q", bodies(got), bodiesWanted)
	}
}

func TestQueue_GivesEachMessageWithAllItsSenderSaid(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 3})
	q := w.queue(t, bus.Queue{Name: "work"})
	m := bus.Message{Body: []byte("hello"), Trace: "Root=1", Sender: "AIDA", Attributes: map[string]invocation.Attribute{
		"n": {Type: "Number.int", Text: "5"}, "b": {Type: "Binary", Binary: []byte{0, 255}}}}
	before := time.Now().Add(-time.Second)
	sent, err := w.Send(t.Context(), "work", []bus.Message{m})
	if err != nil || sent[0].Err != nil || len(sent[0].ID) != 36 || sent[0].Sequence != "" {
		t.Fatalf("got %+v, %v", sent, err)
	}
	w.counted(t, q, 1, 0, 0)
	got := w.receive(t, q, 10)
	want(t, got, "hello")
	g := got[0]
	if g.ID != sent[0].ID || g.Trace != "Root=1" || g.Sender != "AIDA" || g.Attributes["n"].Text != "5" || string(g.Attributes["b"].Binary) != "\x00\xff" || g.Receives != 1 ||
		g.Sent.Before(before) || g.FirstReceived.Before(before) || g.Receipt == "" || g.DeadFrom != "" || time.Until(g.Visible) < 20*time.Second {
		t.Errorf("got %+v", g)
	}
	want(t, w.receive(t, q, 10))
	w.counted(t, q, 0, 1, 0)
	w.show(t, q, got)
	again := w.receive(t, q, 10)
	if len(again) != 1 || again[0].Receives != 2 || !again[0].FirstReceived.Equal(g.FirstReceived) || again[0].Receipt == g.Receipt {
		t.Errorf("got %+v", again)
	}
	w.remove(t, q, got) // an older receipt is as good
	w.remove(t, q, again)
	w.counted(t, q, 0, 0, 0)
	if err := w.ChangeVisibility(t.Context(), q, []bus.VisibilityChange{{Receipt: again[0].Receipt}})[0]; errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestQueue_RefusesWhatItsSettingsForbid(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	for name, q := range map[string]bus.Queue{
		"no name":        {},
		"a space":        {Name: "a b"},
		"a long name":    {Name: strings.Repeat("a", 81)},
		"fifo":           {Name: "a", FIFO: true},
		"not fifo":       {Name: "a.fifo"},
		"content":        {Name: "a", ContentDedup: true},
		"visibility":     {Name: "a", Visibility: new(13 * time.Hour)},
		"delay":          {Name: "a", Delay: 16 * time.Minute},
		"retention":      {Name: "a", Retention: time.Second},
		"size":           {Name: "a", MaxSize: bus.MaxMessage + 1},
		"its own dead":   {Name: "a", MaxReceives: 1, DeadLetters: "a"},
		"a tenant":       {Name: "a", Tenant: "x/y"},
		"another's kind": {Name: "a", MaxReceives: 1, DeadLetters: "b.fifo"},
		"receives":       {Name: "a", MaxReceives: 1001, DeadLetters: "b"},
	} {
		if err := w.PutQueue(t.Context(), q); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	w.queue(t, bus.Queue{Name: "s", MaxSize: 10})
	w.queue(t, bus.Queue{Name: "f.fifo", FIFO: true})
	for name, c := range map[string]struct {
		queue string
		m     bus.Message
		code  errs.Code
	}{
		"empty":       {"s", bus.Message{}, errs.Invalid},
		"large":       {"s", bus.Message{Body: make([]byte, 11)}, errs.TooLarge},
		"attributes":  {"s", bus.Message{Body: []byte("12345"), Attributes: map[string]invocation.Attribute{"abc": {Type: "String", Text: "x"}}}, errs.TooLarge},
		"dedup":       {"s", bus.Message{Body: []byte("1"), Dedup: "x"}, errs.Invalid},
		"long delay":  {"s", bus.Message{Body: []byte("1"), Delay: new(16 * time.Minute)}, errs.Invalid},
		"no group":    {"f.fifo", bus.Message{Body: []byte("1"), Dedup: "x"}, errs.Invalid},
		"no dedup":    {"f.fifo", bus.Message{Body: []byte("1"), Group: "x"}, errs.Invalid},
		"own delay":   {"f.fifo", bus.Message{Body: []byte("1"), Group: "x", Dedup: "x", Delay: new(time.Second)}, errs.Invalid},
		"long group":  {"f.fifo", bus.Message{Body: []byte("1"), Group: strings.Repeat("x", 129), Dedup: "x"}, errs.Invalid},
		"no argument": {"s", bus.Message{Body: []byte("1"), Attributes: map[string]invocation.Attribute{"": {}}}, errs.Invalid},
	} {
		// The others of a call are sent.
		good := bus.Message{Body: []byte("good")}
		if c.queue == "f.fifo" {
			good.Group, good.Dedup = "g", name
		}
		out, err := w.Send(t.Context(), c.queue, []bus.Message{good, c.m, good})
		if err != nil || out[0].Err != nil || out[2].Err != nil || errs.CodeOf(out[1].Err) != c.code || out[1].ID != "" {
			t.Errorf("%s: got %+v, %v", name, out, err)
		}
	}
	w.counted(t, "s", 12, 0, 0)
	for name, f := range map[string]func(q string) error{
		"send":    func(q string) error { _, err := w.Send(t.Context(), q, []bus.Message{{Body: []byte("x")}}); return err },
		"receive": func(q string) error { _, err := w.Receive(t.Context(), q, bus.Receive{}); return err },
		"delete":  func(q string) error { return w.DeleteMessages(t.Context(), q, []string{"0-1-1-1-1"})[0] },
		"change": func(q string) error {
			return w.ChangeVisibility(t.Context(), q, []bus.VisibilityChange{{Receipt: "0-1-1-1-1"}})[0]
		},
		"status":  func(q string) error { _, err := w.QueueStatus(t.Context(), q); return err },
		"purge":   func(q string) error { return w.PurgeQueue(t.Context(), q) },
		"drop":    func(q string) error { return w.DeleteQueue(t.Context(), q) },
		"peek":    func(q string) error { _, err := w.PeekQueue(t.Context(), q, "", 1); return err },
		"redrive": func(q string) error { _, err := w.RedriveQueue(t.Context(), bus.QueueRedrive{From: q}); return err },
	} {
		if err := f("none"); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("%s: got %v", name, err)
		}
	}
	got := w.receive(t, "s", 1)
	for _, r := range []string{"", "x", "0-1-1-1", "zz-1-1-1-1", strings.Replace(got[0].Receipt, "0-", "1-", 1), "0-999999-1-1-1"} {
		if err := w.DeleteMessages(t.Context(), "s", []string{r})[0]; errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: got %v", r, err)
		}
		// One of another queue is none of this.
		if err := w.DeleteMessages(t.Context(), "f.fifo", receipts(got))[0]; errs.CodeOf(err) != errs.Invalid {
			t.Errorf("got %v", err)
		}
	}
}

func TestQueue_HidesAndDelaysForAsLongAsAsked(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	q := w.queue(t, bus.Queue{Name: "q", Visibility: new(300 * time.Millisecond), Delay: 400 * time.Millisecond, Wait: 20 * time.Second})
	begin := time.Now()
	out, err := w.Send(t.Context(), q, []bus.Message{{Body: []byte("later")}, {Body: []byte("now"), Delay: new(time.Duration(0))}})
	if err != nil || out[0].Err != nil {
		t.Fatal(out, err)
	}
	w.counted(t, q, 1, 0, 1)
	got, err := w.Receive(t.Context(), q, bus.Receive{Max: 10})
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, "now")
	w.remove(t, q, got)
	// The wait is the queue's, and ends with the delay.
	if got, err = w.Receive(t.Context(), q, bus.Receive{Max: 10}); err != nil {
		t.Fatal(err)
	}
	want(t, got, "later")
	if d := time.Since(begin); d < 350*time.Millisecond {
		t.Errorf("it came after %v", d)
	}
	begin = time.Now()
	if got, err = w.Receive(t.Context(), q, bus.Receive{Max: 10, Visibility: new(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	want(t, got, "later")
	if d := time.Since(begin); d < 200*time.Millisecond || got[0].Receives != 2 {
		t.Errorf("it came after %v, for the time %d", d, got[0].Receives)
	}
	w.counted(t, q, 0, 1, 0)
	if err := w.ChangeVisibility(t.Context(), q, []bus.VisibilityChange{{Receipt: got[0].Receipt, Visibility: 100 * time.Millisecond}})[0]; err != nil {
		t.Fatal(err)
	}
	got = w.await(t, q, 1)
	want(t, got, "later")
	w.remove(t, q, got)
}

func TestQueue_WaitsForMessages(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	q := w.queue(t, bus.Queue{Name: "q"})
	const n = 20
	got := make(chan []bus.Received, n)
	for range n {
		go func() {
			r, err := w.Receive(t.Context(), q, bus.Receive{Max: 1, Wait: new(bus.MaxWait)})
			if err != nil {
				t.Error(err)
			}
			got <- r
		}()
	}
	for i := range n {
		w.send(t, q, fmt.Sprint(i))
	}
	seen := map[string]bool{}
	for range n {
		for _, m := range <-got {
			if seen[string(m.Body)] {
				t.Errorf("%s came twice", m.Body)
			}
			seen[string(m.Body)] = true
		}
	}
	if len(seen) != n {
		t.Errorf("%d came", len(seen))
	}
	// Who leaves takes nothing along.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Receive(ctx, q, bus.Receive{Max: 1, Wait: new(bus.MaxWait)}); err == nil {
		t.Error("no error")
	}
	w.send(t, q, "last")
	want(t, w.await(t, q, 1), "last")
}

func TestQueue_MovesWhatIsReceivedTooOften(t *testing.T) {
	t.Parallel()
	for _, fifo := range []string{"", ".fifo"} {
		for _, parts := range []int{1, 5} { // with five, the two are in different ones
			t.Run(fmt.Sprint(parts, fifo), func(t *testing.T) {
				t.Parallel()
				w := start(t, t.TempDir(), bus.Options{Partitions: parts})
				dead := w.queue(t, bus.Queue{Name: "dead" + fifo, FIFO: fifo != ""})
				q := w.queue(t, bus.Queue{Name: "source" + fifo, FIFO: fifo != "", MaxReceives: 2, DeadLetters: "dead" + fifo})
				sent := w.send(t, q, "g:bad", "g:worse", "h:good")
				for range 2 {
					got := w.await(t, q, 3)
					w.show(t, q, got[:len(got)-1])
					if got[len(got)-1].Receives == 1 {
						w.show(t, q, got[len(got)-1:])
					} else {
						w.remove(t, q, got[len(got)-1:])
					}
				}
				want(t, w.receive(t, q, 10))
				got := w.await(t, dead, 2)
				want(t, got, "g:bad", "g:worse")
				for i, m := range got {
					if m.DeadFrom != q || m.Receives != 1 || m.ID != sent[i].ID {
						t.Errorf("got %+v", m)
					}
				}
				// In another Partition they are removed after they are sent.
				until(t, "removed", func() (bool, error) {
					s, err := w.QueueStatus(t.Context(), q)
					return s.Visible+s.InFlight == 0, err
				})
				w.counted(t, dead, 0, 2, 0)
				w.show(t, dead, got)
				// One by its ID, then all.
				if n, err := w.RedriveQueue(t.Context(), bus.QueueRedrive{From: dead, IDs: []string{got[0].ID}}); n != 1 || err != nil {
					t.Fatal(n, err)
				}
				want(t, w.await(t, q, 1), "g:bad")
				steps := 0
				n, err := w.RedriveQueue(t.Context(), bus.QueueRedrive{From: dead, To: q, Moved: func(n int) error { steps += n; return nil }})
				if n != 1 || err != nil || steps != 1 {
					t.Fatal(n, err, steps)
				}
				w.counted(t, dead, 0, 0, 0)
				if fifo == "" {
					got = w.await(t, q, 1)
					want(t, got, "g:worse")
					if got[0].DeadFrom != "" || got[0].Receives != 1 {
						t.Errorf("got %+v", got)
					}
				} else {
					w.counted(t, q, 1, 1, 0)
				}
			})
		}
	}
}

func TestQueue_KeepsWhatItsDeadLetterQueueDoesNotTake(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 2})
	q := w.queue(t, bus.Queue{Name: "q", MaxReceives: 1, DeadLetters: "none"})
	w.send(t, q, "a")
	for i := range 3 {
		got := w.await(t, q, 1)
		if got[0].Receives != i+1 {
			t.Errorf("got %+v", got)
		}
		w.show(t, q, got)
	}
	if n, err := w.RedriveQueue(t.Context(), bus.QueueRedrive{From: q}); n != 0 || errs.CodeOf(err) != errs.Invalid {
		t.Error(n, err)
	}
	if _, err := w.RedriveQueue(t.Context(), bus.QueueRedrive{From: q, To: "none"}); errs.CodeOf(err) != errs.NotFound {
		t.Error(err)
	}
	w.counted(t, q, 1, 0, 0)
}

func TestQueue_FIFOGivesGroupsInOrderAndOneAtATime(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	q := w.queue(t, bus.Queue{Name: "q.fifo", FIFO: true})
	sent := w.send(t, q, "a:1", "a:2", "b:1", "a:3", "b:2", "c:1")
	for i := 1; i < len(sent); i++ {
		if sent[i].Sequence <= sent[i-1].Sequence || len(sent[i].Sequence) != 20 {
			t.Errorf("sequences are %+v", sent)
		}
	}
	first := w.receive(t, q, 2)
	want(t, first, "a:1", "a:2")
	if first[0].Sequence != sent[0].Sequence || first[0].Group != "a" || first[0].Dedup != "a:1" {
		t.Errorf("got %+v", first[0])
	}
	// Nothing of the group, though its third is visible.
	want(t, w.receive(t, q, 10), "b:1", "b:2", "c:1")
	want(t, w.receive(t, q, 10))
	w.remove(t, q, first[:1])
	want(t, w.receive(t, q, 10))
	w.show(t, q, first[1:])
	second := w.receive(t, q, 10)
	want(t, second, "a:2", "a:3")
	// The first receipt of the second message does not hold any more.
	if err := w.DeleteMessages(t.Context(), q, receipts(first[1:]))[0]; errs.CodeOf(err) != errs.Conflict {
		t.Errorf("got %v", err)
	}
	w.remove(t, q, second)
	if errs := w.DeleteMessages(t.Context(), q, receipts(second)); errs[0] != nil || errs[1] != nil {
		t.Errorf("got %v", errs)
	}
	w.counted(t, q, 0, 3, 0)
	// One that is visible again waits for another of its group that is still in flight.
	w.send(t, q, "d:1", "d:2")
	third := w.receive(t, q, 10)
	want(t, third, "d:1", "d:2")
	w.show(t, q, third[:1])
	want(t, w.receive(t, q, 10))
	w.show(t, q, third[1:])
	want(t, w.receive(t, q, 10), "d:1", "d:2")
}

func TestQueue_FIFODropsDuplicates(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{DedupWindow: time.Hour})
	q := w.queue(t, bus.Queue{Name: "q.fifo", FIFO: true, ContentDedup: true})
	msg := func(group, dedup, body string) bus.Message {
		return bus.Message{Group: group, Dedup: dedup, Body: []byte(body)}
	}
	out, err := w.Send(t.Context(), q, []bus.Message{msg("a", "", "x"), msg("a", "", "x"), msg("b", "", "x"), msg("a", "1", "x"), msg("a", "1", "y"), msg("a", "", "z")})
	if err != nil {
		t.Fatal(err)
	}
	for i, first := range []int{0, 0, 0, 3, 3, 5} {
		if out[i].Err != nil || out[i].ID != out[first].ID || out[i].Sequence != out[first].Sequence || out[i].Duplicate != (i != first) {
			t.Errorf("%d: got %+v", i, out[i])
		}
	}
	got := w.receive(t, q, 10)
	want(t, got, "x", "x", "z")
	w.remove(t, q, got)
	w.send(t, q, "a:1")
	if out, err := w.Send(t.Context(), q, []bus.Message{msg("a", "1", "again")}); err != nil || !out[0].Duplicate {
		t.Errorf("what was deleted is still known: %+v, %v", out, err)
	}
	perGroup := w.queue(t, bus.Queue{Name: "g.fifo", FIFO: true, GroupDedup: true})
	if out, err = w.Send(t.Context(), perGroup, []bus.Message{msg("a", "1", "x"), msg("b", "1", "x"), msg("a", "1", "x")}); err != nil || out[1].Duplicate || !out[2].Duplicate {
		t.Errorf("got %+v, %v", out, err)
	}
	short := start(t, t.TempDir(), bus.Options{DedupWindow: time.Millisecond})
	short.queue(t, bus.Queue{Name: "q.fifo", FIFO: true})
	short.send(t, "q.fifo", "a:1")
	until(t, "end of the window", func() (bool, error) {
		out, err := short.Send(t.Context(), "q.fifo", []bus.Message{msg("a", "a:1", "again")})
		return err == nil && !out[0].Duplicate, err
	})
}

func TestQueue_IsPurgedAndDeleted(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 2})
	for _, q := range []string{"default/q", "default/q.fifo"} {
		w.queue(t, bus.Queue{Name: q[len("default/"):], FIFO: strings.HasSuffix(q, "fifo"), Tags: map[string]string{"a": "b"}})
		w.send(t, q, "a", "b", "c")
		flight := w.receive(t, q, 1)
		if err := w.PurgeQueue(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		w.counted(t, q, 0, 0, 0)
		w.remove(t, q, flight) // says nothing
		w.send(t, q, "d")
		got := w.receive(t, q, 10)
		want(t, got, "d")
		w.show(t, q, got)
		if err := w.DeleteQueue(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if _, err := w.QueueStatus(t.Context(), q); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("got %v", err)
		}
		w.queue(t, bus.Queue{Name: q[len("default/"):], FIFO: strings.HasSuffix(q, "fifo")})
		w.counted(t, q, 0, 0, 0)
		w.send(t, q, "e")
		want(t, w.receive(t, q, 10), "e")
	}
	w.queue(t, bus.Queue{Name: "q", Tenant: "other"})
	all, err := w.Queues(t.Context())
	var names []string
	for _, q := range all {
		names = append(names, q.Key())
	}
	if err != nil || !slices.Equal(names, []string{"default/q", "default/q.fifo", "other/q"}) {
		t.Errorf("got %v, %v", names, err)
	}
}

func TestQueue_ShowsMessagesWithoutReceivingThem(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	q := w.queue(t, bus.Queue{Name: "q"})
	w.send(t, q, "a", "b", "c")
	page, err := w.PeekQueue(t.Context(), q, "", 2)
	if err != nil {
		t.Fatal(err)
	}
	want(t, page, "a", "b")
	if err := w.DeleteMessages(t.Context(), q, receipts(page))[0]; errs.CodeOf(err) != errs.Invalid {
		t.Errorf("got %v", err)
	}
	if page, err = w.PeekQueue(t.Context(), q, page[1].Receipt, 2); err != nil {
		t.Fatal(err)
	}
	want(t, page, "c")
	w.counted(t, q, 3, 0, 0)
}

// Many receivers and deleters at once: each message is given to one only.
func TestQueue_GivesNothingTwice(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"q", "q.fifo"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, t.TempDir(), bus.Options{})
			w.queue(t, bus.Queue{Name: name, FIFO: name != "q", Visibility: new(time.Hour)})
			const n = 1000
			var mu sync.Mutex
			seen, last := map[string]int{}, map[string]string{}
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for {
						got, err := w.Receive(t.Context(), name, bus.Receive{Max: 10, Wait: new(5 * time.Second)})
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						for _, m := range got {
							seen[string(m.Body)]++
							if m.Group != "" && m.Sequence <= last[m.Group] {
								t.Errorf("%s of %s came late", m.Body, m.Group)
							}
							last[m.Group] = m.Sequence
						}
						all := len(seen)
						mu.Unlock()
						w.remove(t, name, got)
						if all == n {
							return
						}
					}
				})
			}
			for g := range 4 {
				wg.Go(func() {
					for i := 0; i < n/4; i += 10 {
						var some []string
						for k := range 10 {
							some = append(some, fmt.Sprintf("%d%d:%d", g, k%3, i+k))
						}
						w.send(t, name, some...)
					}
				})
			}
			wg.Wait()
			for b, times := range seen {
				if times != 1 {
					t.Errorf("%s came %d times", b, times)
				}
			}
			w.counted(t, name, 0, 0, 0)
		})
	}
}

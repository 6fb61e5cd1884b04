package bus

import (
	"testing"
	"time"
)

// visible counts the messages of a queue that are visible at a time.
func (b *bench) visible(t *testing.T, key string, now int64) int {
	t.Helper()
	n := 0
	if _, err := b.folder.messages(t.Context(), "visible <= ?", []any{b.q.live[key].gen, now}, func(given, int64) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestQueueFold_TakesEachItemOnceAndGrantsOfTheNewestLeaseOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	put := jsonItem(kindQueuePut, queuePut{Queue: Queue{Name: "q"}, Nonce: "1"})
	b.add(t, put, jsonItem(kindLease, lease{"one", 7}))
	const key = DefaultTenant + "/q"
	gen := b.q.live[key].gen
	send := sendItem(sending{Queue: key, ID: "1", Nonce: "2"}, []byte("body"))
	b.add(t, send)
	seq := b.seq
	b.add(t, send) // written twice, after an answer was lost
	if n := b.visible(t, key, 100); n != 1 {
		t.Fatalf("%d messages", n)
	}
	e := []entry{{seq, 0, 1}}
	for name, g := range map[string]grant{
		"an older lease":    {Gen: gen, Epoch: 6, At: 50, Visible: 90, Entries: e},
		"a lease not taken": {Gen: gen, Epoch: 8, At: 50, Visible: 90, Entries: e},
		"before it is seen": {Gen: gen, Epoch: 7, At: 1, Visible: 90, Entries: e},
		"out of turn":       {Gen: gen, Epoch: 7, At: 50, Visible: 90, Entries: []entry{{seq, 0, 2}}},
		"another queue":     {Gen: gen + 1, Epoch: 7, At: 50, Visible: 90, Entries: e},
	} {
		for _, r := range b.add(t, jsonItem(kindReceived, g)).queues.grants {
			if r.ok[0] {
				t.Errorf("%s was given", name)
			}
		}
		if n := b.visible(t, key, 60); n != 1 {
			t.Errorf("%s hides it", name)
		}
	}
	good := jsonItem(kindReceived, grant{Gen: gen, Epoch: 7, Token: 3, At: 50, Visible: 90, Entries: e})
	if out := b.add(t, good).queues.grants; len(out) != 1 || !out[0].ok[0] || out[0].token != 3 {
		t.Errorf("got %+v", out)
	}
	if out := b.add(t, good).queues.grants; out[0].ok[0] {
		t.Error("given twice")
	}
	// While it is in flight nobody else gets it; moves by an older owner do nothing.
	if out := b.add(t, jsonItem(kindReceived, grant{Gen: gen, Epoch: 7, At: 80, Visible: 99, Entries: []entry{{seq, 0, 2}}})).queues.grants; out[0].ok[0] {
		t.Error("given while in flight")
	}
	b.add(t, jsonItem(kindSettled, settled{Gen: gen, Do: settleDrop, Epoch: 6, Entries: e}))
	b.add(t, jsonItem(kindSettled, settled{Gen: gen, Do: settleVisibility, At: 10, Entries: []entry{{seq, 0, 0}}}))
	if n := b.visible(t, key, 60); n != 0 || b.visible(t, key, 95) != 1 {
		t.Errorf("%d are visible", n)
	}
	b.add(t, jsonItem(kindSettled, settled{Gen: gen, Do: settleDelete, Entries: e}), jsonItem(kindSettled, settled{Gen: gen, Do: settleDelete, Entries: e}))
	var n int
	if _, err := b.x.one(t.Context(), []any{&n}, "SELECT n FROM queues"); err != nil || n != 0 || b.visible(t, key, 999) != 0 {
		t.Errorf("%d are left, %v", n, err)
	}
}

func TestParseReceipt_ReadsWhatIsWritten(t *testing.T) {
	t.Parallel()
	r := receipt{3, 1 << 40, 1 << 41, maxItems - 1, 1000}
	if got, err := parseReceipt(r.String()); err != nil || got != r {
		t.Errorf("got %+v, %v", got, err)
	}
}

func FuzzParseSend(f *testing.F) {
	f.Add(sendItem(sending{Queue: "q", ID: "1", Delay: new(time.Second.Milliseconds())}, []byte("body")).body)
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, body, err := parseSend(item{kind: kindSend, body: b})
		if err != nil {
			return
		}
		s2, body2, err := parseSend(sendItem(s, body))
		if err != nil || string(body2) != string(body) || s2.ID != s.ID {
			t.Fatalf("%+v, %v", s2, err)
		}
	})
}

func FuzzParseReceipt(f *testing.F) {
	f.Add("0-1-2-3-4")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := parseReceipt(s); err == nil {
			if again, err := parseReceipt(r.String()); err != nil || again != r {
				t.Fatalf("%+v, %v", again, err)
			}
		}
	})
}

package bus_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/errs"
)

func (w *world) stream(t testing.TB, s bus.Stream) {
	t.Helper()
	if err := w.PutStream(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// add puts "key:data" records, in one call.
func (w *world) add(t testing.TB, stream string, texts ...string) []bus.PutResult {
	t.Helper()
	var recs []bus.Record
	for _, s := range texts {
		key, _, _ := strings.Cut(s, ":")
		recs = append(recs, bus.Record{Key: key, Data: []byte(s)})
	}
	out, err := w.PutRecords(t.Context(), stream, recs)
	for _, r := range out {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) iterator(t testing.TB, stream, shard string, s bus.Start) string {
	t.Helper()
	it, err := w.Iterator(t.Context(), stream, shard, s)
	if err != nil {
		t.Fatal(err)
	}
	return it
}

// get reads once.
func (w *world) get(t testing.TB, it string, n int) bus.Got {
	t.Helper()
	g, err := w.GetRecords(t.Context(), it, bus.Get{Records: n})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func data(recs []bus.GotRecord) (out []string) {
	for _, r := range recs {
		out = append(out, string(r.Data))
	}
	return out
}

// shardData reads a shard from its beginning, n records at a time.
func (w *world) shardData(t testing.TB, stream, shard string, n int) (out []string) {
	t.Helper()
	for it := w.iterator(t, stream, shard, bus.Start{From: bus.TrimHorizon}); it != ""; {
		g := w.get(t, it, n)
		out = append(out, data(g.Records)...)
		if it = g.Next; g.Behind == 0 {
			break
		}
	}
	return out
}

func (w *world) shards(t testing.TB, stream string) []bus.Shard {
	t.Helper()
	s, err := w.StreamStatus(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.List
}

const shard0 = "shardId-000000000000"

func TestStream_KeepsRecordsOfAKeyInOrderInOneShard(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{Partitions: 3})
	w.stream(t, bus.Stream{Name: "s", Shards: 4, Tags: map[string]string{"a": "b"}})
	want := map[string][]string{}
	last := map[string]string{}
	for i := range 40 {
		var some []string
		for k := range 5 {
			some = append(some, fmt.Sprintf("k%d:%d", k, i))
		}
		for k, r := range w.add(t, "s", some...) {
			key := fmt.Sprint("k", k)
			if len(r.Sequence) != 22 || r.Sequence <= last[r.Shard] {
				t.Fatalf("sequence %s after %s", r.Sequence, last[r.Shard])
			}
			last[r.Shard] = r.Sequence
			want[r.Shard] = append(want[r.Shard], fmt.Sprintf("%s:%d", key, i))
		}
	}
	st, err := w.StreamStatus(t.Context(), "s")
	if err != nil || st.Records != 200 || len(st.List) != 4 || st.Shards != 4 || st.Tags["a"] != "b" || st.List[0].First != "0" || st.List[3].Last != "340282366920938463463374607431768211455" {
		t.Errorf("%+v, %v", st, err)
	}
	for _, n := range []int{1, 7, 0} {
		for _, h := range st.List {
			if got := w.shardData(t, "s", h.ID, n); !slices.Equal(got, want[h.ID]) {
				t.Errorf("%s, %d at a time: got %q\nwant %q", h.ID, n, got, want[h.ID])
			}
		}
	}
	// A hash key of its own chooses the shard.
	out, err := w.PutRecords(t.Context(), "s", []bus.Record{{Key: "k0", HashKey: "0", Data: []byte("first")}, {Key: "k0", HashKey: st.List[3].Last, Data: []byte("last")}})
	if err != nil || out[0].Shard != st.List[0].ID || out[1].Shard != st.List[3].ID {
		t.Errorf("got %+v, %v", out, err)
	}
	g := w.get(t, w.iterator(t, "s", out[1].Shard, bus.Start{From: bus.AtSequence, Sequence: out[1].Sequence}), 0)
	if len(g.Records) != 1 || g.Records[0].HashKey != st.List[3].Last || g.Records[0].Key != "k0" || g.Records[0].Sequence != out[1].Sequence || time.Since(g.Records[0].Arrived) > time.Hour {
		t.Errorf("got %+v", g)
	}
}

func TestStream_RefusesRecordsOneByOne(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	if _, err := w.PutRecords(t.Context(), "none", []bus.Record{{Key: "k"}}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
	w.stream(t, bus.Stream{Name: "s"})
	out, err := w.PutRecords(t.Context(), "s", []bus.Record{
		{Data: []byte("no key")}, {Key: "k", Data: []byte("good")}, {Key: strings.Repeat("k", 257)}, {Key: "k", HashKey: "340282366920938463463374607431768211456"}, {Key: "k", HashKey: "-1"},
		{Key: "k", HashKey: "x"}, {Key: "k", Data: make([]byte, bus.MaxRecord)}, {Key: strings.Repeat("ü", 256)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, code := range []errs.Code{errs.Invalid, "", errs.Invalid, errs.Invalid, errs.Invalid, errs.Invalid, errs.TooLarge, ""} {
		if out[i].Err != nil && errs.CodeOf(out[i].Err) != code || out[i].Err == nil && code != "" {
			t.Errorf("%d: got %v, want %s", i, out[i].Err, code)
		}
	}
	if got := w.shardData(t, "s", shard0, 0); !slices.Equal(got, []string{"good", ""}) {
		t.Errorf("got %q", got)
	}
	if _, err := w.PutRecords(t.Context(), "s", make([]bus.Record, bus.MaxPut+1)); errs.CodeOf(err) != errs.TooLarge {
		t.Errorf("got %v", err)
	}
	for name, s := range map[string]bus.Stream{"name": {}, "shards": {Name: "a", Shards: bus.MaxShards + 1}, "short": {Name: "a", Retention: time.Hour}, "long": {Name: "a", Retention: 366 * 24 * time.Hour}, "space": {Name: "a b"}} {
		if err := w.PutStream(t.Context(), s); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := w.DeleteStream(t.Context(), "none"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestStream_IteratorsBeginWhereTheySay(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	out := w.add(t, "s", "k:1", "k:2", "k:3")
	time.Sleep(2 * time.Millisecond) // the clock of the log is one of milliseconds
	out = append(out, w.add(t, "s", "k:4")...)
	fourth := w.get(t, w.iterator(t, "s", shard0, bus.Start{From: bus.AtSequence, Sequence: out[3].Sequence}), 0).Records[0].Arrived
	latest := w.iterator(t, "s", shard0, bus.Start{From: bus.Latest})
	future := w.iterator(t, "s", shard0, bus.Start{From: bus.AtTimestamp, Time: time.Now().Add(time.Hour)})
	begin := w.shards(t, "s")[0].Begin
	for name, c := range map[string]struct {
		from bus.Start
		want []string
	}{
		"trim horizon":     {bus.Start{From: bus.TrimHorizon}, []string{"k:1", "k:2", "k:3", "k:4"}},
		"latest":           {bus.Start{From: bus.Latest}, nil},
		"at":               {bus.Start{From: bus.AtSequence, Sequence: out[1].Sequence}, []string{"k:2", "k:3", "k:4"}},
		"after":            {bus.Start{From: bus.AfterSequence, Sequence: out[1].Sequence}, []string{"k:3", "k:4"}},
		"after the last":   {bus.Start{From: bus.AfterSequence, Sequence: out[3].Sequence}, nil},
		"at the beginning": {bus.Start{From: bus.AtSequence, Sequence: begin}, []string{"k:1", "k:2", "k:3", "k:4"}},
		"a time":           {bus.Start{From: bus.AtTimestamp, Time: fourth}, []string{"k:4"}},
		"an old time":      {bus.Start{From: bus.AtTimestamp, Time: time.Unix(1, 0)}, []string{"k:1", "k:2", "k:3", "k:4"}},
	} {
		if g := w.get(t, w.iterator(t, "s", shard0, c.from), 0); !slices.Equal(data(g.Records), c.want) || g.Behind != 0 || g.Next == "" {
			t.Errorf("%s: got %q, behind %v", name, data(g.Records), g.Behind)
		}
	}
	if g := w.get(t, w.iterator(t, "s", shard0, bus.Start{From: bus.TrimHorizon}), 3); g.Behind <= 0 {
		t.Errorf("behind %v", g.Behind)
	}
	w.add(t, "s", "k:5")
	for name, it := range map[string]string{"latest": latest, "future": future} {
		if g := w.get(t, it, 0); !slices.Equal(data(g.Records), []string{"k:5"}) {
			t.Errorf("%s, then a record: got %q", name, data(g.Records))
		}
	}
	for name, c := range map[string]bus.Start{"none": {}, "no number": {From: bus.AtSequence, Sequence: "1"}, "a number of nothing": {From: bus.AfterSequence, Sequence: "4900000000000000000001"}, "no time": {From: bus.AtTimestamp}} {
		if _, err := w.Iterator(t.Context(), "s", shard0, c); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := w.Iterator(t.Context(), "s", "shardId-000000000001", bus.Start{From: bus.Latest}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("got %v", err)
	}
	if _, err := w.GetRecords(t.Context(), bus.OldIterator(latest), bus.Get{}); !errors.Is(err, bus.ErrIteratorExpired) {
		t.Errorf("got %v", err)
	}
	if err := w.DeleteStream(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	w.stream(t, bus.Stream{Name: "s"})
	if _, err := w.GetRecords(t.Context(), latest, bus.Get{}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("the iterator of a deleted stream: got %v", err)
	}
	if got := w.shardData(t, "s", shard0, 0); len(got) != 0 {
		t.Errorf("a stream made anew holds %q", got)
	}
}

func TestStream_GivesBytesUpToALimit(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	var recs []bus.Record
	for range 20 {
		recs = append(recs, bus.Record{Key: "k", Data: make([]byte, 800<<10)})
	}
	if _, err := w.PutRecords(t.Context(), "s", recs); err != nil {
		t.Fatal(err)
	}
	it, sum := w.iterator(t, "s", shard0, bus.Start{From: bus.TrimHorizon}), 0
	for sum < 20 {
		g, err := w.GetRecords(t.Context(), it, bus.Get{Bytes: 2 << 20})
		if err != nil || len(g.Records) == 0 || len(g.Records) > 2 {
			t.Fatalf("%d records, %v", len(g.Records), err)
		}
		sum, it = sum+len(g.Records), g.Next
	}
}

// Shards are split and merged; what was in the old ones stays there, and every record is in one that held its hash.
func TestStream_ChangesItsShards(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s", Shards: 2})
	want := map[string][]string{}
	n := 0
	put := func() {
		for range 20 {
			n++
			r := w.add(t, "s", fmt.Sprintf("%d:x", n))[0]
			want[r.Shard] = append(want[r.Shard], fmt.Sprintf("%d:x", n))
		}
	}
	put()
	done := make(chan error)
	go func() { done <- w.PutStream(t.Context(), bus.Stream{Name: "s", Shards: 3}) }()
	for busy := true; busy; put() { // also while they change
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			busy = false
		default:
		}
	}
	all := w.shards(t, "s")
	if len(all) != 5 || all[0].End == "" || all[1].End == "" || all[2].End != "" || !slices.Equal(all[3].Parents, []string{all[0].ID, all[1].ID}) {
		t.Fatalf("got %+v", all)
	}
	if err := w.SplitShard(t.Context(), "s", all[2].ID, "5"); err != nil {
		t.Fatal(err)
	}
	put()
	if err := w.MergeShards(t.Context(), "s", all[4].ID, all[3].ID); err != nil {
		t.Fatal(err)
	}
	put()
	for name, err := range map[string]error{
		"closed":   w.SplitShard(t.Context(), "s", all[2].ID, "5"),
		"outside":  w.SplitShard(t.Context(), "s", "shardId-000000000006", "1"),
		"far away": w.MergeShards(t.Context(), "s", "shardId-000000000005", "shardId-000000000007"),
	} {
		if code := errs.CodeOf(err); code != errs.Invalid && code != errs.Conflict {
			t.Errorf("%s: got %v", name, err)
		}
	}
	st, err := w.StreamStatus(t.Context(), "s")
	if err != nil || st.Shards != 3 || len(st.List) != 8 || st.Records != n {
		t.Fatalf("%d shards, %d of %d records, %v", st.Shards, st.Records, n, err)
	}
	for _, h := range st.List {
		if got := w.shardData(t, "s", h.ID, 7); !slices.Equal(got, want[h.ID]) {
			t.Errorf("%s: got %q\nwant %q", h.ID, got, want[h.ID])
		}
		g := w.get(t, w.iterator(t, "s", h.ID, bus.Start{From: bus.TrimHorizon}), 0)
		for g.Behind > 0 && g.Next != "" { // as many as were put while the shards changed
			g = w.get(t, g.Next, 0)
		}
		if (g.Next == "") != (h.End != "") || (len(g.Children) > 0) != (h.End != "") {
			t.Errorf("%s: next %q, children %+v", h.ID, g.Next, g.Children)
		}
	}
}

// What is too old is not given, also where the index has it yet; and a mapping passes over it.
func TestStream_GivesNothingThatIsTooOld(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), bus.Options{})
	w.stream(t, bus.Stream{Name: "s"})
	w.add(t, "s", "k:old")
	bus.RetainStream(w.Bus, "s", time.Millisecond)
	time.Sleep(3 * time.Millisecond) // the clock of the log is one of milliseconds
	if st, err := w.StreamStatus(t.Context(), "s"); err != nil || st.Records > 0 {
		t.Errorf("%d records, %v", st.Records, err)
	}
	if got := w.shardData(t, "s", shard0, 0); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	c := &consumer{}
	w.pollStream(t, bus.StreamMapping{}, c)
	until(t, "a start", func() (bool, error) {
		list, err := w.StreamMappings(t.Context())
		return len(list) == 1, err
	})
	bus.RetainStream(w.Bus, "s", 24*time.Hour)
	w.add(t, "s", "k:new")
	until(t, "what is new", func() (bool, error) { return slices.Contains(c.bodies(), "k:new"), nil })
}

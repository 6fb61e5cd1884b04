// Package storetest is the conformance suite that every implementation of store.Tables passes.
//
// Main function: [Tables].
//
// It knows no implementation.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

const tenant = "default"

// Tables runs the suite; open gives a new, empty store each time.
func Tables(t *testing.T, open func(t *testing.T) store.Tables) {
	t.Helper()
	for name, f := range map[string]func(*testing.T, store.Tables){
		"describes":       describes,
		"gives back":      givesBack,
		"orders":          orders,
		"ranges":          ranges,
		"indexes":         indexes,
		"fills":           fills,
		"segments":        segments,
		"all or nothing":  allOrNothing,
		"counts together": countsTogether,
		"records":         records,
		"expires":         expires,
		"tenants":         tenants,
		"leads":           leads,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, open(t))
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, s store.Tables, table store.Table) store.Table {
	t.Helper()
	made, err := s.Create(t.Context(), tenant, table)
	must(t, err)
	return made
}

// put returns a Change that puts an Item whatever is there.
func put(table string, it store.Item) store.Change {
	return store.Change{Table: table, Key: it, Apply: func(store.Item) (store.Item, error) { return it, nil }}
}

func remove(table string, key store.Item) store.Change {
	return store.Change{Table: table, Key: key, Apply: func(store.Item) (store.Item, error) { return nil, nil }}
}

func pair(h string, r store.Value) store.Item { return store.Item{"h": store.Text(h), "r": r} }

func plain(name string, rangeKind store.Kind) store.Table {
	t := store.Table{Name: name, Key: store.Key{Hash: store.Attr{Name: "h", Kind: store.S}}}
	if rangeKind != store.None {
		t.Key.Range = store.Attr{Name: "r", Kind: rangeKind}
	}
	return t
}

func describes(t *testing.T, s store.Tables) {
	made := create(t, s, plain("one", store.N))
	if made.ID == "" || made.Made.IsZero() {
		t.Errorf("made = %+v", made)
	}
	if _, err := s.Create(t.Context(), tenant, plain("one", store.S)); errs.CodeOf(err) != errs.Exists {
		t.Errorf("a second of the name: %v", err)
	}
	if _, err := s.Create(t.Context(), tenant, plain("bad", store.M)); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a map as key: %v", err)
	}
	if _, err := s.Table(t.Context(), tenant, "two"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an unknown table: %v", err)
	}
	create(t, s, plain("a", store.None))
	all, err := s.List(t.Context(), tenant)
	must(t, err)
	if len(all) != 2 || all[0].Name != "a" || all[1].Name != "one" {
		t.Errorf("all = %+v", all)
	}
	item := store.Item{"h": store.Text("x"), "r": store.Num("1")}
	must(t, s.Write(t.Context(), tenant, []store.Change{put("one", item)}))
	is, err := s.Table(t.Context(), tenant, "one")
	must(t, err)
	if is.Items != 1 || is.Bytes != int64(item.Size()) {
		t.Errorf("items = %d, bytes = %d", is.Items, is.Bytes)
	}
	_, err = s.Drop(t.Context(), tenant, "one")
	must(t, err)
	if err := s.Write(t.Context(), tenant, []store.Change{put("one", item)}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("a write to a deleted table: %v", err)
	}
	again := create(t, s, plain("one", store.N))
	if again.ID == made.ID {
		t.Error("a table made again has the ID of the old")
	}
	got, err := s.Get(t.Context(), tenant, []store.Lookup{{Table: "one", Key: item}})
	must(t, err)
	if got[0] != nil {
		t.Error("an item of the deleted table is there")
	}
}

func givesBack(t *testing.T, s store.Tables) {
	create(t, s, plain("t", store.None))
	item := store.Item{
		"h": store.Text("ключ\x00/"), "n": store.Num("12345678901234567890123456789012345678"), "b": store.Bytes([]byte{0, 255, 1}),
		"yes": {Kind: store.BOOL, Bool: true}, "no": {Kind: store.BOOL}, "null": {Kind: store.NULL}, "empty": store.Text(""),
		"ss": {Kind: store.SS, Set: []string{"a", "b"}}, "ns": {Kind: store.NS, Set: []string{"1", "2.5"}}, "bs": {Kind: store.BS, Set: []string{"\x00"}},
		"l": {Kind: store.L, List: []store.Value{store.Text("x"), {Kind: store.L}, {Kind: store.M, Map: store.Item{"deep": store.Num("-0.5")}}}},
		"m": {Kind: store.M, Map: store.Item{}},
	}
	must(t, s.Write(t.Context(), tenant, []store.Change{put("t", item)}))
	got, err := s.Get(t.Context(), tenant, []store.Lookup{{Table: "t", Key: item}, {Table: "t", Key: store.Item{"h": store.Text("other")}}})
	must(t, err)
	if !got[0].Equal(item) || got[1] != nil {
		t.Errorf("got %+v", got)
	}
	must(t, s.Write(t.Context(), tenant, []store.Change{remove("t", item)}))
	must(t, s.Write(t.Context(), tenant, []store.Change{remove("t", item)}))
	if got, err = s.Get(t.Context(), tenant, []store.Lookup{{Table: "t", Key: item}}); err != nil || got[0] != nil {
		t.Errorf("after its removal: %v %v", got, err)
	}
	if _, err := s.Get(t.Context(), tenant, []store.Lookup{{Table: "t", Key: store.Item{"h": store.Num("1")}}}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("a key of another kind: %v", err)
	}
}

// Numbers in their order, from the least to the greatest there is.
var ordered = []string{
	"-9.9999999999999999999999999999999999999E+125", "-1000", "-100", "-99.1", "-99", "-11", "-10.5", "-10", "-9", "-1.1", "-1.01", "-1", "-0.1", "-0.09", "-1E-130", "0", "1E-130", "0.009", "0.01", "0.011", "0.1", "0.99",
	"1", "1.0000000000000000000000000000000000001", "1.5", "2", "9", "10", "10.01", "11", "99", "99.1", "100", "101", "1000", "12345678901234567890123456789012345678", "1E125", "9.9999999999999999999999999999999999999E+125",
}

func orders(t *testing.T, s store.Tables) {
	for _, kind := range []store.Kind{store.N, store.S, store.B} {
		create(t, s, plain(kind.String()+"-table", kind))
		var want []store.Value
		switch kind {
		case store.N:
			for _, text := range ordered {
				n, err := store.ParseNumber(text)
				must(t, err)
				want = append(want, store.Num(n.String()))
			}
		default:
			for _, text := range []string{"\x00", "\x00\x00", "\x01", "a", "a\x00", "a\x00b", "aa", "ab", "b", "é", "￿", "😀", "\xff", "\xff\xff"} {
				if kind == store.B || text[0] != '\xff' {
					want = append(want, store.Value{Kind: kind, Str: text})
				}
			}
		}
		var changes []store.Change
		for i := range want {
			changes = append(changes, put(kind.String()+"-table", pair("h", want[(i*7+3)%len(want)])), put(kind.String()+"-table", pair("h2", want[i])))
		}
		seen := map[string]bool{}
		changes = slices.DeleteFunc(changes, func(c store.Change) bool {
			id := c.Key["h"].Str + " " + c.Key["r"].Str
			defer func() { seen[id] = true }()
			return seen[id]
		})
		must(t, s.Write(t.Context(), tenant, changes))
		for _, q := range []store.Query{{Hash: store.Text("h2")}, {Hash: store.Text("h2"), Descending: true}} {
			q.Table = kind.String() + "-table"
			got := collect(t, s, q)
			expect := slices.Clone(want)
			if q.Descending {
				slices.Reverse(expect)
			}
			if !slices.EqualFunc(got, expect, func(it store.Item, v store.Value) bool { return it["r"].Equal(v) }) {
				t.Errorf("%s descending %v: got %v, want %v", kind, q.Descending, got, expect)
			}
		}
	}
}

func collect(t *testing.T, s store.Tables, q store.Query) (all []store.Item) {
	t.Helper()
	must(t, s.Query(t.Context(), tenant, q, func(it store.Item) bool { all = append(all, it); return true }))
	return all
}

func ranges(t *testing.T, s store.Tables) {
	create(t, s, plain("n", store.N))
	create(t, s, plain("s", store.S))
	var changes []store.Change
	for i := range 10 {
		changes = append(changes, put("n", pair("h", store.Num(strconv.Itoa(i)))), put("n", pair("g", store.Num(strconv.Itoa(i)))))
	}
	for _, text := range []string{"a", "ab", "abc", "abd", "ac", "b", "\U0010ffff", "\U0010ffffx"} {
		changes = append(changes, put("s", pair("h", store.Text(text))))
	}
	must(t, s.Write(t.Context(), tenant, changes))
	num := func(i int) store.Value { return store.Num(strconv.Itoa(i)) }
	for name, test := range map[string]struct {
		q    store.Query
		want []string
	}{
		"equal":         {store.Query{Table: "n", Low: store.Bound{Value: num(3)}, High: store.Bound{Value: num(3)}}, []string{"3"}},
		"between":       {store.Query{Table: "n", Low: store.Bound{Value: num(3)}, High: store.Bound{Value: num(5)}}, []string{"3", "4", "5"}},
		"open ends":     {store.Query{Table: "n", Low: store.Bound{Value: num(3), Not: true}, High: store.Bound{Value: num(6), Not: true}}, []string{"4", "5"}},
		"below, down":   {store.Query{Table: "n", High: store.Bound{Value: num(2)}, Descending: true}, []string{"2", "1", "0"}},
		"after":         {store.Query{Table: "n", Low: store.Bound{Value: num(6)}, After: pair("h", num(7))}, []string{"8", "9"}},
		"before, down":  {store.Query{Table: "n", Descending: true, After: pair("h", num(2))}, []string{"1", "0"}},
		"prefix":        {store.Query{Table: "s", Prefix: store.Text("ab")}, []string{"ab", "abc", "abd"}},
		"last prefix":   {store.Query{Table: "s", Prefix: store.Text("\U0010ffff")}, []string{"\U0010ffff", "\U0010ffffx"}},
		"not there":     {store.Query{Table: "s", Prefix: store.Text("x")}, nil},
		"empty prefix":  {store.Query{Table: "s", Prefix: store.Text(""), High: store.Bound{Value: store.Text("ab")}}, []string{"a", "ab"}},
		"between texts": {store.Query{Table: "s", Low: store.Bound{Value: store.Text("abc")}, High: store.Bound{Value: store.Text("b")}}, []string{"abc", "abd", "ac", "b"}},
	} {
		test.q.Hash = store.Text("h")
		var got []string
		for _, it := range collect(t, s, test.q) {
			got = append(got, it["r"].Str)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	n := 0
	must(t, s.Query(t.Context(), tenant, store.Query{Table: "n", Hash: store.Text("h")}, func(store.Item) bool { n++; return n < 3 }))
	if n != 3 {
		t.Errorf("asked for 3, called %d times", n)
	}
}

func indexed() store.Table {
	t := plain("t", store.S)
	t.Indexes = []store.Index{
		{Name: "all", All: true, Key: store.Key{Hash: store.Attr{Name: "g", Kind: store.S}, Range: store.Attr{Name: "n", Kind: store.N}}},
		{Name: "keys", Key: store.Key{Hash: store.Attr{Name: "g", Kind: store.S}}},
		{Name: "local", Local: true, Attrs: []string{"x"}, Key: store.Key{Hash: store.Attr{Name: "h", Kind: store.S}, Range: store.Attr{Name: "n", Kind: store.N}}},
	}
	return t
}

func row(h, r, g, n, x string) store.Item {
	it := store.Item{"h": store.Text(h), "r": store.Text(r), "x": store.Text(x), "y": store.Text("y")}
	if g != "" {
		it["g"] = store.Text(g)
	}
	if n != "" {
		it["n"] = store.Num(n)
	}
	return it
}

// texts shows Items as the values of their h and r.
func texts(items []store.Item) (all []string) {
	for _, it := range items {
		all = append(all, it["h"].Str+it["r"].Str)
	}
	return all
}

func indexes(t *testing.T, s store.Tables) {
	create(t, s, indexed())
	must(t, s.Write(t.Context(), tenant, []store.Change{
		put("t", row("a", "1", "G", "3", "x")), put("t", row("a", "2", "G", "1", "x")), put("t", row("b", "1", "G", "2", "x")),
		put("t", row("b", "2", "G", "", "x")), put("t", row("b", "3", "", "1", "x")),
	}))
	if got := texts(collect(t, s, store.Query{Table: "t", Index: "all", Hash: store.Text("G")})); !slices.Equal(got, []string{"a2", "b1", "a1"}) {
		t.Errorf("all: %v", got)
	}
	if got := collect(t, s, store.Query{Table: "t", Index: "keys", Hash: store.Text("G")}); len(got) != 4 || len(got[0]) != 3 {
		t.Errorf("keys: %v", got)
	}
	if got := collect(t, s, store.Query{Table: "t", Index: "local", Hash: store.Text("b")}); len(got) != 2 || got[0]["r"].Str != "3" || len(got[0]) != 4 {
		t.Errorf("local: %v", got)
	}
	// An item moves, one leaves the index, one goes.
	must(t, s.Write(t.Context(), tenant, []store.Change{put("t", row("a", "2", "G", "9", "x")), put("t", row("b", "1", "", "2", "x")), remove("t", row("a", "1", "", "", ""))}))
	if got := texts(collect(t, s, store.Query{Table: "t", Index: "all", Hash: store.Text("G")})); !slices.Equal(got, []string{"a2"}) {
		t.Errorf("all, after changes: %v", got)
	}
	above := store.Query{Table: "t", Index: "all", Hash: store.Text("G"), Low: store.Bound{Value: store.Num("5")}}
	if got := texts(collect(t, s, above)); !slices.Equal(got, []string{"a2"}) {
		t.Errorf("an item that moved within a hash key is not at its new place: %v", got)
	}
	// Pages of one by one see each once, with equal index keys too.
	var changes []store.Change
	for i := range 20 {
		changes = append(changes, put("t", row("p"+strconv.Itoa(i%3), strconv.Itoa(i), "same", "7", "x")))
	}
	must(t, s.Write(t.Context(), tenant, changes))
	for _, down := range []bool{false, true} {
		seen := map[string]bool{}
		var after store.Item
		for {
			var one store.Item
			must(t, s.Query(t.Context(), tenant, store.Query{Table: "t", Index: "all", Hash: store.Text("same"), After: after, Descending: down}, func(it store.Item) bool { one = it; return false }))
			if one == nil {
				break
			}
			seen[texts([]store.Item{one})[0]] = true
			after = one
			if len(seen) > 20 {
				t.Fatal("more than there are")
			}
		}
		if len(seen) != 20 {
			t.Errorf("down %v: pages showed %d of 20", down, len(seen))
		}
	}
	if err := s.Query(t.Context(), tenant, store.Query{Table: "t", Index: "none", Hash: store.Text("G")}, nil); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an unknown index: %v", err)
	}
}

func fills(t *testing.T, s store.Tables) {
	create(t, s, plain("t", store.S))
	const n = 2500
	for i := 0; i < n; i += 100 {
		var changes []store.Change
		for j := i; j < i+100; j++ {
			changes = append(changes, put("t", row("a", strconv.Itoa(j), "G", strconv.Itoa(n-j), "x")))
		}
		must(t, s.Write(t.Context(), tenant, changes))
	}
	_, err := s.Alter(t.Context(), tenant, "t", func(is store.Table) (store.Table, error) {
		is.Indexes = indexed().Indexes[:1]
		return is, nil
	})
	must(t, err)
	got := collect(t, s, store.Query{Table: "t", Index: "all", Hash: store.Text("G")})
	if len(got) != n || got[0]["r"].Str != strconv.Itoa(n-1) {
		t.Errorf("the index shows %d of %d", len(got), n)
	}
	_, err = s.Alter(t.Context(), tenant, "t", func(is store.Table) (store.Table, error) { is.Indexes = nil; return is, nil })
	must(t, err)
	if err := s.Query(t.Context(), tenant, store.Query{Table: "t", Index: "all", Hash: store.Text("G")}, nil); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an index that is no more: %v", err)
	}
	if _, err := s.Alter(t.Context(), tenant, "t", func(is store.Table) (store.Table, error) { is.Key.Hash.Name = "other"; return is, nil }); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("another key: %v", err)
	}
}

func segments(t *testing.T, s store.Tables) {
	table := indexed()
	create(t, s, table)
	const n = 300
	var changes []store.Change
	for i := range n {
		changes = append(changes, put("t", row("k"+strconv.Itoa(i), "r", "g"+strconv.Itoa(i), "", "x")))
	}
	must(t, s.Write(t.Context(), tenant, changes))
	refused := 0
	for segment := range 2 {
		err := s.Scan(t.Context(), tenant, store.Scan{Table: "t", Segment: segment, Segments: 2, After: row("k1", "r", "g1", "", "x")}, func(store.Item) bool { return false })
		if errs.CodeOf(err) == errs.Invalid {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d of 2 segments refused a key to start behind", refused)
	}
	for _, index := range []string{"", "keys"} {
		for _, of := range []int{0, 1, 2, 7, 100, 5000} {
			seen := map[string]int{}
			for segment := range max(of, 1) {
				var after store.Item
				for {
					before := len(seen)
					must(t, s.Scan(t.Context(), tenant, store.Scan{Table: "t", Index: index, Segment: segment, Segments: of, After: after}, func(it store.Item) bool {
						seen[it["h"].Str]++
						after = it
						return len(seen)-before < 40
					}))
					if len(seen)-before < 40 {
						break
					}
				}
			}
			once := true
			for _, times := range seen {
				once = once && times == 1
			}
			if len(seen) != n || !once {
				t.Errorf("index %q, %d segments: saw %d of %d, each once: %v", index, of, len(seen), n, once)
			}
		}
	}
}

var errNo = errors.New("no")

func allOrNothing(t *testing.T, s store.Tables) {
	create(t, s, plain("a", store.None))
	create(t, s, plain("b", store.None))
	key := func(h string) store.Item { return store.Item{"h": store.Text(h)} }
	refuse := func(table string, k store.Item) store.Change {
		return store.Change{Table: table, Key: k, Apply: func(store.Item) (store.Item, error) { return nil, errNo }}
	}
	err := s.Write(t.Context(), tenant, []store.Change{put("a", key("1")), refuse("b", key("1")), put("b", key("2")), refuse("b", key("3"))})
	var aborted *store.Aborted
	if !errors.As(err, &aborted) || len(aborted.Errs) != 4 || aborted.Errs[0] != nil || !errors.Is(aborted.Errs[1], errNo) || aborted.Errs[2] != nil || !errors.Is(aborted.Errs[3], errNo) || !errors.Is(err, errNo) {
		t.Fatalf("err = %v", err)
	}
	got, err := s.Get(t.Context(), tenant, []store.Lookup{{Table: "a", Key: key("1")}, {Table: "b", Key: key("2")}})
	must(t, err)
	if got[0] != nil || got[1] != nil {
		t.Errorf("a part of a refused write is there: %v", got)
	}
	if err := s.Write(t.Context(), tenant, []store.Change{put("a", key("1")), put("a", key("1"))}); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("an item twice: %v", err)
	}
	other := store.Change{Table: "a", Key: key("1"), Apply: func(store.Item) (store.Item, error) { return key("2"), nil }}
	if err := s.Write(t.Context(), tenant, []store.Change{other}); errs.CodeOf(errors.Unwrap(err)) != errs.Invalid && errs.CodeOf(err) != errs.Invalid {
		t.Errorf("another key: %v", err)
	}
	if err := s.Write(t.Context(), tenant, []store.Change{put("a", key("1")), put("none", key("1"))}); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("an unknown table: %v", err)
	}
	panics := store.Change{Table: "a", Key: key("1"), Apply: func(store.Item) (store.Item, error) { panic("x") }}
	if err := s.Write(t.Context(), tenant, []store.Change{panics}); err == nil {
		t.Error("a panic was taken for a change")
	}
	must(t, s.Write(t.Context(), tenant, []store.Change{put("a", key("1")), put("b", key("2"))}))
}

// Many callers add to one number; none is lost.
func countsTogether(t *testing.T, s store.Tables) {
	create(t, s, plain("t", store.None))
	const callers, each = 16, 25
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for range each {
				err := s.Write(context.WithoutCancel(t.Context()), tenant, []store.Change{{Table: "t", Key: store.Item{"h": store.Text("n")}, Apply: func(old store.Item) (store.Item, error) {
					sum, err := old["n"].Number().Add(store.Num("1").Number())
					return store.Item{"h": store.Text("n"), "n": store.Num(sum.String())}, err
				}}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	got, err := s.Get(t.Context(), tenant, []store.Lookup{{Table: "t", Key: store.Item{"h": store.Text("n")}}})
	must(t, err)
	if got[0]["n"].Str != strconv.Itoa(callers*each) {
		t.Errorf("n = %s, want %d", got[0]["n"].Str, callers*each)
	}
}

func records(t *testing.T, s store.Tables) {
	table := plain("t", store.None)
	table.View, table.Label = store.BothViews, "1"
	create(t, s, table)
	create(t, s, plain("silent", store.None))
	changed := s.Changed()
	one, two := store.Item{"h": store.Text("k"), "v": store.Num("1")}, store.Item{"h": store.Text("k"), "v": store.Num("2")}
	must(t, s.Write(t.Context(), tenant, []store.Change{put("silent", one)}))
	select {
	case <-changed:
		t.Error("a table without a stream woke who waits")
	default:
	}
	for _, c := range []store.Change{put("t", one), put("t", two), put("t", two), remove("t", two), remove("t", two)} {
		must(t, s.Write(t.Context(), tenant, []store.Change{c}))
	}
	<-changed
	got, err := s.Records(t.Context(), tenant, "t", 0, 100)
	must(t, err)
	want := []store.Record{{Op: store.Insert, New: one}, {Op: store.Modify, Old: one, New: two}, {Op: store.Remove, Old: two}}
	if len(got) != len(want) {
		t.Fatalf("records = %+v", got)
	}
	for i, r := range got {
		if r.Op != want[i].Op || !r.Old.Equal(want[i].Old) || !r.New.Equal(want[i].New) || !r.Key.Equal(store.Item{"h": store.Text("k")}) || i > 0 && r.Seq <= got[i-1].Seq || r.At.IsZero() {
			t.Errorf("record %d = %+v", i, r)
		}
	}
	if last, err := s.Last(t.Context(), tenant, "t"); err != nil || last != got[2].Seq {
		t.Errorf("the last record is %d, want %d; %v", last, got[2].Seq, err)
	}
	rest, err := s.Records(t.Context(), tenant, "t", got[0].Seq, 1)
	must(t, err)
	if len(rest) != 1 || rest[0].Seq != got[1].Seq {
		t.Errorf("behind the first: %+v", rest)
	}
	for _, view := range []store.View{store.KeysOnly, store.NewImage, store.OldImage} {
		_, err := s.Alter(t.Context(), tenant, "t", func(is store.Table) (store.Table, error) { is.View, is.Label = view, string(view); return is, nil })
		must(t, err)
		must(t, s.Write(t.Context(), tenant, []store.Change{put("t", one)}))
		must(t, s.Write(t.Context(), tenant, []store.Change{put("t", two)}))
		got, err := s.Records(t.Context(), tenant, "t", 0, 100)
		must(t, err)
		if last := got[len(got)-1]; len(got) > 2 || (last.Old != nil) != (view == store.OldImage) || (last.New != nil) != (view == store.NewImage) {
			t.Errorf("%s: %+v", view, got)
		}
	}
}

func expires(t *testing.T, s store.Tables) {
	table := plain("t", store.None)
	table.TTL, table.View, table.Label = "ttl", store.KeysOnly, "1"
	create(t, s, table)
	now := time.Unix(1_900_000_000, 0)
	at := func(h string, v store.Value) store.Change {
		return put("t", store.Item{"h": store.Text(h), "ttl": v})
	}
	sec := func(d time.Duration) store.Value { return store.Num(fmt.Sprint(now.Add(d).Unix())) }
	must(t, s.Write(t.Context(), tenant, []store.Change{
		at("due", sec(-time.Minute)), at("later", sec(time.Minute)), at("text", store.Text(fmt.Sprint(now.Unix()-60))), at("ages ago", sec(-6*365*24*time.Hour)), at("moved", sec(-time.Minute)), at("none", store.Value{Kind: store.NULL}),
	}))
	must(t, s.Write(t.Context(), tenant, []store.Change{at("moved", sec(time.Hour))}))
	for more := true; more; {
		var err error
		more, err = s.Expire(t.Context(), now)
		must(t, err)
	}
	var left []string
	must(t, s.Scan(t.Context(), tenant, store.Scan{Table: "t"}, func(it store.Item) bool { left = append(left, it["h"].Str); return true }))
	slices.Sort(left)
	if !slices.Equal(left, []string{"ages ago", "later", "moved", "none", "text"}) {
		t.Errorf("left: %v", left)
	}
	// Turned on for a table that has items.
	old := plain("old", store.None)
	create(t, s, old)
	must(t, s.Write(t.Context(), tenant, []store.Change{put("old", store.Item{"h": store.Text("due"), "when": sec(-time.Second)})}))
	_, err := s.Alter(t.Context(), tenant, "old", func(is store.Table) (store.Table, error) { is.TTL = "when"; return is, nil })
	must(t, err)
	_, err = s.Expire(t.Context(), now)
	must(t, err)
	if is, _ := s.Table(t.Context(), tenant, "old"); is.Items != 0 {
		t.Error("an item from before stayed")
	}
}

func tenants(t *testing.T, s store.Tables) {
	create(t, s, plain("t", store.None))
	_, err := s.Create(t.Context(), "other", plain("t", store.None))
	must(t, err)
	item := store.Item{"h": store.Text("mine")}
	must(t, s.Write(t.Context(), tenant, []store.Change{put("t", item)}))
	got, err := s.Get(t.Context(), "other", []store.Lookup{{Table: "t", Key: item}})
	must(t, err)
	if got[0] != nil {
		t.Error("one tenant sees another's item")
	}
}

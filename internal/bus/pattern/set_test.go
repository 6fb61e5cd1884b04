package pattern_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/bus/pattern"
)

// maker writes patterns and events over few names and values, so that much of it meets.
type maker struct{ *rand.Rand }

func newMaker(seed uint64) maker { return maker{rand.New(rand.NewPCG(seed, 7))} }

func (m maker) pick(of ...string) string { return of[m.IntN(len(of))] }

func (m maker) key() string { return m.pick("a", "b", "c", "a.b", "d") }

func (m maker) text() string {
	return m.pick("", "x", "xy", "xyz", "X", "Yx", "aws.x", "10.0.0.1", "10.0.7.9", "::1", "0:0::1", "é", "*", "x*y", `\`)
}

func (m maker) quoted() string {
	b, _ := json.Marshal(m.text())
	return string(b)
}

func (m maker) number() string {
	return m.pick("0", "1", "1.0", "2", "-1", "1e1", "10", "0.5", "5e-1", "12345678901234567890123", "100", "99.5")
}

func (m maker) scalar() string {
	switch m.IntN(6) {
	case 0:
		return m.pick("null", "true", "false")
	case 1, 2:
		return m.number()
	}
	return m.quoted()
}

func (m maker) list(n int, f func() string) string {
	var all []string
	for range n {
		all = append(all, f())
	}
	return "[" + strings.Join(all, ",") + "]"
}

func (m maker) wildcard() string {
	return m.pick(`"x*"`, `"*y"`, `"*"`, `"x*z"`, `"*y*"`, `"x\\*y"`, `"xy"`, `"\\\\"`, `"*x*y*"`)
}

func (m maker) test() string {
	low := m.pick("0", "1", "-1", "0.5", "1e1")
	switch m.IntN(16) {
	case 0:
		return `{"prefix":` + m.quoted() + `}`
	case 1:
		return `{"suffix":` + m.quoted() + `}`
	case 2:
		return `{"` + m.pick("prefix", "suffix") + `":{"equals-ignore-case":` + m.quoted() + `}}`
	case 3:
		return `{"equals-ignore-case":` + m.quoted() + `}`
	case 4:
		return `{"wildcard":` + m.wildcard() + `}`
	case 5:
		return `{"exists":` + m.pick("true", "false", "false") + `}`
	case 6:
		return `{"numeric":["` + m.pick("=", "<", "<=", ">", ">=") + `",` + low + `]}`
	case 7:
		return `{"numeric":["` + m.pick(">", ">=") + `",` + low + `,"` + m.pick("<", "<=") + `",` + m.pick("10.5", "99.5", "11") + `]}`
	case 8:
		return `{"cidr":"` + m.pick("10.0.0.0/24", "10.0.0.0/16", "0.0.0.0/0", "::/0", "::1/127") + `"}`
	case 9:
		return `{"anything-but":` + m.list(1+m.IntN(2), m.quoted) + `}`
	case 10:
		return `{"anything-but":` + m.list(1, func() string { return m.pick("1", "2.0", "10") }) + `}`
	case 11:
		return `{"anything-but":{"` + m.pick("prefix", "suffix") + `":` + m.pick(`"x"`, `["y","z"]`, `"10."`) + `}}`
	case 12:
		return `{"anything-but":{"` + m.pick("wildcard", "equals-ignore-case") + `":` + m.pick(`"x*"`, `["y*","z"]`, `"XY"`) + `}}`
	}
	return m.scalar()
}

func (m maker) pattern(depth int, used map[string]bool, path string) string {
	var all []string
	for range 1 + m.IntN(3) {
		key := m.key()
		p := path + "." + key
		if used[p] {
			continue
		}
		used[p] = true
		b := func() string { return m.pattern(depth-1, used, p) }
		if depth > 0 && m.IntN(3) == 0 {
			all = append(all, `"`+key+`":`+b())
		} else {
			all = append(all, `"`+key+`":`+m.list(1+m.IntN(3), m.test))
		}
	}
	if depth > 0 && m.IntN(4) == 0 && !used[path+"$or"] {
		used[path+"$or"] = true
		all = append(all, `"$or":`+m.list(2, func() string { return m.pattern(depth-1, used, path) }))
	}
	if len(all) == 0 {
		return fmt.Sprintf(`{"u%d":%s}`, len(used)+m.IntN(1000), m.list(1, m.test))
	}
	return "{" + strings.Join(all, ",") + "}"
}

func (m maker) value(depth int) string {
	switch n := m.IntN(10); {
	case n < 3 && depth > 0:
		return m.event(depth - 1)
	case n < 6 && depth > 0:
		return m.list(m.IntN(4), func() string { return m.value(depth - 1) })
	}
	return m.scalar()
}

func (m maker) event(depth int) string {
	var all []string
	seen := map[string]bool{}
	for range 1 + m.IntN(5) {
		if key := m.key(); !seen[key] {
			seen[key] = true
			all = append(all, `"`+key+`":`+m.value(depth))
		}
	}
	return "{" + strings.Join(all, ",") + "}"
}

// agree builds a Set of generated Patterns, takes some out again, and compares it with the plain reading; it says how many
// pairs matched.
func agree(t *testing.T, seed uint64) int {
	m := newMaker(seed)
	set := pattern.NewSet[int]()
	sources := map[int]string{}
	for id := range 12 {
		source := m.pattern(2, map[string]bool{}, "")
		p, list := pattern.Compile([]byte(source), pattern.Options{})
		if p == nil {
			for _, d := range list { // the generator repeats a path now and then
				if d.Code != "pattern-twice" {
					t.Fatalf("%s: %v", source, list)
				}
			}
			continue
		}
		id /= 1 + m.IntN(2) // now and then in place of another
		set.Add(id, p)
		sources[id] = source
		if m.IntN(4) == 0 {
			gone := m.IntN(12)
			if _, there := sources[gone]; set.Remove(gone) != there {
				t.Fatal("Remove does not know what is there")
			}
			delete(sources, gone)
		}
	}
	if set.Len() != len(sources) {
		t.Fatalf("%d Patterns in the Set, not %d", set.Len(), len(sources))
	}
	met := 0
	for range 12 {
		event := m.event(3)
		got, err := set.Match([]byte(event), nil)
		if err != nil {
			t.Fatalf("%s: %v", event, err)
		}
		slices.Sort(got)
		var want []int
		for id, source := range sources {
			if naive(t, source, event) {
				want = append(want, id)
			}
			if p := must(t, source); true {
				if alone, err := p.Match([]byte(event)); err != nil || alone != naive(t, source, event) {
					t.Fatalf("%s\nagainst %s\ngives %v, %v alone", source, event, alone, err)
				}
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("event %s\ngot  %v\nwant %v\nof %v", event, got, want, sources)
		}
		met += len(want)
	}
	for id := range sources {
		set.Remove(id)
	}
	if ids, err := set.Match([]byte(m.event(3)), nil); len(ids) > 0 || err != nil || set.Len() != 0 {
		t.Fatalf("an emptied Set gives %v, %v", ids, err)
	}
	return met
}

func TestSet_AgreesWithThePlainReading(t *testing.T) {
	t.Parallel()
	met := 0
	for seed := range uint64(150) {
		met += agree(t, seed)
	}
	if met < 500 {
		t.Errorf("only %d matches: the generator tests too little", met)
	}
}

func FuzzSet(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { agree(t, seed) })
}

func TestSet_NamesEachPatternOnce(t *testing.T) {
	t.Parallel()
	set := pattern.NewSet[string]()
	set.Add("r", must(t, `{"$or":[{"a":["x",{"prefix":"x"},{"suffix":"x"}]},{"b":[1]},{"c":[{"exists":false}]}]}`))
	ids, err := set.Match([]byte(`{"a":["x","xx"],"b":1}`), []string{"before"})
	if err != nil || !slices.Equal(ids, []string{"before", "r"}) {
		t.Error(ids, err)
	}
}

func TestSet_MatchesWhileItChanges(t *testing.T) {
	t.Parallel()
	set := pattern.NewSet[int]()
	set.Add(-1, must(t, `{"source":["always"]}`))
	var wg sync.WaitGroup
	for w := range 4 {
		p := must(t, fmt.Sprintf(`{"source":["always","s%d"],"n":[{"numeric":[">",%d]}]}`, w, w))
		wg.Go(func() {
			for i := range 200 {
				set.Add(w*1000+i%10, p)
				ids, err := set.Match([]byte(`{"source":"always","n":0}`), nil)
				if err != nil || !slices.Contains(ids, -1) {
					t.Error(ids, err)
				}
				set.Remove(w*1000 + (i+5)%10)
			}
		})
	}
	wg.Wait()
}

// ruleBook makes n patterns of the kind that an account has: all share a source, and differ in what they look for in detail.
func ruleBook(t testing.TB, n int) []*pattern.Pattern {
	var all []*pattern.Pattern
	for i := range n {
		extra := []string{
			fmt.Sprintf(`"id":["order-%d"]`, i), fmt.Sprintf(`"id":[{"prefix":"order-%d/"}]`, i), fmt.Sprintf(`"file":[{"suffix":"-%d.png"}]`, i),
			fmt.Sprintf(`"total":[{"numeric":[">",%d,"<",%d]}]`, i*10, i*10+10), fmt.Sprintf(`"file":[{"wildcard":"in/%d/*.csv"}]`, i), fmt.Sprintf(`"ip":[{"cidr":"10.%d.%d.0/24"}]`, i/250%250, i%250),
			fmt.Sprintf(`"user":[{"equals-ignore-case":"User%d"}]`, i),
		}[i%7]
		all = append(all, must(t, `{"source":["my.shop"],"detail-type":["OrderPlaced","OrderChanged"],"detail":{`+extra+`,"state":[{"anything-but":"draft"}]}}`))
	}
	return all
}

const order = `{"version":"0","id":"6a7e8feb","source":"my.shop","detail-type":"OrderPlaced","time":"2017-12-22T18:43:48Z","resources":[],
"detail":{"id":"order-70","file":"in/11/x.csv","total":315,"ip":"10.0.12.9","user":"USER6","state":"open","lines":[{"sku":1,"n":2},{"sku":4,"n":1}],"note":"nothing that a rule asks for"}}`

func TestSet_FindsFewAmongTenThousand(t *testing.T) { // alone, as it counts allocations
	set := pattern.NewSet[int]()
	book := ruleBook(t, 10_000)
	for i, p := range book {
		set.Add(i, p)
	}
	got, err := set.Match([]byte(order), nil)
	slices.Sort(got)
	var want []int
	for i, p := range book {
		if ok, _ := p.Match([]byte(order)); ok {
			want = append(want, i)
		}
	}
	if err != nil || len(want) < 4 || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
	allocs := testing.AllocsPerRun(20, func() { got, _ = set.Match([]byte(order), got[:0]) })
	if allocs > 20 {
		t.Errorf("%v allocations to match against 10,000 rules", allocs)
	}
}

func BenchmarkSet(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		book := ruleBook(b, n)
		set := pattern.NewSet[int]()
		for i, p := range book {
			set.Add(i, p)
		}
		b.Run(fmt.Sprintf("indexed/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			var ids []int
			for b.Loop() {
				ids, _ = set.Match([]byte(order), ids[:0])
			}
		})
		b.Run(fmt.Sprintf("one by one/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, p := range book {
					_, _ = p.Match([]byte(order))
				}
			}
		})
	}
	book := ruleBook(b, 10_000)
	b.Run("add and remove/10000", func(b *testing.B) {
		set := pattern.NewSet[int]()
		for i, p := range book {
			set.Add(i, p)
		}
		for i := 0; b.Loop(); i++ {
			set.Add(i%len(book), book[i%len(book)])
		}
	})
}

package pattern

import (
	"fmt"
	"testing"
)

// A Set that rules come to and go from must not grow.
func TestSet_ForgetsWhatIsRemoved(t *testing.T) {
	t.Parallel()
	set := NewSet[int]()
	for round := range 3 {
		for i := range 50 {
			p, err := Parse(fmt.Appendf(nil, `{"a":{"k%d":["x",{"prefix":"y"},{"numeric":["<",%d]}]},"$or":[{"b.c":[{"anything-but":"x"}]},{"d":[{"exists":false}]}]}`, i, round))
			if err != nil {
				t.Fatal(err)
			}
			set.Add(i, p)
		}
		q, err := Parse([]byte(`{"gone":[{"exists":false}]}`))
		if err != nil {
			t.Fatal(err)
		}
		set.Add(50, q)
		if len(set.mu.always) != 1 || len(set.mu.root.children["a"].children) != 50 {
			t.Fatalf("%d always, %d fields", len(set.mu.always), len(set.mu.root.children["a"].children))
		}
		for i := range 51 {
			set.Remove(i)
		}
		if len(set.mu.always) != 0 || len(set.mu.root.children) != 0 || set.mu.root.refs != 0 {
			t.Fatalf("left: %d always, fields %v, %d references", len(set.mu.always), set.mu.root.children, set.mu.root.refs)
		}
	}
}

func TestRanges_CoverWhatTheyAccept(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`[">",0]`, `["<",0]`, `[">=",-1,"<=",1]`, `[">",0.1,"<",0.2]`, `["<=",1e300]`, `[">=",5,"<=",5]`, `[">",-5e-324,"<",5e-324]`} {
		p, err := Parse([]byte(`{"a":[{"numeric":` + text + `}]}`))
		if err != nil {
			t.Fatal(err)
		}
		one := &p.alts[0].conds[0].tests[0]
		slots := one.slots(nil)
		if len(slots) == 0 || len(slots) > 126 {
			t.Errorf("%s: %d slots", text, len(slots))
		}
		x := newIndex()
		e := &entry{conj: p.alts[0], step: p.alts[0].conds[0].step, slots: slots}
		x.add(e)
		for _, n := range []string{"0", "-0", "1", "-1", "5", "0.1", "0.15", "0.2", "-0.5", "4.999", "5e-324", "-5e-324", "1e300", "1e301", "-1e308", "1.7e308"} {
			v := value{kind: '0', text: []byte(n)}
			found := false
			x.find(&v, func(*entry) { found = true })
			if found != one.match(&v) {
				t.Errorf("%s and %s: filed %v, matches %v", text, n, found, one.match(&v))
			}
		}
	}
}

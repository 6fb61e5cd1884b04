package pattern_test

import (
	"bytes"
	"encoding/json"
	"math/big"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules read plainly, without any of the package's code: every combination of leaves is tried.

type plainLeaf struct {
	path   string
	value  any // string, json.Number, bool or nil
	places map[int]int
}

type plainCond struct {
	path  string
	tests []any
}

func decode(t testing.TB, text string) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func flatten(v any, path string, places map[int]int, arrays *int, out *[]plainLeaf) {
	copied := func() map[int]int {
		m := map[int]int{}
		for k, v := range places {
			m[k] = v
		}
		return m
	}
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			p := k
			if path != "" {
				p = path + "." + k
			}
			flatten(e, p, places, arrays, out)
		}
	case []any:
		*arrays++
		id := *arrays
		for i, e := range v {
			m := copied()
			switch e.(type) {
			case map[string]any, []any:
				m[id] = i
			}
			flatten(e, path, m, arrays, out)
		}
	default:
		*out = append(*out, plainLeaf{path, v, copied()})
	}
}

// alternatives expands $or.
func alternatives(v map[string]any, path string) [][]plainCond {
	all := [][]plainCond{nil}
	times := func(more [][]plainCond) {
		var next [][]plainCond
		for _, a := range all {
			for _, m := range more {
				next = append(next, append(slices.Clone(a), m...))
			}
		}
		all = next
	}
	for k, e := range v {
		p := k
		if path != "" {
			p = path + "." + k
		}
		if k == "$or" {
			var union [][]plainCond
			for _, b := range e.([]any) {
				union = append(union, alternatives(b.(map[string]any), path)...)
			}
			times(union)
			continue
		}
		switch e := e.(type) {
		case map[string]any:
			times(alternatives(e, p))
		case []any:
			times([][]plainCond{{{p, e}}})
		}
	}
	return all
}

func naive(t testing.TB, source, event string) bool {
	var leaves []plainLeaf
	arrays := 0
	flatten(decode(t, event), "", map[int]int{}, &arrays, &leaves)
	for _, conds := range alternatives(decode(t, source).(map[string]any), "") {
		slices.SortFunc(conds, func(a, b plainCond) int { return strings.Compare(a.path, b.path) })
		if plainly(conds, leaves, map[int]int{}) {
			return true
		}
	}
	return false
}

func plainly(conds []plainCond, leaves []plainLeaf, chosen map[int]int) bool {
	if len(conds) == 0 {
		return true
	}
	there := false
	for _, l := range leaves {
		if l.path != conds[0].path {
			continue
		}
		next, agrees := map[int]int{}, true
		for k, v := range chosen {
			next[k] = v
		}
		for k, v := range l.places {
			if old, ok := chosen[k]; ok && old != v {
				agrees = false
			}
			next[k] = v
		}
		if !agrees {
			continue
		}
		there = true
		for _, test := range conds[0].tests {
			if accepts(test, l.value) && plainly(conds[1:], leaves, next) {
				return true
			}
		}
	}
	absent := slices.ContainsFunc(conds[0].tests, func(v any) bool {
		m, ok := v.(map[string]any)
		return ok && m["exists"] == false
	})
	return absent && !there && plainly(conds[1:], leaves, chosen)
}

func rat(n json.Number) (*big.Rat, bool) {
	if i := strings.IndexAny(string(n), "eE"); i >= 0 {
		if e, err := strconv.Atoi(string(n[i+1:])); err != nil || e > 320 || e < -360 {
			return nil, false
		}
	}
	r, _ := new(big.Rat).SetString(string(n))
	f, err := strconv.ParseFloat(string(n), 64)
	if r == nil || err != nil {
		return nil, false
	}
	short, _ := new(big.Rat).SetString(strconv.FormatFloat(f, 'e', -1, 64))
	return r, short.Cmp(r) == 0
}

func equalNumbers(a, b json.Number) bool {
	x, ok := rat(a)
	y, ok2 := rat(b)
	return ok && ok2 && x.Cmp(y) == 0 || !ok2 && a == b
}

func each(v any, f func(any) bool) bool {
	if list, ok := v.([]any); ok {
		return slices.ContainsFunc(list, f)
	}
	return f(v)
}

var (
	plainV4 = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$`)
	plainV6 = regexp.MustCompile(`^[0-9a-fA-F:]*:[0-9a-fA-F:]*$`)
)

func plainAddr(s string) (netip.Addr, bool) {
	if !plainV4.MatchString(s) && !plainV6.MatchString(s) {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

func accepts(test, value any) bool {
	s, isString := value.(string)
	n, isNumber := value.(json.Number)
	switch test := test.(type) {
	case string:
		if a, ok := plainAddr(test); ok {
			b, ok := plainAddr(s)
			return isString && ok && a == b
		}
		return isString && s == test
	case json.Number:
		return isNumber && equalNumbers(test, n)
	case map[string]any:
		for op, v := range test {
			switch op {
			case "exists":
				return v == true
			case "anything-but":
				if m, ok := v.(map[string]any); ok {
					for inner, list := range m {
						return !each(list, func(x any) bool { return accepts(map[string]any{inner: x}, value) })
					}
				}
				return !each(v, func(x any) bool {
					if text, ok := x.(string); ok {
						return isString && text == s
					}
					return accepts(x, value)
				})
			case "numeric":
				return isNumber && inRange(v.([]any), n)
			}
			return isString && acceptsString(op, v, s)
		}
	}
	return value == test
}

func inRange(list []any, n json.Number) bool {
	x, ok := rat(n)
	if !ok {
		return false
	}
	for i := 0; i < len(list); i += 2 {
		y, _ := rat(list[i+1].(json.Number))
		c := x.Cmp(y)
		if !map[string]bool{"=": c == 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[list[i].(string)] {
			return false
		}
	}
	return true
}

func acceptsString(op string, v any, s string) bool {
	if m, ok := v.(map[string]any); ok {
		v = strings.ToLower(m["equals-ignore-case"].(string))
		s = strings.ToLower(s)
	}
	switch want := v.(string); op {
	case "prefix":
		return strings.HasPrefix(s, want)
	case "suffix":
		return strings.HasSuffix(s, want)
	case "equals-ignore-case":
		return strings.EqualFold(s, want)
	case "cidr":
		a, ok := plainAddr(s)
		return ok && netip.MustParsePrefix(want).Masked().Contains(a)
	case "wildcard":
		var re strings.Builder
		for i := 0; i < len(want); i++ {
			switch want[i] {
			case '*':
				re.WriteString("(?s:.*)")
			case '\\':
				i++
				fallthrough
			default:
				re.WriteString(regexp.QuoteMeta(want[i : i+1]))
			}
		}
		return regexp.MustCompile("^" + re.String() + "$").MatchString(s)
	}
	panic(op)
}

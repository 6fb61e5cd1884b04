package shape

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// trail is the way to a value, for faults.
type trail struct {
	up   *trail
	name string // of a member, or a map's key
	n    int    // of a list's element, from 1
	item bool   // of a list or map
}

func (t *trail) String() string {
	if t == nil {
		return ""
	}
	name := t.name
	switch {
	case t.n > 0:
		name = strconv.Itoa(t.n) + ".member"
	case t.item:
		name += ".member"
	default:
		name = small(name)
	}
	if up := t.up.String(); up != "" {
		return up + "." + name
	}
	return name
}

func small(name string) string { return strings.ToLower(name[:1]) + name[1:] }

// checks gathers what breaks a table's rules while a request is read.
type checks struct {
	values   bool // also enums and bounds
	problems []Problem
}

// maxProblems is how many are told at once.
const maxProblems = 10

func (c *checks) add(at *trail, member string, p Problem) {
	if len(c.problems) < maxProblems {
		p.Path, p.Member = at.String(), member
		c.problems = append(c.problems, p)
	}
}

func (c *checks) fault() error {
	if len(c.problems) == 0 {
		return nil
	}
	return &Fault{Kind: Invalid, Problems: c.problems}
}

// missing tells of the required members that were not seen.
func (c *checks) missing(s *Shape, at *trail, seen func(member string) bool) {
	for _, name := range s.Required {
		if !seen(name) {
			c.add(&trail{up: at, name: name}, name, Problem{Missing: true, Constraint: "Member must not be null"})
		}
	}
}

// seenSet is which of the required members of a structure were there.
type seenSet uint64

func (s *seenSet) mark(sh *Shape, member string) {
	if i := slices.Index(sh.Required, member); i >= 0 && i < 64 {
		*s |= 1 << i
	}
}

func (s seenSet) of(sh *Shape) func(string) bool {
	return func(member string) bool {
		i := slices.Index(sh.Required, member)
		return i >= 64 || s&(1<<i) != 0
	}
}

// text checks a string, whole and length that of a list, map or blob, number a number.
func (c *checks) text(s *Shape, at *trail, v string) {
	if !c.values {
		return
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		c.add(at, at.last(), Problem{Value: v, Constraint: "Member must satisfy enum value set: [" + strings.Join(s.Enum, ", ") + "]"})
		return
	}
	if s.Min != nil || s.Max != nil {
		c.length(s, at, utf8.RuneCountInString(v), v)
	}
}

func (c *checks) length(s *Shape, at *trail, n int, value string) {
	if !c.values {
		return
	}
	if s.Min != nil && float64(n) < *s.Min {
		c.add(at, at.last(), Problem{Value: value, Constraint: fmt.Sprintf("Member must have length greater than or equal to %.0f", *s.Min)})
	}
	if s.Max != nil && float64(n) > *s.Max {
		c.add(at, at.last(), Problem{Value: value, Constraint: fmt.Sprintf("Member must have length less than or equal to %.0f", *s.Max)})
	}
}

func (c *checks) number(s *Shape, at *trail, n float64) {
	if !c.values {
		return
	}
	text := strconv.FormatFloat(n, 'f', -1, 64)
	if s.Min != nil && n < *s.Min {
		c.add(at, at.last(), Problem{Value: text, Constraint: fmt.Sprintf("Member must have value greater than or equal to %.0f", *s.Min)})
	}
	if s.Max != nil && n > *s.Max {
		c.add(at, at.last(), Problem{Value: text, Constraint: fmt.Sprintf("Member must have value less than or equal to %.0f", *s.Max)})
	}
}

func (t *trail) last() string {
	for ; t != nil; t = t.up {
		if !t.item {
			return t.name
		}
	}
	return ""
}

// scalar sets v, which is no pointer, to what a text says: of query parameters, headers, XML.
func scalar(p *plan, v reflect.Value, text string, at *trail, c *checks, header bool) error {
	if p.kind == kAny {
		one := reflect.New(p.loose.typ).Elem()
		if err := scalar(p.loose, one, text, at, c, header); err != nil {
			return err
		}
		v.Set(one)
		return nil
	}
	s := p.shape
	bad := func(what string) error { return mismatch("%s: %q is no %s", at, clip(text), what) }
	switch p.kind {
	case kString:
		v.SetString(text)
		c.text(s, at, text)
	case kInt:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return bad(s.Type)
		}
		v.SetInt(n)
		c.number(s, at, float64(n))
	case kFloat:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return bad(s.Type)
		}
		v.SetFloat(n)
		c.number(s, at, n)
	case kBool:
		switch strings.ToLower(text) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			return bad(s.Type)
		}
	case kTime:
		t, ok := parseTime(text)
		if !ok {
			return bad(s.Type)
		}
		v.Set(reflect.ValueOf(t))
	case kBlob:
		data, err := unbase64(text)
		if err != nil {
			return bad("base64")
		}
		v.SetBytes(data)
		c.length(s, at, len(data), text)
	default:
		return bad(s.Type)
	}
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

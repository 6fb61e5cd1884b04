package filter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/cesql"
	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/diag"
)

// Limits of CloudEvents filters; ebb's own.
const (
	maxFilterBytes = 64 << 10
	maxFilterDepth = 64
)

var dialects = []string{"exact", "prefix", "suffix", "all", "any", "not", "sql"} // never written

// Filter is a compiled filter over an event's attributes. It is immutable.
type Filter struct{ root matcher }

// matcher is a filter expression.
type matcher func(a cesql.Attributes) bool

// Match says whether an event passes. Attributes are compared in their string forms.
func (f *Filter) Match(a cesql.Attributes) bool { return f.root(a) }

// CompileFilter reads a filter expression, or a list of them that must all hold; an empty list lets everything pass.
func CompileFilter(source []byte, file string) (*Filter, diag.List) {
	c := &dialectCompiler{places: places{source: source, file: file}, r: rawjson.Reader{Data: source, MaxDepth: maxFilterDepth}}
	if len(source) > maxFilterBytes {
		c.errorf(0, "filter-too-large", "", "the filter has %d bytes; %d are allowed", len(source), maxFilterBytes)
		return nil, c.list
	}
	var root matcher
	var err error
	if c.r.Peek() == rawjson.Array {
		root, err = c.every(true)
	} else {
		root, err = c.expression()
	}
	if err == nil {
		err = c.r.Finish()
	}
	var syntax *rawjson.SyntaxError
	if errors.As(err, &syntax) {
		c.list.Errorf(c.pos(syntax.Offset), "filter-syntax", "", "not JSON: %s", syntax.Msg)
	}
	if c.list.HasErrors() {
		return nil, c.list.Sorted()
	}
	return &Filter{root: root}, c.list
}

type dialectCompiler struct {
	places
	r rawjson.Reader
}

// expression reads {"dialect": ...}. The matcher may be nil when a fault was recorded.
func (c *dialectCompiler) expression() (m matcher, err error) {
	const hint = `Write {"exact": {"type": "order.placed"}}.`
	if c.r.Peek() != rawjson.Object {
		start := c.r.Pos
		if _, err = c.r.Skip(); err == nil {
			c.errorf(start, "filter-expression", hint, "a filter expression must be an object")
		}
		return nil, err
	}
	start, n := c.r.Pos, 0
	err = c.r.Object(func(key []byte, at int) error {
		return c.inside("."+string(key), func() (err error) {
			if n++; n > 1 {
				c.errorf(at, "filter-expression", `Use {"all": [...]} for several.`, "a second dialect in one filter expression")
				_, err = c.r.Skip()
				return err
			}
			m, err = c.dialect(string(key), at)
			return err
		})
	})
	if err == nil && n == 0 {
		c.errorf(start, "filter-expression", hint, "a filter expression without a dialect")
	}
	return m, err
}

func (c *dialectCompiler) dialect(name string, at int) (matcher, error) {
	switch name {
	case "exact":
		return c.attributes(func(have, want string) bool { return have == want })
	case "prefix":
		return c.attributes(strings.HasPrefix)
	case "suffix":
		return c.attributes(strings.HasSuffix)
	case "all":
		return c.every(false)
	case "any":
		list, err := c.expressions(false)
		return func(a cesql.Attributes) bool {
			return slices.ContainsFunc(list, func(m matcher) bool { return m(a) })
		}, err
	case "not":
		m, err := c.expression()
		return func(a cesql.Attributes) bool { return !m(a) }, err
	case "sql":
		return c.sql()
	}
	hint := "The dialects are " + strings.Join(dialects, ", ") + "."
	if near := diag.Nearest(name, dialects); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", near)
	}
	c.errorf(at, "filter-dialect", hint, "unknown filter dialect %q", name)
	_, err := c.r.Skip()
	return nil, err
}

// every reads a list of expressions that must all hold.
func (c *dialectCompiler) every(empty bool) (matcher, error) {
	list, err := c.expressions(empty)
	return func(a cesql.Attributes) bool {
		return !slices.ContainsFunc(list, func(m matcher) bool { return !m(a) })
	}, err
}

func (c *dialectCompiler) expressions(empty bool) (list []matcher, err error) {
	c.r.Peek()
	start := c.r.Pos
	if c.r.Peek() != rawjson.Array {
		if _, err = c.r.Skip(); err == nil {
			c.errorf(start, "filter-list", "", "a list of filter expressions is wanted")
		}
		return nil, err
	}
	err = c.r.Array(func(i int) error {
		return c.inside(element(i), func() error {
			m, err := c.expression()
			list = append(list, m)
			return err
		})
	})
	if err == nil && len(list) == 0 && !empty {
		c.errorf(start, "filter-list", "", "the list needs a filter expression")
	}
	return list, err
}

// attributes reads {"name": "value"} for a comparison that all of them must meet.
func (c *dialectCompiler) attributes(compare func(have, want string) bool) (matcher, error) {
	type pair struct{ name, want string }
	var pairs []pair
	c.r.Peek()
	start := c.r.Pos
	if c.r.Peek() != rawjson.Object {
		_, err := c.r.Skip()
		if err == nil {
			c.errorf(start, "filter-attributes", `Write {"type": "order.placed"}.`, "an object of attributes is wanted")
		}
		return nil, err
	}
	err := c.r.Object(func(key []byte, at int) error {
		name := string(key)
		return c.inside("."+name, func() error {
			if !attributeName(name) {
				c.errorf(at, "filter-name", "Names have lower-case letters and digits.", "%q cannot be the name of an attribute", name)
			}
			kind := c.r.Peek()
			valueAt := c.r.Pos
			raw, err := c.r.Skip()
			if err != nil {
				return err
			}
			if kind != rawjson.String || len(raw) == 2 {
				c.errorf(valueAt, "filter-value", "", "the value must be a string that is not empty")
				return nil
			}
			inner := rawjson.Reader{Data: raw}
			want, _ := inner.Text()
			pairs = append(pairs, pair{name, string(want)})
			return nil
		})
	})
	if err == nil && len(pairs) == 0 && !c.list.HasErrors() {
		c.errorf(start, "filter-attributes", `Write {"type": "order.placed"}.`, "no attribute is named")
	}
	return func(a cesql.Attributes) bool {
		for _, p := range pairs {
			if v, ok := a(p.name); !ok || !compare(v.Text(), p.want) {
				return false
			}
		}
		return true
	}, err
}

// attributeName: CloudEvents 1.0.2, "Naming Conventions".
func attributeName(s string) bool {
	for i := range len(s) {
		if !(s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9') {
			return false
		}
	}
	return s != ""
}

// sql reads a CESQL expression. Functions that do not exist are refused here: no event could ever pass.
func (c *dialectCompiler) sql() (matcher, error) {
	c.r.Peek()
	start := c.r.Pos
	if c.r.Peek() != rawjson.String {
		_, err := c.r.Skip()
		if err == nil {
			c.errorf(start, "filter-sql", "", "a CESQL expression in a string is wanted")
		}
		return nil, err
	}
	raw, err := c.r.Skip()
	if err != nil {
		return nil, err
	}
	inner := rawjson.Reader{Data: raw}
	text, _ := inner.Text()
	place := func(offset int) int {
		if len(raw) == len(text)+2 { // without escapes every byte is where it was
			return start + 1 + offset
		}
		return start
	}
	e, err := cesql.Parse(string(text))
	var fault *cesql.Error
	if errors.As(err, &fault) {
		c.errorf(place(fault.Offset), "filter-sql", fault.Hint, "%s", fault.Msg)
		return nil, nil
	}
	for _, r := range e.Remarks() {
		if r.Code == "cesql-function" {
			c.errorf(place(r.Offset), r.Code, r.Hint, "%s", r.Msg)
		} else {
			c.warnf(place(r.Offset), r.Code, r.Hint, "%s", r.Msg)
		}
	}
	return e.Matches, nil
}

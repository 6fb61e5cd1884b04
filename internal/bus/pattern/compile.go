package pattern

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/diag"
)

var (
	operators    = []string{"prefix", "suffix", "anything-but", "numeric", "cidr", "exists", "wildcard", "equals-ignore-case"} // never written
	butOperators = []string{"prefix", "suffix", "equals-ignore-case", "wildcard"}                                              // never written
	// reserved are names that EventBridge's matcher does not take for fields within $or.
	reserved = append(slices.Clone(operators), "exactly", "=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case", "date-after",
		"date-on-or-after", "date-before", "date-on-or-before", "in-date-range", "ip-address-in-range", "ip-address-not-in-range") // never written
)

// compiler reads one pattern. Faults of meaning are collected and the rest is read on; a fault of syntax ends it.
type compiler struct {
	r    rawjson.Reader
	o    Options
	list diag.List
	at   []string // the JSON path of what is read
	path []string // the event's path
	full bool     // the pattern is over a limit; the rest is read for its syntax
}

func newCompiler(source []byte, o Options) *compiler {
	if o.MaxBytes == 0 {
		o.MaxBytes = MaxBytes
	}
	if o.MaxDepth == 0 {
		o.MaxDepth = MaxDepth
	}
	if o.MaxCombinations == 0 {
		o.MaxCombinations = MaxCombinations
	}
	if o.NumberLimit == 0 {
		o.NumberLimit = 5e9
	}
	return &compiler{r: rawjson.Reader{Data: source, MaxDepth: o.MaxDepth}, o: o}
}

func (c *compiler) pos(offset int) diag.Pos {
	line, col := rawjson.Place(c.r.Data, offset)
	return diag.Pos{File: c.o.File, Line: line, Col: col}
}

// errorf records a fault at an offset, of the value at the current JSON path.
func (c *compiler) errorf(offset int, code, hint, format string, args ...any) {
	c.list.Errorf(c.pos(offset), code, hint, "$%s: %s", strings.Join(c.at, ""), fmt.Sprintf(format, args...))
}

// inside runs f with the JSON path lengthened.
func (c *compiler) inside(name string, f func() error) error {
	c.at = append(c.at, name)
	err := f()
	c.at = c.at[:len(c.at)-1]
	return err
}

func keyName(key string) string {
	for _, r := range key {
		if !(r == '_' || r == '-' || r == '$' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') {
			return "[" + strconv.Quote(key) + "]"
		}
	}
	if key == "" {
		return `[""]`
	}
	return "." + key
}

func (c *compiler) compile() []conj {
	if len(c.r.Data) > c.o.MaxBytes {
		c.errorf(0, "pattern-too-large", fmt.Sprintf("A pattern may have %d bytes.", c.o.MaxBytes), "the pattern has %d bytes", len(c.r.Data))
		return nil
	}
	if c.r.Peek() != rawjson.Object {
		c.errorf(c.r.Pos, "pattern-object", `A pattern is an object such as {"source": ["my.app"]}.`, "an event pattern must be a JSON object")
		return nil
	}
	alts, err := c.object(c.r.Pos, []conj{{}}, false)
	if err == nil {
		err = c.r.Finish()
	}
	var syntax *rawjson.SyntaxError
	if errors.As(err, &syntax) {
		c.at = nil
		c.list.Errorf(c.pos(syntax.Offset), "pattern-syntax", "", "not JSON: %s", syntax.Msg)
	}
	return alts
}

// object reads an object of fields and gives every combination of alts with what it says.
func (c *compiler) object(start int, alts []conj, inOr bool) ([]conj, error) {
	empty := true
	err := c.r.Object(func(k []byte, at int) error {
		empty = false
		key := string(k)
		return c.inside(keyName(key), func() (err error) {
			switch kind := c.r.Peek(); {
			case key == "$or":
				alts, err = c.or(at, alts)
			case inOr && slices.Contains(reserved, key):
				c.errorf(at, "pattern-reserved", "Within $or stand objects of fields, as in the pattern itself.", "%q cannot be the name of a field within $or", key)
				_, err = c.r.Skip()
			case kind == rawjson.Object:
				c.path = append(c.path, key)
				alts, err = c.object(c.r.Pos, alts, inOr)
				c.path = c.path[:len(c.path)-1]
			case kind == rawjson.Array:
				c.path = append(c.path, key)
				alts, err = c.leaf(at, alts)
				c.path = c.path[:len(c.path)-1]
			default:
				if _, err = c.r.Skip(); err == nil {
					c.errorf(at, "pattern-value", `Values stand in a list: "`+key+`": [...].`, "the value must be a list of what may match, or an object of fields")
				}
			}
			return err
		})
	})
	if err == nil && empty {
		c.errorf(start, "pattern-empty", `To match whatever has the field, write [{"exists": true}].`, "an object without fields")
	}
	return alts, err
}

// leaf reads what one field may be.
func (c *compiler) leaf(at int, alts []conj) ([]conj, error) {
	one := cond{path: strings.Join(c.path, ".")}
	start := c.r.Pos
	err := c.r.Array(func(i int) error {
		return c.inside("["+strconv.Itoa(i)+"]", func() error { return c.value(&one) })
	})
	if err != nil {
		return nil, err
	}
	if len(one.tests) == 0 && !one.absent && !c.list.HasErrors() {
		c.errorf(start, "pattern-empty", `To match whatever has the field, write [{"exists": true}].`, "an empty list matches nothing")
	}
	if c.full {
		return alts, nil
	}
	total := 0
	for i := range alts {
		a := &alts[i]
		if slices.ContainsFunc(a.conds, func(o cond) bool { return o.path == one.path }) {
			c.errorf(at, "pattern-twice", "Put all values into one list; a $or may not repeat a field from outside it.", "the field %q is tested twice", one.path)
			return alts, nil
		}
		a.conds = append(a.conds, one)
		total += len(a.conds)
		if len(a.conds) > maxFields || total > maxConditions {
			c.full = true
			c.errorf(at, "pattern-fields", "Use several rules instead.", "the pattern tests too many fields: %d, or %d over all combinations of $or branches, are allowed", maxFields, maxConditions)
			return alts, nil
		}
	}
	return alts, nil
}

// split copies alternatives, so that a branch can add to them.
func split(alts []conj) []conj {
	out := slices.Clone(alts)
	for i := range out {
		out[i].conds = slices.Clone(out[i].conds)
	}
	return out
}

// or reads the list of a $or.
func (c *compiler) or(at int, alts []conj) ([]conj, error) {
	const hint = `Give at least two objects: "$or": [{"a": [1]}, {"b": [2]}].`
	if c.r.Peek() != rawjson.Array {
		_, err := c.r.Skip()
		if err == nil {
			c.errorf(at, "pattern-or", hint, "$or must be a list of objects")
		}
		return alts, err
	}
	var all []conj
	n, full := 0, c.full
	err := c.r.Array(func(i int) error {
		return c.inside("["+strconv.Itoa(i)+"]", func() error {
			n++
			kind := c.r.Peek()
			start := c.r.Pos
			if kind != rawjson.Object || full {
				if _, err := c.r.Skip(); err != nil {
					return err
				}
				if kind != rawjson.Object {
					c.errorf(start, "pattern-or", hint, "only objects may stand in $or")
				}
				return nil
			}
			branch, err := c.object(start, split(alts), true)
			all = append(all, branch...)
			full = full || c.full || len(all) > c.o.MaxCombinations
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case n < 2:
		c.errorf(at, "pattern-or", hint, "$or needs two alternatives")
	case c.full:
		return alts, nil
	case full:
		c.full = true
		c.errorf(at, "pattern-combinations", "Branches of several $or multiply; use several rules instead.", "more than %d combinations of $or branches", c.o.MaxCombinations)
		return alts, nil
	}
	return all, nil
}

// value reads one element of a field's list.
func (c *compiler) value(one *cond) error {
	kind := c.r.Peek()
	start := c.r.Pos
	switch kind {
	case rawjson.Object:
		return c.operator(one)
	case rawjson.Array:
		c.errorf(start, "pattern-value", "Lists do not nest: an event's lists match by their elements.", "a list within a list")
		_, err := c.r.Skip()
		return err
	case rawjson.String:
		text, err := c.r.Text()
		if err == nil {
			one.tests = append(one.tests, exactly(string(text)))
		}
		return err
	}
	text, err := c.r.Literal()
	if err != nil {
		return err
	}
	if kind == rawjson.Number {
		one.tests = append(one.tests, number(string(text)))
		return nil
	}
	one.tests = append(one.tests, test{op: opLiteral, text: string(text)})
	return nil
}

// operator reads {"prefix": ...} and the like.
func (c *compiler) operator(one *cond) error {
	start, n := c.r.Pos, 0
	err := c.r.Object(func(k []byte, at int) error {
		key := string(k)
		return c.inside(keyName(key), func() error {
			if n++; n > 1 {
				c.errorf(at, "pattern-operator", "Write several objects in the list for any of them.", "a second operator in one object")
				_, err := c.r.Skip()
				return err
			}
			return c.operand(key, at, one)
		})
	})
	if err == nil && n == 0 {
		c.errorf(start, "pattern-operator", "The operators are "+strings.Join(operators, ", ")+".", "an operator is missing")
	}
	return err
}

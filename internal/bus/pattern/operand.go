package pattern

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/bus/rawjson"
	"github.com/ebb-run/ebb/internal/diag"
)

// operand reads what stands behind an operator.
func (c *compiler) operand(key string, at int, one *cond) error {
	c.r.Peek()
	start := c.r.Pos
	var t test
	var err error
	ok := false
	switch key {
	case "prefix", "suffix":
		if c.r.Peek() == rawjson.Object {
			t, ok, err = c.affixFold(key)
		} else if t.text, ok, err = c.text("a string"); ok {
			t.op = map[string]op{"prefix": opPrefix, "suffix": opSuffix}[key]
		}
	case "equals-ignore-case":
		t.op = opFold
		if t.text, ok, err = c.text("a string"); ok {
			t.text = fold(t.text)
		}
	case "wildcard":
		t, ok, err = c.wildcard()
	case "exists":
		kind := c.r.Peek()
		if _, err = c.r.Skip(); err != nil {
			return err
		}
		switch kind {
		case rawjson.True:
			t.op, ok = opExists, true
		case rawjson.False:
			one.absent = true
		default:
			c.errorf(start, "pattern-exists", "", "exists must be true or false")
		}
	case "numeric":
		t, ok, err = c.numeric()
	case "cidr":
		t, ok, err = c.cidr()
	case "anything-but":
		t, ok, err = c.anythingBut()
	default:
		hint := "The operators are " + strings.Join(operators, ", ") + "."
		if near := diag.Nearest(key, operators); near != "" {
			hint = fmt.Sprintf("Did you mean %q?", near)
		}
		c.errorf(at, "pattern-operator", hint, "unknown operator %q", key)
		_, err = c.r.Skip()
	}
	if ok {
		one.tests = append(one.tests, t)
	}
	return err
}

// text reads a string, or records that it should be one.
func (c *compiler) text(wanted string) (string, bool, error) {
	if c.r.Peek() == rawjson.String {
		text, err := c.r.Text()
		return string(text), err == nil, err
	}
	start := c.r.Pos
	if _, err := c.r.Skip(); err != nil {
		return "", false, err
	}
	c.errorf(start, "pattern-operand", "", "the operand must be %s", wanted)
	return "", false, nil
}

// affixFold reads the {"equals-ignore-case": ...} of a prefix or suffix.
func (c *compiler) affixFold(of string) (t test, ok bool, err error) {
	start, n := c.r.Pos, 0
	err = c.r.Object(func(k []byte, at int) error {
		return c.inside(keyName(string(k)), func() error {
			if n++; n > 1 || string(k) != "equals-ignore-case" {
				ok = false
				c.errorf(at, "pattern-operator", fmt.Sprintf(`Write {%q: {"equals-ignore-case": "..."}}.`, of), "%s may hold equals-ignore-case alone", of)
				_, err := c.r.Skip()
				return err
			}
			var text string
			text, ok, err = c.text("a string")
			t = test{op: map[string]op{"prefix": opPrefixFold, "suffix": opSuffixFold}[of], text: fold(text)}
			return err
		})
	})
	if err == nil && n == 0 {
		c.errorf(start, "pattern-operator", "", "an operator is missing")
	}
	return t, ok && err == nil, err
}

func (c *compiler) wildcard() (test, bool, error) {
	c.r.Peek()
	start := c.r.Pos
	text, ok, err := c.text("a string")
	if !ok || err != nil {
		return test{}, false, err
	}
	parts, fault := globParts(text)
	if fault != "" {
		c.errorf(start, "pattern-wildcard", `* stands for any characters, \* for a star and \\ for a backslash.`, "%s", fault)
		return test{}, false, nil
	}
	return test{op: opGlob, text: text, parts: parts}, true, nil
}

// globParts splits a wildcard at its stars and takes the escapes out.
func globParts(text string) (parts []string, fault string) {
	var part []byte
	for i := 0; i < len(text); i++ {
		switch ch := text[i]; {
		case ch == '*' && i+1 < len(text) && text[i+1] == '*':
			return nil, "two wildcards in a row"
		case ch == '*':
			parts = append(parts, string(part))
			part = nil
		case ch == '\\':
			if i++; i == len(text) || text[i] != '*' && text[i] != '\\' {
				return nil, "a backslash before something else than * or a backslash"
			}
			part = append(part, text[i])
		default:
			part = append(part, ch)
		}
	}
	return append(parts, string(part)), ""
}

func (c *compiler) cidr() (test, bool, error) {
	c.r.Peek()
	start := c.r.Pos
	text, ok, err := c.text(`a string such as "10.0.0.0/24"`)
	if !ok || err != nil {
		return test{}, false, err
	}
	const hint = `Write an address and the bits of its network: "10.0.0.0/24", "2001:db8::/32".`
	ip, bits, found := strings.Cut(text, "/")
	addr, valid := address(ip)
	n, bad := strconv.ParseUint(bits, 10, 8)
	switch {
	case !found || !valid || bad != nil:
		c.errorf(start, "pattern-cidr", hint, "%q is no range of addresses", text)
	case int(n) >= addr.BitLen():
		c.errorf(start, "pattern-cidr", "Give a single address as a value: \""+ip+"\".", "a range of IPv%d addresses has at most %d bits", 4+2*(addr.BitLen()/128), addr.BitLen()-1)
	default:
		return test{op: opCIDR, net: netip.PrefixFrom(addr, int(n)).Masked()}, true, nil
	}
	return test{}, false, nil
}

// limited warns of a number that EventBridge may refuse.
func (c *compiler) limited(at int, f float64) {
	if math.Abs(f) > c.o.NumberLimit {
		c.list.Warnf(c.pos(at), "pattern-number", "", "$%s: AWS documents numbers between -%g and %g only", strings.Join(c.at, ""), c.o.NumberLimit, c.o.NumberLimit)
	}
}

// numeric reads ["=", 5], ["<", 10] or [">", 0, "<=", 5].
func (c *compiler) numeric() (t test, ok bool, err error) {
	const hint = `Write ["=", 5], [">", 0] or [">=", 0, "<", 10].`
	if c.r.Peek() != rawjson.Array {
		start := c.r.Pos
		if _, err = c.r.Skip(); err == nil {
			c.errorf(start, "pattern-numeric", hint, "numeric must be a list")
		}
		return t, false, err
	}
	start := c.r.Pos
	t, ok = test{op: opRange, lo: math.Inf(-1), hi: math.Inf(1)}, true
	fault := func(at int, format string, args ...any) {
		if ok {
			c.errorf(at, "pattern-numeric", hint, format, args...)
		}
		ok = false
	}
	comparison, n := "", 0
	err = c.r.Array(func(i int) error {
		n++
		kind := c.r.Peek()
		at := c.r.Pos
		raw, err := c.r.Skip()
		if err != nil {
			return err
		}
		switch {
		case i > 3:
			fault(at, "too many elements")
		case i%2 == 0 && kind != rawjson.String:
			fault(at, "a comparison is wanted here: =, <, <=, > or >=")
		case i%2 == 0:
			inner := rawjson.Reader{Data: raw}
			text, _ := inner.Text()
			comparison = string(text)
			first := i == 0 && slices.Contains([]string{"=", "<", "<=", ">", ">="}, comparison)
			second := i == 2 && slices.Contains([]string{"<", "<="}, comparison) && (t.op == opRange && !math.IsInf(t.lo, -1))
			if !first && !second {
				fault(at, "no such comparison here: %q", comparison)
			}
		case kind != rawjson.Number:
			fault(at, "a number is wanted here")
		default:
			f, exact := exactFloat(raw)
			if !exact {
				fault(at, "%s cannot be compared: it has too many digits", raw)
			}
			c.limited(at, f)
			t.compare(comparison, f, string(raw))
		}
		return nil
	})
	if err == nil && n != 2 && n != 4 {
		fault(start, "a comparison and a number, once or twice")
	}
	if ok && t.op == opRange && (t.lo > t.hi || t.lo == t.hi && (t.loOpen || t.hiOpen)) {
		fault(start, "no number lies in this range")
	}
	return t, ok && err == nil, err
}

// compare narrows a range.
func (t *test) compare(comparison string, f float64, text string) {
	switch comparison {
	case "=":
		*t = test{op: opNumber, num: f, exact: true, text: text}
	case "<", "<=":
		t.hi, t.hiOpen = f, comparison == "<"
	case ">", ">=":
		t.lo, t.loOpen = f, comparison == ">"
	}
}

// anythingBut reads a value, a list of values of one type, or an operator over one string or several.
func (c *compiler) anythingBut() (test, bool, error) {
	t := test{op: opNot}
	if c.r.Peek() != rawjson.Object {
		ok, err := c.butValues("", &t.none)
		return t, ok, err
	}
	start, n, ok := c.r.Pos, 0, false
	err := c.r.Object(func(k []byte, at int) (err error) {
		key := string(k)
		return c.inside(keyName(key), func() error {
			if n++; n > 1 || !slices.Contains(butOperators, key) {
				hint := "It may hold " + strings.Join(butOperators, ", ") + "."
				if near := diag.Nearest(key, butOperators); near != "" && n == 1 {
					hint = fmt.Sprintf("Did you mean %q?", near)
				}
				c.errorf(at, "pattern-operator", hint, "anything-but may hold one of its operators, not %q", key)
				ok = false
				_, err = c.r.Skip()
				return err
			}
			ok, err = c.butValues(key, &t.none)
			return err
		})
	})
	if err == nil && n == 0 {
		c.errorf(start, "pattern-operator", "", "an operator is missing")
	}
	return t, ok && err == nil, err
}

// butValues reads one value or a list of them; under an operator they are its strings.
func (c *compiler) butValues(operator string, none *[]test) (bool, error) {
	ok := true
	one := func() error {
		kind := c.r.Peek()
		at := c.r.Pos
		good := kind == rawjson.String || kind == rawjson.Number && operator == ""
		if !good {
			ok = false
			if operator != "" {
				c.errorf(at, "pattern-operand", "", "the operand must be a string")
			} else {
				c.errorf(at, "pattern-operand", "For true, false and null name the values that may match.", "anything-but takes strings and numbers")
			}
			_, err := c.r.Skip()
			return err
		}
		t, good, err := c.butValue(operator, kind, at)
		if !good {
			ok = false
			return err
		}
		if len(*none) > 0 && ((*none)[0].op == opNumber) != (t.op == opNumber) {
			ok = false
			c.errorf(at, "pattern-operand", "", "strings and numbers cannot stand in one anything-but")
		}
		*none = append(*none, t)
		return err
	}
	if c.r.Peek() != rawjson.Array {
		return ok, one()
	}
	start, n := c.r.Pos, 0
	err := c.r.Array(func(i int) error {
		n++
		return c.inside("["+strconv.Itoa(i)+"]", one)
	})
	if err == nil && n == 0 {
		ok = false
		c.errorf(start, "pattern-empty", `To match whatever has the field, write {"exists": true}.`, "an empty list")
	}
	return ok && err == nil, err
}

func (c *compiler) butValue(operator string, kind rawjson.Kind, at int) (t test, ok bool, err error) {
	if operator == "wildcard" {
		return c.wildcard()
	}
	if kind == rawjson.Number {
		raw, err := c.r.Literal()
		if err != nil {
			return t, false, err
		}
		if t = number(string(raw)); !t.exact {
			c.errorf(at, "pattern-numeric", "", "%s cannot be compared: it has too many digits", raw)
		}
		return t, t.exact, nil
	}
	text, err := c.r.Text()
	if err != nil {
		return t, false, err
	}
	t.text = string(text)
	switch operator {
	case "":
		t.op = opString
	case "prefix":
		t.op = opPrefix
	case "suffix":
		t.op = opSuffix
	case "equals-ignore-case":
		t.op, t.text = opFold, fold(t.text)
	}
	if t.text == "" && (t.op == opPrefix || t.op == opSuffix) {
		c.errorf(at, "pattern-operand", "", "every string begins and ends with an empty one")
		return t, false, nil
	}
	return t, true, nil
}

package policy

import (
	"encoding/base64"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// condition is one key of one operator, as the "Condition" of a statement has them.
type condition struct {
	key     string
	tests   []test // of which one has to hold for a value
	not     bool   // none may
	missing bool   // it holds where the request has no value
	all     bool   // ForAllValues
	any     bool   // ForAnyValue
	null    *bool  // the operator Null
}

// test compares a value of the request with one of the statement.
type test func(have string, context map[string][]string) bool

// holds decides. A request without the key meets no condition but the negated ones, those of ForAllValues and those that end in IfExists.
func (c condition) holds(context map[string][]string) bool {
	have, ok := context[c.key]
	if c.null != nil {
		return *c.null == !ok
	}
	if !ok {
		return c.missing || c.all || c.not && !c.any
	}
	one := func(v string) bool {
		return slices.ContainsFunc(c.tests, func(t test) bool { return t(v, context) }) != c.not
	}
	if c.any {
		return slices.ContainsFunc(have, one)
	}
	if c.not && !c.all { // none of the values may be among them
		return !slices.ContainsFunc(have, func(v string) bool { return !one(v) })
	}
	if c.all {
		return !slices.ContainsFunc(have, func(v string) bool { return !one(v) })
	}
	return slices.ContainsFunc(have, one)
}

func newCondition(op, key string, values []string) (condition, error) {
	c := condition{key: strings.ToLower(key)}
	op, c.all = strings.CutPrefix(op, "ForAllValues:")
	op, c.any = strings.CutPrefix(op, "ForAnyValue:")
	op, c.missing = strings.CutSuffix(op, "IfExists")
	if op == "Null" {
		if len(values) != 1 {
			return c, errs.New(errs.Invalid, "it takes one value, true or false")
		}
		b, err := strconv.ParseBool(values[0])
		if err != nil {
			return c, errs.New(errs.Invalid, "%q is not true or false", values[0])
		}
		c.null = &b
		return c, nil
	}
	make, ok := operators[op]
	if !ok {
		positive := strings.Replace(op, "Not", "", 1)
		if make, ok = operators[positive]; !ok || positive == op || strings.HasSuffix(op, "Than") {
			return c, errs.New(errs.Invalid, "there is no such operator")
		}
		c.not = true
	}
	for _, v := range values {
		t, err := make(v)
		if err != nil {
			return c, err
		}
		c.tests = append(c.tests, t)
	}
	return c, nil
}

// operators make tests, by their names; those with a Not are found without it.
var operators = map[string]func(want string) (test, error){
	"StringEquals":             stringEquals,
	"StringEqualsIgnoreCase":   func(want string) (test, error) { return filled(want, strings.EqualFold), nil },
	"StringLike":               stringLike,
	"IpAddress":                ipAddress,
	"Bool":                     func(want string) (test, error) { return filled(want, strings.EqualFold), nil },
	"BinaryEquals":             binaryEquals,
	"ArnEquals":                arnLike,
	"ArnLike":                  arnLike,
	"NumericEquals":            numeric(func(c int) bool { return c == 0 }),
	"NumericLessThan":          numeric(func(c int) bool { return c < 0 }),
	"NumericLessThanEquals":    numeric(func(c int) bool { return c <= 0 }),
	"NumericGreaterThan":       numeric(func(c int) bool { return c > 0 }),
	"NumericGreaterThanEquals": numeric(func(c int) bool { return c >= 0 }),
	"DateEquals":               date(func(c int) bool { return c == 0 }),
	"DateLessThan":             date(func(c int) bool { return c < 0 }),
	"DateLessThanEquals":       date(func(c int) bool { return c <= 0 }),
	"DateGreaterThan":          date(func(c int) bool { return c > 0 }),
	"DateGreaterThanEquals":    date(func(c int) bool { return c >= 0 }),
}

// filled compares with a value in which variables may stand. One without a value is equal to nothing.
func filled(want string, equal func(a, b string) bool) test {
	return func(have string, context map[string][]string) bool {
		f := fill(want, context)
		return f != literal && equal(strings.ReplaceAll(f, literal, ""), have)
	}
}

func stringEquals(want string) (test, error) {
	return filled(want, func(a, b string) bool { return a == b }), nil
}

func stringLike(want string) (test, error) {
	return func(have string, context map[string][]string) bool { return like(fill(want, context), have) }, nil
}

func arnLike(want string) (test, error) {
	return func(have string, context map[string][]string) bool {
		return like(fill(anywhere(want), context), anywhere(have))
	}, nil
}

func ipAddress(want string) (test, error) {
	if !strings.Contains(want, "/") {
		a, err := netip.ParseAddr(want)
		if err != nil {
			return nil, errs.New(errs.Invalid, "%q is no address", want)
		}
		return func(have string, _ map[string][]string) bool {
			h, err := netip.ParseAddr(have)
			return err == nil && h.Unmap() == a.Unmap()
		}, nil
	}
	p, err := netip.ParsePrefix(want)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%q is no range of addresses", want)
	}
	return func(have string, _ map[string][]string) bool {
		h, err := netip.ParseAddr(have)
		return err == nil && p.Contains(h.Unmap())
	}, nil
}

func binaryEquals(want string) (test, error) {
	if _, err := base64.StdEncoding.DecodeString(want); err != nil {
		return nil, errs.New(errs.Invalid, "%q is not base64", want)
	}
	return func(have string, _ map[string][]string) bool { return have == want }, nil
}

func numeric(ok func(int) bool) func(string) (test, error) {
	return func(want string) (test, error) {
		w, err := number(want)
		if err != nil {
			return nil, err
		}
		return func(have string, _ map[string][]string) bool {
			h, err := number(have)
			return err == nil && ok(h.Cmp(w))
		}, nil
	}
}

func number(s string) (*big.Float, error) {
	f, _, err := big.ParseFloat(s, 10, 128, big.ToNearestEven)
	if err != nil || len(s) > 64 || f.IsInf() {
		return nil, errs.New(errs.Invalid, "%.70q is no number", s)
	}
	return f, nil
}

func date(ok func(int) bool) func(string) (test, error) {
	return func(want string) (test, error) {
		w, err := moment(want)
		if err != nil {
			return nil, err
		}
		return func(have string, _ map[string][]string) bool {
			h, err := moment(have)
			return err == nil && ok(h.Compare(w))
		}, nil
	}
}

// moment reads a date of ISO 8601 or seconds since 1970.
func moment(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	return time.Time{}, errs.New(errs.Invalid, "%q is no date", s)
}

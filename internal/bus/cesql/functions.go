package cesql

import (
	"math"
	"strings"
	"unicode/utf8"
)

// functions are the built-in ones, by name and number of arguments. Sections 3.5.1, 3.5.2 and, for the casts, the conformance suite.
var functions = []struct {
	name string
	function
}{ // never written
	{"LENGTH", function{[]Type{StringType}, false, IntegerType, func(a []Value, at int) (Value, *Error) { return whole(int64(utf8.RuneCountInString(a[0].text)), at) }}},
	{"CONCAT", function{[]Type{StringType}, true, StringType, func(a []Value, at int) (Value, *Error) { return join("", a, at) }}},
	{"CONCAT_WS", function{[]Type{StringType, StringType}, true, StringType, func(a []Value, at int) (Value, *Error) { return join(a[0].text, a[1:], at) }}},
	{"LOWER", function{[]Type{StringType}, false, StringType, func(a []Value, _ int) (Value, *Error) { return String(strings.ToLower(a[0].text)), nil }}},
	{"UPPER", function{[]Type{StringType}, false, StringType, func(a []Value, _ int) (Value, *Error) { return String(strings.ToUpper(a[0].text)), nil }}},
	{"TRIM", function{[]Type{StringType}, false, StringType, func(a []Value, _ int) (Value, *Error) { return String(strings.TrimSpace(a[0].text)), nil }}},
	{"LEFT", function{[]Type{StringType, IntegerType}, false, StringType, left}},
	{"RIGHT", function{[]Type{StringType, IntegerType}, false, StringType, right}},
	{"SUBSTRING", function{[]Type{StringType, IntegerType}, false, StringType, substring}},
	{"SUBSTRING", function{[]Type{StringType, IntegerType, IntegerType}, false, StringType, substring}},
	{"ABS", function{[]Type{IntegerType}, false, IntegerType, abs}},
	{"INT", function{[]Type{IntegerType}, false, IntegerType, same}},
	{"BOOL", function{[]Type{BooleanType}, false, BooleanType, same}},
	{"STRING", function{[]Type{StringType}, false, StringType, same}},
}

// lookup finds a function, or nil.
func lookup(name string, args int) *function {
	for i := range functions {
		f := &functions[i]
		if f.name == name && (args == len(f.params) || f.variadic && args >= len(f.params)-1) {
			return &f.function
		}
	}
	return nil
}

func same(a []Value, _ int) (Value, *Error) { return a[0], nil }

func abs(a []Value, at int) (Value, *Error) {
	if a[0].num == math.MinInt32 {
		return Integer(math.MaxInt32), failed(MathError, at, "the absolute value of %d does not fit into a 32-bit integer", a[0].num)
	}
	return Integer(max(a[0].num, -a[0].num)), nil
}

func join(by string, a []Value, at int) (Value, *Error) {
	var b strings.Builder
	for i, v := range a {
		if i > 0 {
			b.WriteString(by)
		}
		b.WriteString(v.text)
		if b.Len() > maxString {
			return String(""), failed(FunctionEvaluationError, at, "a string of more than %d bytes", maxString)
		}
	}
	return String(b.String()), nil
}

// at is the byte offset of the n-th character, or the length.
func offset(s string, n int64) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func left(a []Value, at int) (Value, *Error) {
	if a[1].num < 0 {
		return a[0], failed(FunctionEvaluationError, at, "LEFT of %d characters", a[1].num)
	}
	return String(a[0].text[:offset(a[0].text, int64(a[1].num))]), nil
}

func right(a []Value, at int) (Value, *Error) {
	if a[1].num < 0 {
		return a[0], failed(FunctionEvaluationError, at, "RIGHT of %d characters", a[1].num)
	}
	skip := int64(utf8.RuneCountInString(a[0].text)) - int64(a[1].num)
	return String(a[0].text[offset(a[0].text, max(0, skip)):]), nil
}

// substring counts from 1, and from the end when pos is negative. pos 0 gives the empty string.
func substring(a []Value, at int) (Value, *Error) {
	s, pos := a[0].text, int64(a[1].num)
	n := int64(utf8.RuneCountInString(s))
	size := n
	if len(a) == 3 {
		if size = int64(a[2].num); size < 0 {
			return String(""), failed(FunctionEvaluationError, at, "SUBSTRING of %d characters", size)
		}
	}
	switch {
	case pos > n || pos < -n:
		return String(""), failed(FunctionEvaluationError, at, "SUBSTRING from %d of a string of %d characters", pos, n)
	case pos > 0:
		pos--
	default:
		pos += n // 0 is behind the end
	}
	rest := s[offset(s, pos):]
	return String(rest[:offset(rest, size)]), nil
}

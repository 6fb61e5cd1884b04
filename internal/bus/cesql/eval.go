package cesql

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/diag"
)

// node is a part of an expression. Errors come with the value that the specification gives for them.
type node interface {
	eval(a Attributes) (Value, *Error)
}

func failed(kind Kind, at int, format string, args ...any) *Error {
	return &Error{Kind: kind, Offset: at, Msg: fmt.Sprintf(format, args...)}
}

// as evaluates an operand and casts it.
func as(n node, a Attributes, t Type, at int) (Value, *Error) {
	v, err := n.eval(a)
	if err != nil {
		return zero(t), err
	}
	v, wrong := cast(v, t)
	if wrong != "" {
		return v, failed(CastError, at, "%s", wrong)
	}
	return v, nil
}

type literal struct{ v Value }

func (l literal) eval(Attributes) (Value, *Error) { return l.v, nil }

type attribute struct {
	at   int
	name string
}

func (n *attribute) eval(a Attributes) (Value, *Error) {
	if v, ok := a(n.name); ok {
		return v, nil
	}
	return Boolean(false), failed(MissingAttributeError, n.at, "the event has no attribute %.40s", n.name)
}

// required are the attributes that every event has. CloudEvents 1.0.2, "Required attributes".
var required = map[string]bool{"id": true, "source": true, "specversion": true, "type": true} // never written

type exists struct{ name string }

func (n exists) eval(a Attributes) (Value, *Error) {
	_, ok := a(n.name)
	return Boolean(ok || required[n.name]), nil
}

type not struct {
	at int
	x  node
}

func (n *not) eval(a Attributes) (Value, *Error) {
	v, err := as(n.x, a, BooleanType, n.at)
	if err != nil {
		return Boolean(false), err
	}
	return Boolean(!v.yes), nil
}

type minus struct {
	at int
	x  node
}

func (n *minus) eval(a Attributes) (Value, *Error) {
	v, err := as(n.x, a, IntegerType, n.at)
	if err != nil {
		return Integer(0), err
	}
	return whole(-int64(v.num), n.at)
}

// whole is an integer's result, or an error when it does not fit.
func whole(n int64, at int) (Value, *Error) {
	if n < math.MinInt32 || n > math.MaxInt32 {
		return Integer(0), failed(MathError, at, "%d does not fit into a 32-bit integer", n)
	}
	return Integer(int32(n)), nil
}

type binary struct {
	op          string
	at          int
	left, right node
}

func (n *binary) eval(a Attributes) (Value, *Error) {
	switch n.op {
	case "AND", "OR", "XOR":
		return n.logic(a)
	case "=", "!=", "<>":
		return n.equal(a)
	}
	result := BooleanType
	if strings.Contains("+-*/%", n.op) {
		result = IntegerType
	}
	x, err := as(n.left, a, IntegerType, n.at)
	if err != nil {
		return zero(result), err
	}
	y, err := as(n.right, a, IntegerType, n.at)
	if err != nil {
		return zero(result), err
	}
	if result == IntegerType {
		return n.compute(int64(x.num), int64(y.num))
	}
	switch n.op {
	case "<":
		return Boolean(x.num < y.num), nil
	case "<=":
		return Boolean(x.num <= y.num), nil
	case ">":
		return Boolean(x.num > y.num), nil
	}
	return Boolean(x.num >= y.num), nil
}

func (n *binary) compute(x, y int64) (Value, *Error) {
	switch n.op {
	case "+":
		return whole(x+y, n.at)
	case "-":
		return whole(x-y, n.at)
	case "*":
		return whole(x*y, n.at)
	}
	if y == 0 {
		return Integer(0), failed(MathError, n.at, "a division by zero")
	}
	if n.op == "/" {
		return whole(x/y, n.at)
	}
	return whole(x%y, n.at)
}

func (n *binary) logic(a Attributes) (Value, *Error) {
	x, err := as(n.left, a, BooleanType, n.at)
	if err != nil {
		return Boolean(false), err
	}
	if n.op == "AND" && !x.yes || n.op == "OR" && x.yes {
		return x, nil
	}
	y, err := as(n.right, a, BooleanType, n.at)
	if err != nil {
		return Boolean(false), err
	}
	if n.op == "XOR" {
		return Boolean(x.yes != y.yes), nil
	}
	return y, nil
}

// equal casts the left operand to the right one's type.
func (n *binary) equal(a Attributes) (Value, *Error) {
	x, err := n.left.eval(a)
	if err != nil {
		return Boolean(false), err
	}
	y, err := n.right.eval(a)
	if err != nil {
		return Boolean(false), err
	}
	x, wrong := cast(x, y.typ)
	if wrong != "" {
		return Boolean(false), failed(CastError, n.at, "%s", wrong)
	}
	return Boolean((x == y) == (n.op == "=")), nil
}

type in struct {
	at   int
	not  bool
	left node
	set  []node
}

// eval casts the elements to the left operand's type.
func (n *in) eval(a Attributes) (Value, *Error) {
	x, err := n.left.eval(a)
	if err != nil {
		return Boolean(false), err
	}
	for _, e := range n.set {
		y, err := as(e, a, x.typ, n.at)
		if err != nil {
			return Boolean(false), err
		}
		if x == y {
			return Boolean(!n.not), nil
		}
	}
	return Boolean(n.not), nil
}

type like struct {
	at      int
	not     bool
	left    node
	pattern []likePart
}

// likePart is one character of a pattern: itself, any one, or any run.
type likePart struct {
	r        rune
	one, run bool
}

// likePattern reads % and _, and \ before them.
func likePattern(text string) (parts []likePart) {
	escaped := false
	for i, r := range text {
		switch {
		case escaped:
			escaped = false
			parts = append(parts, likePart{r: r})
		case r == '\\' && i+1 < len(text) && (text[i+1] == '%' || text[i+1] == '_'):
			escaped = true
		case r == '%':
			parts = append(parts, likePart{run: true})
		case r == '_':
			parts = append(parts, likePart{one: true})
		default:
			parts = append(parts, likePart{r: r})
		}
	}
	return parts
}

func (n *like) eval(a Attributes) (Value, *Error) {
	v, err := as(n.left, a, StringType, n.at)
	if err != nil {
		return Boolean(false), err
	}
	yes, ok := likes(v.text, n.pattern)
	if !ok {
		return Boolean(false), failed(FunctionEvaluationError, n.at, "the pattern takes too long on a string of %d bytes", len(v.text))
	}
	return Boolean(yes != n.not), nil
}

// maxLike bounds the steps of a LIKE: what ordinary ones take is the length of the string.
const maxLike = 1 << 22

// likes goes back to the last % only, as a later % can take whatever an earlier one could.
func likes(s string, pattern []likePart) (yes, ok bool) {
	i, k := 0, 0
	runAt, runK := -1, 0
	for work := 0; i < len(s); work++ {
		if work > maxLike {
			return false, false
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case k < len(pattern) && pattern[k].run:
			runAt, runK = i, k
			k++
		case k < len(pattern) && (pattern[k].one || pattern[k].r == r):
			i += size
			k++
		case runAt >= 0:
			_, size := utf8.DecodeRuneInString(s[runAt:])
			runAt += size
			i, k = runAt, runK+1
		default:
			return false, true
		}
	}
	for k < len(pattern) && pattern[k].run {
		k++
	}
	return k == len(pattern), true
}

// function is a built-in one. Arguments beyond params are of the last one's type where it is variadic.
type function struct {
	params   []Type
	variadic bool
	result   Type
	run      func(args []Value, at int) (Value, *Error)
}

type call struct {
	at   int
	name string
	fn   *function
	args []node
}

func (n *call) eval(a Attributes) (Value, *Error) {
	if n.fn == nil {
		return Boolean(false), failed(MissingFunctionError, n.at, "there is no function %.40s of %d arguments", n.name, len(n.args))
	}
	args := make([]Value, len(n.args))
	for i, arg := range n.args {
		v, err := as(arg, a, n.fn.params[min(i, len(n.fn.params)-1)], n.at)
		if err != nil {
			return zero(n.fn.result), err
		}
		args[i] = v
	}
	return n.fn.run(args, n.at)
}

// functionHint names the functions, or the one that was probably meant.
func functionHint(name string) string {
	var names []string
	for _, f := range functions {
		names = append(names, f.name)
	}
	if near := diag.Nearest(name, names); near != "" && near != name {
		return "Did you mean " + near + "?"
	}
	return ""
}

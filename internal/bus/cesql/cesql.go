// Package cesql evaluates CloudEvents SQL expressions (CESQL 1.0) over an event's attributes.
//
// Main type: [Expr], made by [Parse].
//
// Guarantees:
//
//  1. The language is that of the specification's text (github.com/cloudevents/spec, cesql/spec.md, version 1.0.0): its operators,
//     functions, casts and kinds of errors.
//  2. Evaluation is of the "fail fast" kind: the first error ends it, with the zero value of the type that the failing operation
//     leads to. [Expr.Matches] is false then.
//  3. Parse and evaluation never panic; the length of an expression, its nesting and its strings are bounded.
//
// Where the text and the grammar beside it differ, the text counts: AND, OR and XOR are of one precedence and are taken from left to
// right (the grammar: from right to left); [Expr.Remarks] says where that matters. Beyond the text, as in the grammar: names of
// attributes may be written in capitals. NOT 10 is false without an error, by the table of casts; the conformance suite differs.
//
// It knows nothing of subscriptions, and it never sees an event's data.
package cesql

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits; ebb's own.
const (
	MaxBytes  = 16 << 10 // of an expression
	maxDepth  = 200
	maxString = 1 << 20 // bytes of a string that a function gives
)

// Type is a primitive type.
type Type uint8

// The types.
const (
	StringType Type = iota
	IntegerType
	BooleanType
)

// Value is a value of one of the types. Its zero value is the empty string.
type Value struct {
	typ  Type
	text string
	num  int32
	yes  bool
}

// String is a string value. URIs and times are strings.
func String(s string) Value { return Value{typ: StringType, text: s} }

// Integer is an integer value.
func Integer(n int32) Value { return Value{typ: IntegerType, num: n} }

// Boolean is a boolean value.
func Boolean(b bool) Value { return Value{typ: BooleanType, yes: b} }

// Type is v's type.
func (v Value) Type() Type { return v.typ }

// Any is v as a string, int32 or bool.
func (v Value) Any() any {
	switch v.typ {
	case IntegerType:
		return v.num
	case BooleanType:
		return v.yes
	}
	return v.text
}

// Text is v cast to a string, as all casts to strings succeed.
func (v Value) Text() string {
	switch v.typ {
	case IntegerType:
		return strconv.Itoa(int(v.num))
	case BooleanType:
		return strconv.FormatBool(v.yes)
	}
	return v.text
}

// Attributes looks an attribute or extension up by its name, in lower case.
type Attributes func(name string) (Value, bool)

// Kind is a kind of error of the specification, section 3.3.
type Kind string

// The kinds.
const (
	ParseError              Kind = "parse"
	MathError               Kind = "math"
	CastError               Kind = "cast"
	MissingAttributeError   Kind = "missingAttribute"
	MissingFunctionError    Kind = "missingFunction"
	FunctionEvaluationError Kind = "functionEvaluation"
)

// Error is an error of parsing or evaluation.
type Error struct {
	Kind   Kind
	Offset int // in the expression, in bytes
	Msg    string
	Hint   string // or empty
}

// Error gives the message and the place.
func (e *Error) Error() string { return fmt.Sprintf("%s at byte %d", e.Msg, e.Offset) }

// Remark is something about an expression that is allowed and probably not meant.
type Remark struct {
	Offset int
	Code   string // "cesql-function": no such function; "cesql-mixed": AND beside OR without parentheses
	Msg    string
	Hint   string
}

// Expr is a parsed expression. It is immutable.
type Expr struct {
	source  string
	root    node
	remarks []Remark
}

// String is the expression's source.
func (e *Expr) String() string { return e.source }

// Remarks are what a user should hear of the expression before it is used.
func (e *Expr) Remarks() []Remark { return e.remarks }

// Eval gives the expression's value. With an error, which is an *Error, the value is the zero value of the expression's type, or what
// the specification says of the function that failed.
func (e *Expr) Eval(a Attributes) (Value, error) {
	v, err := e.root.eval(a)
	if err != nil {
		return v, err
	}
	return v, nil
}

// Matches says whether the expression is the boolean true for an event; an error is no match.
func (e *Expr) Matches(a Attributes) bool {
	v, err := e.root.eval(a)
	return err == nil && v.typ == BooleanType && v.yes
}

// cast converts v, by the table of section 3.7.
func cast(v Value, to Type) (Value, string) {
	if v.typ == to {
		return v, ""
	}
	switch to {
	case StringType:
		return String(v.Text()), ""
	case IntegerType:
		if v.typ == BooleanType {
			if v.yes {
				return Integer(1), ""
			}
			return Integer(0), ""
		}
		n, err := strconv.ParseInt(v.text, 10, 32)
		if err != nil {
			return Integer(0), fmt.Sprintf("%.40q is no 32-bit integer", v.text)
		}
		return Integer(int32(n)), ""
	}
	if v.typ == IntegerType {
		return Boolean(v.num != 0), ""
	}
	switch strings.ToLower(v.text) {
	case "true":
		return Boolean(true), ""
	case "false":
		return Boolean(false), ""
	}
	return Boolean(false), fmt.Sprintf("%.40q is neither true nor false", v.text)
}

func zero(t Type) Value { return Value{typ: t} }

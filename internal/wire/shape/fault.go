package shape

import (
	"fmt"
	"strings"
)

// Kind says what is wrong with a request.
type Kind int

// The kinds of fault.
const (
	Malformed Kind = iota // it cannot be read
	Mismatch              // a value is of another kind
	Invalid               // values break the table's rules
)

// Fault is what is wrong with a request.
type Fault struct {
	Kind     Kind
	Text     string // of Malformed and Mismatch
	Problems []Problem
}

// Problem is one value that breaks a rule of the table.
type Problem struct {
	Path       string // "entries.1.member.id": names with a small first letter, as AWS writes them
	Member     string // the last name, as the table has it
	Missing    bool
	Value      string // as AWS writes it; "" when missing
	Constraint string // "Member must not be null"
}

// maxShown bounds what an answer repeats of one value.
const maxShown = 4096

// Shown is a value as an answer repeats it: whole, unless it is long.
func Shown(value string) string {
	if len(value) <= maxShown {
		return value
	}
	return strings.ToValidUTF8(value[:maxShown], "") + "…"
}

// Error describes the fault in the words of AWS's common validation.
func (f *Fault) Error() string {
	if f.Kind != Invalid {
		return f.Text
	}
	parts := make([]string, len(f.Problems))
	for i, p := range f.Problems {
		value := "'" + Shown(p.Value) + "'"
		if p.Missing {
			value = "null"
		}
		parts[i] = fmt.Sprintf("Value %s at '%s' failed to satisfy constraint: %s", value, p.Path, p.Constraint)
	}
	noun := "error"
	if len(parts) > 1 {
		noun = "errors"
	}
	return fmt.Sprintf("%d validation %s detected: %s", len(parts), noun, strings.Join(parts, "; "))
}

func malformed(format string, args ...any) error {
	return &Fault{Kind: Malformed, Text: fmt.Sprintf(format, args...)}
}

func mismatch(format string, args ...any) error {
	return &Fault{Kind: Mismatch, Text: fmt.Sprintf(format, args...)}
}

// JSONText is JSON as it is, for further members of an error.
type JSONText string

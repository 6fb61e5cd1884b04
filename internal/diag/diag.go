// Package diag holds located diagnostics: faults in the user's own files.
//
// Main type: [List]. A front-end or a build step collects every fault of one
// pass into a List and goes on; the command line prints them all.
//
// Guarantees:
//
//  1. A Diagnostic names its place (file:line:col, as far as known), a stable
//     code, and where there is one a hint with the mend.
//  2. [Nearest] never suggests a name that is further off than a third of its length
//     (but one edit is always near enough).
//
// Faults of ebb itself are plain errors (package errs), never diagnostics.
package diag

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity orders diagnostics.
type Severity string

// The severities. Only Error stops a load.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Note    Severity = "note"
)

// Pos is a place in a user's file. Line and Col count from 1 (Col in bytes); 0 means not known.
type Pos struct {
	File string `json:"file,omitempty"` // relative to the project's root, with slashes
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// String gives file:line:col, leaving out what is not known.
func (p Pos) String() string {
	switch {
	case p.File == "":
		return ""
	case p.Line == 0:
		return p.File
	case p.Col == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Diagnostic is one fault or remark about a user's file.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // stable, kebab-case: "unknown-key"
	Pos
	Message string `json:"message"`        // lower-case, no full stop
	Hint    string `json:"hint,omitempty"` // a sentence that says how to mend it
}

// String gives the one-line form: place: severity: message [code].
func (d Diagnostic) String() string {
	var b strings.Builder
	if s := d.Pos.String(); s != "" {
		b.WriteString(s + ": ")
	}
	fmt.Fprintf(&b, "%s: %s [%s]", d.Severity, d.Message, d.Code)
	return b.String()
}

// List collects diagnostics.
type List []Diagnostic

// Add appends d.
func (l *List) Add(d Diagnostic) { *l = append(*l, d) }

// Errorf appends an error.
func (l *List) Errorf(pos Pos, code, hint, format string, args ...any) {
	l.Add(Diagnostic{Severity: Error, Code: code, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// Warnf appends a warning.
func (l *List) Warnf(pos Pos, code, hint, format string, args ...any) {
	l.Add(Diagnostic{Severity: Warning, Code: code, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// Notef appends a note.
func (l *List) Notef(pos Pos, code, hint, format string, args ...any) {
	l.Add(Diagnostic{Severity: Note, Code: code, Pos: pos, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// HasErrors says whether any diagnostic is an error.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// Sorted returns the diagnostics ordered by place; those without a place come last.
func (l List) Sorted() List {
	s := slices.Clone(l)
	slices.SortStableFunc(s, func(a, b Diagnostic) int {
		if (a.File == "") != (b.File == "") {
			return cmp.Compare(b.File, a.File)
		}
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return s
}

// Nearest returns the candidate closest to name by edit distance, or "" when none is near.
// Case is ignored, so a wrong case is always near.
func Nearest(name string, candidates []string) string {
	best, bestDist := "", max(1, len(name)/3)+1
	lower := strings.ToLower(name)
	for _, c := range candidates {
		if d := distance(lower, strings.ToLower(c), bestDist); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

// distance is the Damerau-Levenshtein distance (adjacent transpositions count one); it
// may return any value ≥ limit once the distance is known to reach limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}

package artifact

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

var sumA, sumB = strings.Repeat("a", 64), strings.Repeat("b", 64)

func manifest(es ...Entry) *Manifest { return &Manifest{Format: Format, Entries: es} }

func TestManifest_ValidateRefuses(t *testing.T) {
	t.Parallel()
	file := func(p string) Entry { return Entry{Path: p, Mode: 0o644, Size: 1, SHA256: sumA} }
	link := func(p, to string) Entry { return Entry{Path: p, Link: to} }
	for _, row := range []struct {
		name string
		m    *Manifest
		code errs.Code // empty: it is fine
	}{
		{"nothing", manifest(), ""},
		{"files and folders", manifest(file("a"), file("b/c"), file("b/d/e")), ""},
		{"names that look like parents", manifest(file("..a"), file("a/..b")), ""},
		{"case differs", manifest(file("A"), file("a")), ""},
		{"parent", manifest(file("../a")), errs.Invalid},
		{"parent alone", manifest(file("..")), errs.Invalid},
		{"inner parent", manifest(file("a/../../b")), errs.Invalid},
		{"absolute", manifest(file("/etc/passwd")), errs.Invalid},
		{"not clean", manifest(file("a//b")), errs.Invalid},
		{"dot", manifest(file(".")), errs.Invalid},
		{"empty path", manifest(file("")), errs.Invalid},
		{"backslash", manifest(file(`a\b`)), errs.Invalid},
		{"nul", manifest(file("a\x00b")), errs.Invalid},
		{"twice", manifest(file("a"), file("a")), errs.Invalid},
		{"not sorted", manifest(file("b"), file("a")), errs.Invalid},
		{"file and folder", manifest(file("a"), file("a-b"), file("a/b")), errs.Invalid},
		{"file below a link", manifest(link("a", "b"), file("a/c"), file("b/d")), errs.Invalid},
		{"link inside", manifest(file("a/b"), link("c/d", "../a/b"), link("e", "a")), ""},
		{"link to the parent", manifest(link("a", "..")), errs.Invalid},
		{"link far up", manifest(link("a/b", "../../etc")), errs.Invalid},
		{"absolute link", manifest(link("a", "/etc/passwd")), errs.Invalid},
		{"winding link", manifest(link("a", "b/../../c")), errs.Invalid},
		{"winding link that seems to stay", manifest(link("a", "b/../c")), errs.Invalid},
		{"link with size", manifest(Entry{Path: "a", Link: "b", Size: 1}), errs.Invalid},
		{"no digest", manifest(Entry{Path: "a", Mode: 0o644}), errs.Invalid},
		{"upper-case digest", manifest(Entry{Path: "a", Mode: 0o644, SHA256: strings.ToUpper(sumA)}), errs.Invalid},
		{"setuid", manifest(Entry{Path: "a", Mode: 0o4755, SHA256: sumA}), errs.Invalid},
		{"size below zero", manifest(Entry{Path: "a", Mode: 0o644, Size: -1, SHA256: sumA}), errs.Invalid},
		{"too large", manifest(Entry{Path: "a", Mode: 0o644, Size: 200 << 20, SHA256: sumA}, Entry{Path: "b", Mode: 0o644, Size: 51 << 20, SHA256: sumB}), errs.TooLarge},
		{"size overflows", manifest(Entry{Path: "a", Mode: 0o644, Size: 1 << 20, SHA256: sumA}, Entry{Path: "b", Mode: 0o644, Size: 1<<63 - 1, SHA256: sumB}), errs.TooLarge},
		{"too many", manifest(make([]Entry, 200_001)...), errs.TooLarge},
		{"format of the future", &Manifest{Format: Format + 1}, errs.Unsupported},
		{"no format", &Manifest{}, errs.Invalid},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if err := row.m.Validate(); errs.CodeOf(err) != row.code {
				t.Errorf("got %v, want code %q", err, row.code)
			}
		})
	}
}

func TestManifest_DigestTellsContentsApart(t *testing.T) {
	t.Parallel()
	base := Entry{Path: "a", Mode: 0o644, Size: 1, SHA256: sumA}
	seen := map[string]string{}
	for name, e := range map[string]Entry{
		"base":    base,
		"path":    {Path: "b", Mode: 0o644, Size: 1, SHA256: sumA},
		"mode":    {Path: "a", Mode: 0o755, Size: 1, SHA256: sumA},
		"content": {Path: "a", Mode: 0o644, Size: 1, SHA256: sumB},
		"link":    {Path: "a", Link: "x"},
		"quoted":  {Path: "a\" 644 1", Mode: 0o644, Size: 1, SHA256: sumA},
	} {
		d := manifest(e).Digest()
		if other, dup := seen[d]; dup {
			t.Errorf("%s and %s have one digest", name, other)
		}
		seen[d] = name
	}
	again := manifest(base)
	if manifest(base).Digest() != again.Digest() {
		t.Error("the digest of one manifest changes")
	}
}

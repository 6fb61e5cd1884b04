package lambda

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
)

func TestCode_GivesAScriptForShToBash(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skipf("needs bash: %v", err)
	}
	p, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nset -euo pipefail\necho 'f() { echo sourced; }' > \"$1/f.sh\"\nsource \"$1\"/f.sh\nf\n"
	if err := os.WriteFile(filepath.Join(dir, "bootstrap"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	c, err := p.Code(&guest.Unit{Function: "f", Runtime: "provided", Handler: "x", Root: dir}, "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(c.Command[0], append(c.Command[1:], dir)...).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "sourced" {
		t.Errorf("%v gives %q, %v", c.Command, out, err)
	}
}

func TestCode_GivesOnlyScriptsForShToBash(t *testing.T) {
	t.Parallel()
	p, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if p.sh == "" {
		t.Skip("/bin/sh is bash here, or there is no bash")
	}
	for line, want := range map[string][]string{
		"#!/bin/sh": {p.sh}, "#! /bin/sh": {p.sh}, "#!/bin/sh -e -u": {p.sh, "-e -u"}, "#!/bin/bash": {}, "#!/bin/shx": {}, "#!/usr/bin/env sh": {}, "\x7fELF": {}, "#!": {},
	} {
		file := filepath.Join(t.TempDir(), "bootstrap")
		if err := os.WriteFile(file, []byte(line+"\nexit\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := p.script(&guest.Unit{Root: "/code"}, file); !slices.Equal(got, append(want, file)) {
			t.Errorf("%q is run by %q", line, got)
		}
	}
}

package lambda

import (
	"os"
	"os/exec"
	"path/filepath"
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

func TestForShell_KnowsOnlySh(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{"#!/bin/sh": true, "#! /bin/sh": true, "#!/bin/bash": false, "#!/bin/sh -e": true, "#!/bin/shx": false, "#!/usr/bin/env sh": false, "\x7fELF": false} {
		file := filepath.Join(t.TempDir(), "bootstrap")
		if err := os.WriteFile(file, []byte(line+"\nexit\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		args, got := forShell(file)
		if got != want || strings.HasSuffix(line, " -e") != (len(args) == 1 && args[0] == "-e") {
			t.Errorf("forShell(%q) = %q, %v", line, args, got)
		}
	}
}

package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// licences that the binary may carry, by a phrase that only they hold.
var licences = []struct {
	name   string
	phrase *regexp.Regexp
}{
	{"Apache-2.0", regexp.MustCompile(`Apache License\s+Version 2\.0`)},
	{"MPL-2.0", regexp.MustCompile(`Mozilla Public License`)},
	{"MIT", regexp.MustCompile(`(?i)Permission is hereby granted, free of charge`)},
	{"ISC", regexp.MustCompile(`(?i)Permission to use, copy, modify, and/?\s*(and/or|or)? distribute this software`)},
	{"CC0-1.0", regexp.MustCompile(`Creative Commons Legal Code\s+CC0 1\.0 Universal`)}, // gives up all rights; a hash function has it
	{"BSD", regexp.MustCompile(`(?i)Redistribution and use in source and binary forms`)},
}

// refused have conditions a self-hosted product cannot pass on.
var refused = regexp.MustCompile(`(?i)GNU (AFFERO )?GENERAL PUBLIC LICENSE|Server Side Public License|Business Source License|Commons Clause|Elastic License`)

// classify returns a licence's name, or "" when it is refused or not known.
func classify(text []byte) string {
	if refused.Match(text) && !bytes.Contains(text, []byte("Mozilla Public License")) { // MPL-2.0 names the GNU licences as secondary ones
		return ""
	}
	for _, l := range licences {
		if l.phrase.Match(text) {
			return l.name
		}
	}
	return ""
}

func TestLicences_OfAllDependenciesAreAllowed(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("go", "list", "-deps", "-json=Module", "./cmd/ebb")
	cmd.Dir = filepath.Join("..", "..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dirs := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Module *struct {
				Path, Dir string
				Main      bool
			}
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil && !p.Module.Main {
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
	if len(dirs) < 5 {
		t.Fatalf("only %d dependencies found; the listing is wrong", len(dirs))
	}
	for path, dir := range dirs {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		found := ""
		for _, n := range names {
			base := strings.ToUpper(n.Name())
			if !n.IsDir() && slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING"}, func(p string) bool { return strings.HasPrefix(base, p) }) {
				text, err := os.ReadFile(filepath.Join(dir, n.Name()))
				if err != nil {
					t.Fatal(err)
				}
				if found = classify(text); found != "" {
					break
				}
			}
		}
		if found == "" {
			t.Errorf("dependency %s has no licence on the list", path)
		}
	}
}

func TestClassify_RefusesWhatItMust(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Apache License\n                           Version 2.0, January 2004": "Apache-2.0",
		"GNU AFFERO GENERAL PUBLIC LICENSE":                                    "",
		"Business Source License 1.1":                                          "",
		"Server Side Public License":                                           "",
		"Permission is hereby granted, free of charge, to any person":          "MIT",
		"all rights reserved":                                                  "",
	} {
		if got := classify([]byte(text)); got != want {
			t.Errorf("classify(%q) = %q, want %q", text, got, want)
		}
	}
}

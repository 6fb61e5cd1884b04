package lambda_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBytecode_IsOfTheFirstInit: the first Init makes the bytecode of what it imports, and the others load that.
func TestBytecode_IsOfTheFirstInit(t *testing.T) {
	t.Parallel()
	n := newNursery(t)
	u := n.unit(`
import os, sys, lib, pack.part
def look(m): return [m.__file__, m.__cached__.startswith('/var/compiled/'), os.path.exists(m.__cached__)]
at_init = {'lib': look(lib), 'part': look(pack.part), 'value': lib.value() + pack.part.value, 'writes': sys.dont_write_bytecode}
def handler(e, c):
    import late, json.tool
    return {**at_init, 'late': late.value, 'late cached': os.path.exists(late.__cached__), 'writes later': sys.dont_write_bytecode, 'prefix': sys.pycache_prefix,
            'tmp': os.listdir('/tmp'), 'task': sorted(os.listdir('/var/task')), 'stdlib': json.tool.__cached__.startswith('/var/compiled'), 'modules': [m for m in sys.modules if 'compiled' in m], 'path': sys.path[0]}
`)
	for name, text := range map[string]string{"lib.py": "def value(): return 40", "pack/__init__.py": "", "pack/part.py": "value = 2", "late.py": "value = 1"} {
		file := filepath.Join(u.Root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	u.Compiled = filepath.Join(public(t), "code", "way")
	first := decode(t, n.call(u, executed))
	files, err := filepath.Glob(filepath.Join(u.Compiled, "*", "*.pyc"))
	if err != nil || len(files) != 4 { // app, lib, pack, pack.part
		t.Fatalf("bytecode: %v, %v", files, err)
	}
	n.ready(u)
	for _, how := range []string{executed, copied, ahead} {
		again := decode(t, n.came(u, how))
		for what, want := range map[string]string{
			"lib": `["/var/task/lib.py", true, true]`, "part": `["/var/task/pack/part.py", true, true]`, "value": "42", "writes": "true", "writes later": "true", "late": "1", "late cached": "false",
			"prefix": "null", "tmp": "[]", "stdlib": "false", "modules": "[]", "path": `"/var/task"`, "task": `["app.py", "late.py", "lib.py", "pack"]`,
		} {
			if again[what] != want {
				t.Errorf("%s: %s: %s, want %s", how, what, again[what], want)
			}
			if had := first[what]; had != want && what != "lib" && what != "part" && what != "writes" {
				t.Errorf("first: %s: %s, want %s", what, had, want)
			}
		}
	}
	// Bytecode of another source is not loaded.
	if err := os.WriteFile(filepath.Join(u.Root, "lib.py"), []byte("def value(): return 1000"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := decode(t, n.came(u, copied))["value"]; got != "1002" {
		t.Errorf("after a change of the source: %s", got)
	}
	// Nonsense is not loaded either.
	for _, f := range files {
		if err := os.WriteFile(f, []byte("nonsense"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := decode(t, n.came(u, copied))["value"]; got != "1002" {
		t.Errorf("with broken bytecode: %s", got)
	}
}

// TestBytecode_ThatIsTooMuchIsLeftOut: what fits is kept, and nobody tries again.
func TestBytecode_ThatIsTooMuchIsLeftOut(t *testing.T) {
	t.Parallel()
	n := newNursery(t)
	u := n.unit("import sys, huge\nfirst = not sys.dont_write_bytecode\ndef handler(e, c): return {'first': first}")
	if err := os.WriteFile(filepath.Join(u.Root, "huge.py"), []byte("x = '"+strings.Repeat("x", 17<<20)+"'"), 0o644); err != nil {
		t.Fatal(err)
	}
	u.Compiled = filepath.Join(public(t), "code", "way")
	for _, want := range []string{"true", "false"} {
		if got := decode(t, n.call(u, executed))["first"]; got != want {
			t.Errorf("makes bytecode: %s, want %s", got, want)
		}
	}
	if files, err := filepath.Glob(filepath.Join(u.Compiled, "*", "*.pyc")); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// TestBytecode_OfItsOwnIsUsed: what a project brings in __pycache__ is not made again.
func TestBytecode_OfItsOwnIsUsed(t *testing.T) {
	t.Parallel()
	n := newNursery(t)
	u := n.unit("import lib\ndef handler(e, c): return {'cached': lib.__cached__}")
	if err := os.WriteFile(filepath.Join(u.Root, "lib.py"), []byte("x = 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	tag := strings.Trim(decode(t, n.call(n.unit("import sys\ndef handler(e, c): return {'tag': sys.implementation.cache_tag}"), executed))["tag"], `"`)
	own := filepath.Join(u.Root, "__pycache__", "lib."+tag+".pyc")
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	u.Compiled = filepath.Join(public(t), "code", "way")
	for range 2 {
		if got := decode(t, n.call(u, executed))["cached"]; got != `"/var/task/__pycache__/lib.`+tag+`.pyc"` {
			t.Errorf("bytecode from %s", got)
		}
	}
}

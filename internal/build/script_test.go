package build_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/build"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/fence"
)

func TestScript_IsOneModuleWhosePartsKnowTheirPlaces(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tsconfig.json": `{"extends": "./paths.json"}`, "paths.json": `{"compilerOptions": {"baseUrl": ".", "paths": {"@lib/*": ["lib/*"]}}}`,
		"serverless.ts": `import type { AWS } from 'not-installed';
import { place, url } from '@lib/place';
import own from './lib/own';
import plain = require('./lib/plain.js');
enum Size { Small = 128 }
const all: AWS = { place: place(), url, own, plain: plain.dir, here: __dirname, size: Size.Small };
module.exports = all;
`,
		"lib/place.ts": "export const place = (): string => __dirname + '|' + __filename;\nexport const url: string = import.meta.url;\n",
		"lib/own.ts":   "import { dirname } from 'node:path';\nimport { fileURLToPath } from 'node:url';\nconst __filename = fileURLToPath(import.meta.url);\nconst __dirname = dirname(__filename);\nexport default __dirname;\n",
		"lib/plain.js": "'use strict';\nexports.dir = __dirname;\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := build.Script(filepath.Join(dir, "serverless.ts"), fence.New(fence.Options{Root: dir}))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "node", "-e", text+"\nconst v = module.exports; console.log([v.place, v.url, v.own, v.plain, v.here, v.size].join('\\n'))").CombinedOutput()
	lib := filepath.Join(dir, "lib")
	want := strings.Join([]string{lib + "|" + filepath.Join(lib, "place.ts"), "file://" + filepath.Join(lib, "place.ts"), lib, lib, dir, "128", ""}, "\n")
	if err != nil || string(out) != want {
		t.Errorf("got %v:\n%s\nwant:\n%s\nof:\n%s", err, out, want, text)
	}
}

func TestScript_FaultsHaveTheirPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := func(name string) (string, bool) { return filepath.Join(filepath.Dir(dir), "none"), name == "HOME" } // nothing is shared with what is beside dir
	for name, c := range map[string]struct{ text, want string }{
		"syntax.ts": {"const x = 1\nconst y: = 2\n", "syntax.ts:2:10: "}, "import.ts": {"\nimport x from './none';\nexport default x;\n", `import.ts:2:15: Could not resolve "./none"`},
		"large.ts": {"export default '" + strings.Repeat("x", 5<<20) + "'", "more than"},
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if text, err := build.Script(file, fence.New(fence.Options{Root: filepath.Dir(file), Env: env})); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %d bytes (%s)", name, err, len(text), errs.CodeOf(err))
		}
	}
	outside := filepath.Join(t.TempDir(), "secret.json")
	project := filepath.Join(dir, "project")
	if err := errors.Join(os.WriteFile(outside, []byte(`{"key": "canary"}`), 0o644), os.Mkdir(project, 0o755), os.WriteFile(filepath.Join(dir, "shared.ts"), []byte("export default 1"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(project, "link.json")); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"import x from '" + outside + "'; export default x": "is outside of", "import x from './link.json'; export default x": "is outside of"} {
		file := filepath.Join(project, "serverless.ts")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := build.Script(file, fence.New(fence.Options{Root: filepath.Dir(file), Env: env})); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, %s", text, err, got)
		}
	}
	if err := os.WriteFile(filepath.Join(project, "serverless.ts"), []byte("import x from '../shared'; export default x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := build.Script(filepath.Join(project, "serverless.ts"), fence.New(fence.Options{Root: project, Env: env})); err != nil {
		t.Errorf("beside it: %v", err)
	}
	if _, err := build.Script(filepath.Join(dir, "none.ts"), fence.New(fence.Options{Root: dir})); err == nil {
		t.Error("a file that is not there is a module")
	}
}

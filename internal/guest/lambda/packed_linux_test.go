package lambda_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

// modular is a function of modules of every kind, which tells all that it can find out about how they were loaded.
var modular = map[string]string{
	"index.js": `
const path = require('path');
const order = globalThis.order = [];
const dep = require('./part/dep'), again = require('./part/dep.js'), folder = require('./part'), data = require('./part/data.json'), pkg = require('pkg'), sub = require('pkg/sub'), lib = require('./part');
const tried = (f) => { try { return f(); } catch (e) { return [e.constructor.name, e.code, e.message.split('\n')[0]]; } };
const tree = (m) => [m.id, m.filename, m.loaded, m.path, m.paths, m.children.map((c) => c.filename), m.parent && m.parent.filename];
exports.handler = async () => ({
  same: dep === again && folder === lib, dep: dep.all(), data, pkg, sub, order,
  module: tree(module), below: tree(require.cache[require.resolve('./part/dep')]), keys: Object.keys(require).sort(), main: require.main && require.main.filename,
  cache: Object.keys(require.cache).filter((f) => f.startsWith('/var/task')).sort(), extensions: Object.keys(require.extensions),
  resolve: [require.resolve('./part'), require.resolve('pkg/sub'), require.resolve('fs'), require.resolve('./dep', { paths: ['/var/task/part'] }), require.resolve.paths('x'), require.resolve.paths('./x')],
  failing: [tried(() => require('./none')), tried(() => require('none')), tried(() => require('pkg/hidden')), tried(() => require('./part/broken')), tried(() => require('./part/thrower')), tried(() => require('./part/bad.json')), tried(() => require('./part/thrower'))],
  stack: dep.fail().split('\n').slice(0, 3), first: dep.firstLine().split('\n')[1], text: String(dep.fail), shebang: require('./part/shebang'), lazy: require('./part/lazy'), lazyData: require('./part/lazy.json'),
  dynamic: (await require('./part/dynamic')()).value, circular: require('./part/a').seen, cjs: require('./part/other.cjs'), odd: require('./part/odd.ext'), typed: tried(() => require('./esm/x.js').value === 5),
  tmp: require('fs').readdirSync('/tmp'),
});
`,
	"part/index.js":                 "exports.name = 'the folder';",
	"part/dep.js":                   "exports.fail = function fail() { try { null.x } catch (e) { return e.stack; } }; exports.firstLine = () => new Error('first').stack;\n'use strict';\norder.push('dep');\nconst own = this;\nexports.all = () => [__filename, __dirname, own === module.exports, module.exports === exports, (function () { return this === undefined; })(), typeof arguments, module.id, require('./index').name];\n",
	"part/data.json":                "\ufeff{\"a\": [1, \"ä\"]}",
	"part/bad.json":                 "{",
	"part/broken.js":                "const x = ;",
	"part/thrower.js":               "order.push('thrower'); throw new RangeError('thrown');",
	"part/shebang.js":               "#!/usr/bin/env node\nmodule.exports = 'shebang';",
	"part/lazy.js":                  "module.exports = 'lazy';",
	"part/lazy.json":                "\"lazy\"",
	"part/dynamic.js":               "module.exports = () => import('../esm/x.mjs');",
	"part/a.js":                     "exports.early = 1; const b = require('./b'); exports.seen = [b.seen, exports.early];",
	"part/b.js":                     "exports.seen = [Object.keys(require('./a')), module.parent.filename];",
	"part/other.cjs":                "'use strict'; module.exports = [typeof this, (function () { return this === undefined; })()];",
	"part/odd.ext":                  "module.exports = 'odd';",
	"esm/x.mjs":                     "export const value = 4;",
	"esm/package.json":              `{"type": "module"}`,
	"esm/x.js":                      "export const value = 5;",
	"node_modules/pkg/main.js":      "module.exports = { pkg: true, from: __filename };",
	"node_modules/pkg/sub.cjs":      "module.exports = 'sub';",
	"node_modules/pkg/package.json": `{"name": "pkg", "exports": {".": {"import": "./none.mjs", "require": "./main.js"}, "./sub": "./sub.cjs"}}`,
}

func modularUnit(t *testing.T, more map[string]string) *guest.Unit {
	t.Helper()
	dir := public(t)
	put := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range modular {
		put(name, text)
	}
	put("part/index.js", modular["part/index.js"]+strings.Repeat("\n// much code", 4000))
	for name, text := range more {
		put(name, text)
	}
	u := unit("nodejs22.x", "index.handler", dir)
	u.Interpreter, u.Mounts = interpreter(t, "EBB_TEST_NODE", "node"), true
	return u
}

// packOf is the file in which the Unit's modules are, or "".
func packOf(t *testing.T, u *guest.Unit) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(u.Compiled, "pack-*", "commonjs"))
	if err != nil || len(files) > 1 {
		t.Fatal(files, err)
	}
	return strings.Join(files, "")
}

// TestPack_ChangesNothing: with modules from one file a function finds what it finds without.
func TestPack_ChangesNothing(t *testing.T) {
	t.Parallel()
	d, p := isolating(t, process.Options{})
	u := modularUnit(t, nil)
	other, otherP := isolating(t, process.Options{})
	plain, err := answer(t, other, otherP, u, false)
	if err != nil {
		t.Fatal(err)
	}
	same := func(what, got string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var a, b map[string]json.RawMessage
		if json.Unmarshal([]byte(plain), &a) != nil || json.Unmarshal([]byte(got), &b) != nil || len(a) < 20 {
			t.Fatalf("%s: %s\nwant %s", what, got, plain)
		}
		for name, want := range a {
			if !bytes.Equal(b[name], want) {
				t.Errorf("%s: %s:\ngot  %s\nwant %s", what, name, b[name], want)
			}
		}
	}
	u.Compiled = filepath.Join(public(t), "code", "way")
	first, err := answer(t, d, p, u, false)
	same("the first", first, err)
	pack := packOf(t, u)
	if pack == "" {
		t.Fatal("there is no pack")
	}
	// What is in it is not read elsewhere.
	for _, name := range []string{"part/dep.js", "part/data.json"} {
		if err := os.WriteFile(filepath.Join(u.Root, name), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got, err := answer(t, d, p, u, true)
		same("another", got, err)
	}
	for _, name := range []string{"part/dep.js", "part/data.json"} {
		if err := os.WriteFile(filepath.Join(u.Root, name), []byte(modular[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	right, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string][]byte{"nonsense": []byte("nonsense"), "empty": nil, "a broken head": right[:100], "of another kind": bytes.Replace(right, []byte(`"options":"[`), []byte(`"options":"(`), 1)} {
		if err := os.WriteFile(pack, text, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := answer(t, d, p, u, true)
		same(what, got, err)
	}
}

// TestPack_LeavesWhatOthersCompile: transpilers and tracers see every module, in the first Init and later.
func TestPack_LeavesWhatOthersCompile(t *testing.T) {
	t.Parallel()
	for name, hook := range map[string]string{
		"an extension": `const M = require('module'), old = M._extensions['.js'];
M._extensions['.js'] = function (m, f) { const c = m._compile; m._compile = function (text, g) { m._compile = c; m._compile(text.replace('WORD', 'changed'), g); }; old(m, f); };`,
		"the prototype": `const M = require('module'), old = M.prototype._compile;
M.prototype._compile = function (text, ...more) { return old.call(this, text.replace('WORD', 'changed'), ...more); };`,
		"require":   `const M = require('module'), old = M.prototype.require; M.prototype.require = function (id) { const x = old.call(this, id); return id === './late' ? 'changed' : x; };`,
		"resolving": `const M = require('module'), old = M._resolveFilename; M._resolveFilename = function (id, ...more) { return old.call(this, id === './late' ? './other' : id, ...more); };`,
	} {
		u := modularUnit(t, map[string]string{
			"index.js": "require('./part'); require('./hook'); const late = require('./late'); exports.handler = async () => ({ late });",
			"hook.js":  hook, "late.js": "module.exports = 'WORD';", "other.js": "module.exports = 'changed';",
		})
		u.Compiled = filepath.Join(public(t), "code", "way")
		d, p := isolating(t, process.Options{})
		for i := range 3 {
			if got, err := answer(t, d, p, u, i > 0); err != nil || got != `{"late":"changed"}` {
				t.Errorf("%s: start %d: %s, %v", name, i, got, err)
			}
		}
		if packOf(t, u) == "" {
			t.Errorf("%s: there is no pack", name)
		}
	}
}

// TestPack_IsOfWhatCountsAtItsMaking: what decides where a module is, or what its stack traces show, is as it was, or there is no pack.
func TestPack_IsOfWhatCountsAtItsMaking(t *testing.T) {
	t.Parallel()
	d, p := isolating(t, process.Options{})
	u := modularUnit(t, map[string]string{
		"index.js":   "require('./part'); const where = require('where'); exports.handler = async () => ({ where });",
		"a/where.js": "module.exports = 'a'", "b/where.js": "module.exports = 'b'",
	})
	u.Compiled = filepath.Join(public(t), "code", "way")
	for i, of := range []string{"a", "a", "b", "a"} {
		u.Env = []string{"NODE_PATH=/var/task/" + of}
		if got, err := answer(t, d, p, u, i > 0); err != nil || got != `{"where":"`+of+`"}` {
			t.Errorf("start %d: %s, %v; want %s", i, got, err, of)
		}
	}
	d, p = isolating(t, process.Options{})
	mapped := modularUnit(t, nil)
	mapped.Env = []string{"NODE_OPTIONS=--enable-source-maps"}
	mapped.Compiled = filepath.Join(public(t), "code", "way")
	for i := range 2 {
		if _, err := answer(t, d, p, mapped, i > 0); err != nil {
			t.Error(err)
		}
	}
	if pack := packOf(t, mapped); pack != "" || !isFolder(mapped.Compiled) {
		t.Errorf("with source maps there is %q", pack)
	}
}

func isFolder(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

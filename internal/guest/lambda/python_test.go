package lambda_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
)

func pythonUnit(t testing.TB, handler string, files map[string]string) *guest.Unit {
	t.Helper()
	u := unit("python3.11", handler, write(t, files))
	u.Interpreter = interpreter(t, "EBB_TEST_PYTHON", "python3")
	return u
}

func py(text string) map[string]string { return map[string]string{"app.py": text} }

var pythonCases = []guestCase{
	{name: "result", files: py("def handler(e, c):\n    return {'got': e['n'] + 1, 't': (1, 2)}"), in: `{"n":1}`, want: `{"got": 2, "t": [1, 2]}`},
	{name: "none", files: py("def handler(e, c): pass"), want: `null`},
	{name: "empty payload", files: py("def handler(e, c): return e"), in: ``, want: `{}`},
	{name: "invalid JSON", files: py("def handler(e, c): return e"), in: `{"a":`, like: `"errorType": "Runtime.UnmarshalError"`, fails: "Runtime.UnmarshalError"},
	{name: "nested path", handler: "src/a/b.handler", files: map[string]string{"src/a/b.py": "def handler(e, c): return __file__"}, want: `"{root}/src/a/b.py"`},
	{name: "dotted path", handler: "src.a.b.handler", files: map[string]string{"src/a/b.py": "def handler(e, c): return __name__"}, want: `"src.a.b"`},
	{name: "package", handler: "pack.handler", files: map[string]string{"pack/__init__.py": "from .m import handler", "pack/m.py": "def handler(e, c): return 1"}, want: `1`},
	{name: "class instance as handler", files: py("class H:\n    def __call__(self, e, c): return 'called'\nhandler = H()"), want: `"called"`},
	{name: "own modules, cwd, argv", files: map[string]string{"app.py": "import helper, os, sys\ndef handler(e, c): return [helper.x, os.getcwd(), len(sys.argv)]", "helper.py": "x = 4"}, want: `[4, "{root}", 1]`},
	{name: "context", files: py(`
def handler(e, c):
    left = c.get_remaining_time_in_millis()
    return [10000 < left <= 20000, type(left).__name__, c.aws_request_id, c.function_name, c.function_version, c.memory_limit_in_mb,
            c.invoked_function_arn, c.log_group_name, c.log_stream_name, c.client_context, c.identity.cognito_identity_id, repr(c)[:14]]
`), want: `[true, "int", "8476a536-e9f4-11e8-9739-2dfe598c3fcd", "demo", "$LATEST", "256", "arn:aws:lambda:us-east-1:000000000000:function:demo", "/aws/lambda/demo", "2024/01/02/[$LATEST]0123456789abcdef0123456789abcdef", null, null, "LambdaContext("]`},
	{name: "raises", files: py("def deep():\n    raise ValueError('bad\\nthing')\ndef handler(e, c):\n    deep()\n"), like: `^\{"errorMessage": "bad\\nthing", "errorType": "ValueError", "requestId": "8476a536-e9f4-11e8-9739-2dfe598c3fcd", "stackTrace": \["  File \\".*/app.py\\", line 4, in handler\\n    deep\(\)\\n(    ~*\^*\\n)?", "  File \\".*/app.py\\", line 2, in deep\\n    raise ValueError\('bad\\\\nthing'\)\\n"\]\}$`, fails: "ValueError",
		output: `^\[ERROR\] ValueError: bad\nthing\nTraceback \(most recent call last\):\n  File ".*/app.py", line 4, in handler\n    deep\(\)\n`},
	{name: "raises its own class", files: py("class Mine(Exception): pass\ndef handler(e, c): raise Mine()"), like: `^\{"errorMessage": "", "errorType": "Mine"`, fails: "Mine"},
	{name: "not serialisable", files: py("import datetime\ndef handler(e, c): return {'t': datetime.datetime(2020, 1, 1)}"), like: `^\{"errorMessage": "Unable to marshal response: Object of type datetime is not JSON serializable", "errorType": "Runtime.MarshalError"`, fails: "Runtime.MarshalError"},
	{name: "circular", files: py("def handler(e, c):\n    a = []\n    a.append(a)\n    return a"), like: `"errorType": "Runtime.MarshalError"`, fails: "Runtime.MarshalError"},
	{name: "decimal", files: py("from decimal import Decimal\ndef handler(e, c): return [Decimal('1.5'), Decimal(2)]"), want: `[1.5, 2.0]`},
	{name: "text outside ASCII", files: py("def handler(e, c): return e == 'gr\\u00fc\\u00dfe \\U0001F600'"), in: `"grüße 😀"`, want: `true`},
	{name: "a large event", files: py("def handler(e, c): return len(e)"), in: `"` + string(make1(2_000_000)) + `"`, want: `2000000`},
	{name: "a result over the limit", files: py("def handler(e, c): return 'x' * 6291555"), want: `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}`, fails: "Function.ResponseSizeTooLarge", cause: "response"},
	{name: "print and stderr keep their order", files: py("import sys\ndef handler(e, c):\n    for i in range(3):\n        print('out', i)\n        print('err', i, file=sys.stderr)\n    print('no end', end='')"), want: `null`, output: `^out 0\nerr 0\nout 1\nerr 1\nout 2\nerr 2\nno end`},
	{name: "logging", files: py("import logging\nlog = logging.getLogger()\nlog.setLevel(logging.INFO)\ndef handler(e, c):\n    log.info('hi %s', 'ann')\n    logging.getLogger('x').warning('w')"), want: `null`,
		output: `^\[INFO\]\t20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ\t8476a536-e9f4-11e8-9739-2dfe598c3fcd\thi ann\n\[WARNING\]\t[^\t]*\t[^\t]*\tw\n`},
	{name: "logging with basicConfig", files: py("import logging\nlogging.basicConfig(level=logging.DEBUG)\ndef handler(e, c):\n    logging.info('no')\n    logging.error('yes')"), want: `null`, output: `^\[ERROR\]\t[^\t]*\t[^\t]*\tyes\n`},
	{name: "logging in JSON", env: []string{"AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO"}, files: py("import logging\ndef handler(e, c): logging.getLogger('x').info('hi', extra={'a': 1})"), want: `null`,
		output: `^\{"timestamp": "20[^"]*Z", "level": "INFO", "message": "hi", "logger": "x", "requestId": "8476a536-[^"]*", "a": 1\}\n`},
	{name: "environment", env: []string{"MINE=1", "AWS_REGION=eu", "LANG=C"}, files: py("import os\ndef handler(e, c): return [os.environ.get(k) for k in ('MINE', 'AWS_REGION', 'LANG', 'HOME', 'TZ', '_HANDLER', 'AWS_EXECUTION_ENV')] + [os.environ['_X_AMZN_TRACE_ID'][:7]]"), want: `["1", "us-east-1", "C", null, ":UTC", "app.handler", "AWS_Lambda_python3.11", "Root=1-"]`},
	{name: "threads and children", files: py("import subprocess, threading\ndef handler(e, c):\n    t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n    return subprocess.run(['/bin/sh', '-c', 'echo child; ls /proc/self/fd/3 2>/dev/null'], stdout=subprocess.PIPE).stdout.decode()"), want: `"child\n"`, output: "thread"},
	{name: "processes that are not forked", files: py("import multiprocessing\ndef square(n): return n * n\ndef handler(e, c):\n    with multiprocessing.get_context('spawn').Pool(1) as p: return p.map(square, [2, 3])"), want: `[4, 9]`},
}

func make1(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a'
	}
	return b
}

func TestPython_AnswersAsLambdaDoes(t *testing.T) {
	t.Parallel()
	for _, c := range pythonCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.handler == "" {
				c.handler = "app.handler"
			}
			c.run(t, pythonUnit(t, c.handler, c.files))
		})
	}
}

func TestPython_ExitEndsTheInstance(t *testing.T) {
	t.Parallel()
	g := launch(t, pythonUnit(t, "app.handler", py("import sys\ndef handler(e, c):\n    print('bye', end='')\n    sys.exit(3)")))
	if _, err := g.Call(t, `{}`); err == nil {
		t.Error("Invoke gave no error")
	}
	if e := g.Exit(t); e.Code != 3 {
		t.Errorf("exit %v", e)
	}
	if out, ok := g.OutputLike("bye"); !ok {
		t.Errorf("output %q", out)
	}
}

var pythonInitCases = []initCase{
	{name: "no file", handler: "src/nope.handler", files: py(""), fails: "Runtime.ImportModuleError", message: `Unable to import module 'src/nope': .*src/nope\.py`},
	{name: "bad name", handler: "handler", files: py(""), fails: "Runtime.MalformedHandlerName", message: `Bad handler 'handler'`},
	{name: "no function", files: py("other = 1"), fails: "Runtime.HandlerNotFound", message: `^Handler 'handler' missing on module 'app'`},
	{name: "missing module", files: py("\nimport nope_nope"), fails: "Runtime.ImportModuleError", message: `^Unable to import module 'app': No module named 'nope_nope'`, output: `app.py", line 2`},
	{name: "syntax error", files: py("a = 1\nb = = 2\n"), fails: "Runtime.UserCodeSyntaxError", message: `^Syntax error in module 'app': .*\(app.py, line 2\)`, output: `app.py" Line 2\n    b = = 2`},
	{name: "raises", files: py("x = {}['k']"), fails: "KeyError", message: `^'k'`, output: `app.py", line 1`},
}

func TestPython_InitErrorsNameTheFault(t *testing.T) {
	t.Parallel()
	for _, c := range pythonInitCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.handler == "" {
				c.handler = "app.handler"
			}
			c.run(t, pythonUnit(t, c.handler, c.files))
		})
	}
}

func TestPython_FindsModulesInCodeThenLayersThenSupplied(t *testing.T) {
	t.Parallel()
	u := pythonUnit(t, "app.handler", py("import ma, mb, mc, os\ndef handler(e, c): return [ma.who, mb.who, mc.who, os.listdir(os.path.dirname(__file__))]"))
	layer, supplied := t.TempDir(), t.TempDir()
	u.Layers, u.Supplied = layer, supplied
	for _, place := range []struct {
		who, dir string
		mods     []string
	}{
		{"code", u.Root, []string{"ma"}},
		{"layer", filepath.Join(layer, "python"), []string{"ma", "mb"}},
		{"supplied", filepath.Join(supplied, "python"), []string{"ma", "mb", "mc"}},
	} {
		if err := os.MkdirAll(place.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, m := range place.mods {
			if err := os.WriteFile(filepath.Join(place.dir, m+".py"), []byte("who = '"+place.who+"'"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := launch(t, u).Call(t, `{}`)
	if err != nil {
		t.Fatal(err)
	}
	// No __pycache__ appears in the code.
	if got, want := b.Body.String(), `["code", "layer", "supplied", ["ma.py", "app.py"]]`; got != want && got != `["code", "layer", "supplied", ["app.py", "ma.py"]]` {
		t.Errorf("%s, want %s", got, want)
	}
}

package lambda_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

func nodeUnit(t testing.TB, handler string, files map[string]string) *guest.Unit {
	t.Helper()
	u := unit("nodejs20.x", handler, write(t, files))
	u.Interpreter = interpreter(t, "EBB_TEST_NODE", "node")
	return u
}

// guestCase is one direct Invocation of a handler.
type guestCase struct {
	name    string
	handler string // default per language
	files   map[string]string
	env     []string
	memory  int
	in      string
	want    string // the whole answer; {root} is the code's folder
	like    string // or a pattern it matches
	fails   string // error type; empty: success
	cause   invocation.Cause
	output  string // pattern that the output matches
	ends    bool   // the guest ends after the answer
	spent   bool   // the guest takes no more, but stays
}

func (c *guestCase) run(t *testing.T, u *guest.Unit) {
	t.Helper()
	u.Env = c.env
	if c.memory > 0 {
		u.MemoryMB = c.memory
	}
	g := launch(t, u)
	b, err := g.Call(t, c.in)
	if err != nil {
		t.Fatalf("Invoke: %v; output:\n%s", err, g.Output())
	}
	got := b.Body.String()
	if want := strings.ReplaceAll(c.want, "{root}", u.Root); c.like == "" && got != want {
		t.Errorf("answer %.2000s\n  want %s", got, want)
	}
	if c.like != "" && !regexp.MustCompile(c.like).MatchString(got) {
		t.Errorf("answer %.2000s\nis not like %s", got, c.like)
	}
	c.checkHead(t, b.Head)
	if c.ends {
		g.Exit(t)
	}
	if out, ok := g.OutputLike(c.output); !ok {
		t.Errorf("output %.2000q\nis not like %s", out, c.output)
	}
	if _, err := g.Call(t, c.in); (err != nil) != (c.ends || c.spent) {
		t.Errorf("a second Invocation: %v, want an error: %v", err, c.ends || c.spent)
	}
}

func (c *guestCase) checkHead(t *testing.T, h invocation.Head) {
	t.Helper()
	switch {
	case c.fails == "":
		if h.Error != nil {
			t.Errorf("Head.Error = %+v", *h.Error)
		}
	case h.Error == nil:
		t.Errorf("no Head.Error, want %s", c.fails)
	default:
		cause := c.cause
		if cause == "" {
			cause = invocation.CauseHandler
		}
		if h.Error.Type != c.fails || h.Error.Cause != cause {
			t.Errorf("Head.Error = %+v, want type %s, cause %s", *h.Error, c.fails, cause)
		}
	}
	if h.Status != 0 {
		t.Errorf("status %d for a direct Invocation", h.Status)
	}
}

func js(text string) map[string]string { return map[string]string{"index.js": text} }

// never is the answer of a handler whose promise nothing can settle any more.
const never = `^\{"errorType":"Runtime.NodeJsExit","errorMessage":"The Lambda runtime client detected an unexpected Node.js exit code\. [^"]*","trace":\["[^"]*"\]\}$`

var nodeCases = []guestCase{
	{name: "async", files: js(`exports.handler = async (e) => ({got: e.n + 1})`), in: `{"n":1}`, want: `{"got":2}`},
	{name: "promise", files: js(`exports.handler = (e) => new Promise((r) => setTimeout(r, 2, e))`), in: `[1, 2]`, want: `[1,2]`},
	{name: "plain value without a callback is null", files: js(`exports.handler = (e) => 5`), in: `{}`, want: `null`},
	{name: "async undefined", files: js(`exports.handler = async () => {}`), want: `null`},
	{name: "a promise that never settles", files: js(`exports.handler = () => new Promise(() => {})`), like: never, fails: "Runtime.NodeJsExit", output: `\tERROR\tInvoke Error \t\{"errorType":"Runtime.NodeJsExit"`},
	{name: "async that never settles", files: js(`exports.handler = async (e) => { setTimeout(() => {}, 5); await new Promise(() => {}); return 1 }`), like: never, fails: "Runtime.NodeJsExit"},
	{name: "a thenable that never settles", files: js(`exports.handler = () => ({then() {}})`), like: never, fails: "Runtime.NodeJsExit"},
	{name: "async that calls back and never settles", files: js(`exports.handler = async (e, c, cb) => { cb(null, 1); await new Promise(() => {}) }`), want: `1`},
	{name: "returns without calling back", files: js(`exports.handler = (e, c, cb) => { setTimeout(() => console.log("late"), 5) }`), want: `null`, output: `INFO\tlate\n`},
	{name: "callback", files: js(`exports.handler = (e, c, cb) => cb(null, {a: "ä\n"})`), want: `{"a":"ä\n"}`},
	{name: "callback waits for the event loop", files: js(`exports.handler = (e, c, cb) => { cb(null, 1); setTimeout(() => console.log("after"), 20) }`), want: `1`, output: `after`},
	{name: "callback does not wait when told", files: js(`let t; exports.handler = (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; t ||= setInterval(() => {}, 1000); cb(null, "now") }`), want: `"now"`},
	{name: "callback error", files: js(`exports.handler = (e, c, cb) => cb(new TypeError("bad"))`), like: `^\{"errorType":"TypeError","errorMessage":"bad","trace":\["TypeError: bad","    at exports.handler \(.*index.js:1:\d+\)"`, fails: "TypeError", output: `\tERROR\tInvoke Error \t\{"errorType":"TypeError","errorMessage":"bad","stack":\[`},
	{name: "callback error does not wait for the event loop", files: js(`let t; exports.handler = (e, c, cb) => { t ||= setInterval(() => {}, 1000); cb(new RangeError("now")) }`), like: `^\{"errorType":"RangeError","errorMessage":"now"`, fails: "RangeError"},
	{name: "callback string error", files: js(`exports.handler = (e, c, cb) => cb("bad")`), want: `{"errorType":"string","errorMessage":"bad","trace":[]}`, fails: "string"},
	{name: "context.succeed", files: js(`exports.handler = (e, c) => { setInterval(() => {}, 1000).unref(); c.succeed({ok: 1}) }`), want: `{"ok":1}`},
	{name: "context.done", files: js(`exports.handler = (e, c) => { c.done(null, [1]) }`), want: `[1]`},
	{name: "context.done with a running timer", files: js(`let t; exports.handler = (e, c) => { t ||= setInterval(() => {}, 1000); c.done(null, 2) }`), want: `2`},
	{name: "context.fail", files: js(`exports.handler = (e, c) => { c.fail(new Error("no")) }`), like: `^\{"errorType":"Error","errorMessage":"no"`, fails: "Error"},
	{name: "throws", files: js(`class Mine extends Error { constructor(m) { super(m); this.name = "Mine"; this.code = 7 } }; exports.handler = async () => { throw new Mine("x\ny") }`), like: `^\{"errorType":"Mine","errorMessage":"x\\ny","trace":\["Mine: x","y"`, fails: "Mine", output: `"code":7`},
	{name: "throws before it returns", files: js(`exports.handler = () => { null.x }`), like: `"errorType":"TypeError"`, fails: "TypeError"},
	{name: "rejects with no error", files: js(`exports.handler = async () => { throw undefined }`), like: `"errorMessage":"undefined"`, fails: "Error"},
	{name: "rejects with an object", files: js(`exports.handler = async () => { throw {a: 1} }`), want: `{"errorType":"object","errorMessage":"[object Object]","trace":[]}`, fails: "object"},
	{name: "calls back twice", files: js(`exports.handler = (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false; cb(null, 1); cb(null, 2); c.succeed(3) }`), want: `1`},
	{name: "nested path", handler: "src/a/b.handler", files: map[string]string{"src/a/b.js": `exports.handler = async () => __filename`}, want: `"{root}/src/a/b.js"`},
	{name: "nested export", handler: "a.b.handler", files: map[string]string{"a.js": `exports.b = {handler: async () => 1}`}, want: `1`},
	{name: "esm by extension", files: map[string]string{"index.mjs": `export const handler = async (e) => e`}, in: `{"a":1}`, want: `{"a":1}`},
	{name: "esm by type", files: map[string]string{"package.json": `{"type":"module"}`, "index.js": `import fs from "fs"; await new Promise((r) => setTimeout(r, 5)); export const handler = async () => typeof fs.statSync`}, want: `"function"`},
	{name: "cjs in a module package", files: map[string]string{"package.json": `{"type":"module"}`, "index.cjs": `exports.handler = async () => 1`}, want: `1`},
	{name: "default export object", files: map[string]string{"index.mjs": `export default {handler: async () => 1}`}, want: `1`},
	{name: "require of own modules and cwd", files: map[string]string{"index.js": `const m = require("./lib/m"); exports.handler = async () => [m, process.cwd(), process.argv.length]`, "lib/m.js": `module.exports = 4`}, want: `[4,"{root}",2]`},
	{name: "context", files: js(`exports.handler = async (e, c) => { const {getRemainingTimeInMillis, awsRequestId, ...r} = c; const left = getRemainingTimeInMillis(); return [left > 10000 && left <= 20000, awsRequestId, c.functionName, c.functionVersion, c.memoryLimitInMB, c.invokedFunctionArn, c.logGroupName, c.logStreamName, c.callbackWaitsForEmptyEventLoop, typeof r.succeed, typeof r.fail, typeof r.done] }`),
		want: `[true,"8476a536-e9f4-11e8-9739-2dfe598c3fcd","demo","$LATEST","256","arn:aws:lambda:us-east-1:000000000000:function:demo","/aws/lambda/demo","2024/01/02/[$LATEST]0123456789abcdef0123456789abcdef",true,"function","function","function"]`},
	{name: "empty payload", files: js(`exports.handler = async (e) => e`), in: ``, want: `{}`},
	{name: "invalid JSON", files: js(`exports.handler = async (e) => e`), in: `{"a":`, like: `"errorType":"Runtime.UnmarshalError"`, fails: "Runtime.UnmarshalError"},
	{name: "bigint", files: js(`exports.handler = async () => ({a: 1n})`), like: `"errorType":"Runtime.MarshalError","errorMessage":"Unable to stringify response body as json: Do not know how to serialize a BigInt"`, fails: "Runtime.MarshalError"},
	{name: "circular", files: js(`exports.handler = async () => { const a = {}; a.a = a; return a }`), like: `"errorType":"Runtime.MarshalError"`, fails: "Runtime.MarshalError"},
	{name: "a result of exactly the limit", files: js(`exports.handler = async () => "x".repeat(6291554)`), like: `^"x{100}`},
	{name: "a result over the limit", files: js(`exports.handler = async () => "x".repeat(6291555)`), want: `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}`, fails: "Function.ResponseSizeTooLarge", cause: invocation.CauseResponse},
	{name: "a large event", files: js(`exports.handler = async (e) => e.length`), in: `"` + strings.Repeat("ü", 1_000_000) + `"`, want: `1000000`},
	{name: "text outside ASCII", files: js(`exports.handler = async (e) => e`), in: `"grüße 日本 😀"`, want: `"grüße 日本 😀"`},
	{name: "unhandled rejection", files: js(`exports.handler = (e, c, cb) => { Promise.reject(new Error("boom")); setTimeout(cb, 1000) }`), like: `^\{"errorType":"Runtime.UnhandledPromiseRejection","errorMessage":"Error: boom","trace":\["Runtime.UnhandledPromiseRejection: Error: boom","    at exports`, fails: "Runtime.UnhandledPromiseRejection", output: `ERROR\tUnhandled Promise Rejection \t`, ends: true},
	{name: "uncaught exception", files: js(`exports.handler = (e, c, cb) => { setTimeout(() => { throw new RangeError("boom") }, 1) }`), like: `^\{"errorType":"RangeError","errorMessage":"boom"`, fails: "RangeError", output: `ERROR\tUncaught Exception \t`, ends: true},
	{name: "console", files: js(`exports.handler = async () => { console.log("a", {b: 1}); console.info("i\nj"); console.warn("w"); console.error("e"); console.debug("d"); console.log("%d%%", 5); process.stdout.write("raw\n") }`), want: `null`,
		output: `(?s)^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ\t8476a536-e9f4-11e8-9739-2dfe598c3fcd\tINFO\ta \{ b: 1 \}\n[^\n]*\tINFO\ti\nj\n[^\n]*\tWARN\tw\n[^\n]*\tERROR\te\n[^\n]*\tDEBUG\td\n[^\n]*\tINFO\t5%\nraw\n`},
	{name: "console in JSON", env: []string{"AWS_LAMBDA_LOG_FORMAT=JSON", "AWS_LAMBDA_LOG_LEVEL=INFO"}, files: js(`exports.handler = async () => { console.debug("no"); console.log({b: 1}); console.error("e", new Error("x")); }`), want: `null`,
		output: `^\{"timestamp":"20[^"]*Z","level":"INFO","requestId":"8476a536-e9f4-11e8-9739-2dfe598c3fcd","message":\{"b":1\}\}\n\{"timestamp":"[^"]*","level":"ERROR","requestId":"[^"]*","message":"e Error: x[^\n]*","errorType":"Error","errorMessage":"x","stackTrace":\[`},
	{name: "megabytes of output precede the answer", files: js(`exports.handler = async () => { for (let i = 0; i < 40; i++) process.stdout.write("y".repeat(65536)); process.stdout.write("done\n"); }`), want: `null`, output: `done\n$`},
	{name: "environment", env: []string{"MINE=1=2", "AWS_REGION=eu", "TZ=Europe/Berlin", "_HANDLER=x"}, files: js(`exports.handler = async () => [process.env.MINE, process.env.AWS_REGION, process.env.TZ, process.env._HANDLER, process.env.HOME, process.env._X_AMZN_TRACE_ID.slice(0, 7)]`), want: `["1=2","us-east-1","Europe/Berlin","index.handler",null,"Root=1-"]`},
	{name: "memory", memory: 512, files: js(`exports.handler = async () => Math.round(require("v8").getHeapStatistics().heap_size_limit / 2**20) < 700`), want: `true`},
	{name: "streamed answer, buffered", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s, c) => { s.setContentType("text/plain"); s.write("a"); await new Promise((r) => setTimeout(r, 2)); s.write("b"); s.end("c") })`), want: `abc`},
	{name: "streamed answer that fails early", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { throw new Error("early") })`), like: `"errorMessage":"early"`, fails: "Error"},
	{name: "streamed answer that fails late", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.write("a"); await 0; throw new Error("late") })`), like: `"errorMessage":"late"`, fails: "Error"},
	{name: "streamed answer whose handler never settles", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.write("a"); await new Promise(() => {}) })`), like: never, fails: "Runtime.NodeJsExit"},
	{name: "whole streamed answer whose handler never settles", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.end("a"); await new Promise(() => {}) })`), want: `a`, output: `Invoke Error \t\{"errorType":"Runtime.NodeJsExit"`},
	{name: "whole streamed answer whose handler rejects", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.end("a"); await new Promise((r) => setTimeout(r, 5)); throw new RangeError("late") })`), want: `a`, output: `Invoke Error \t\{"errorType":"RangeError","errorMessage":"late"`},
	{name: "whole streamed answer before an uncaught exception", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.end("a"); setTimeout(() => { throw new RangeError("late") }, 5); await new Promise((r) => setTimeout(r, 1000)) })`), want: `a`, output: `Uncaught Exception \t\{"errorType":"RangeError"`, ends: true},
	{name: "streamed answer cut by an uncaught exception", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.write("a"); setTimeout(() => { throw new RangeError("late") }, 5); await new Promise((r) => setTimeout(r, 1000)) })`), like: `^\{"errorType":"RangeError"`, fails: "RangeError", ends: true},
	{name: "streamed answer that is destroyed", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.write("a"); s.destroy() })`), like: `"errorMessage":"the response stream was destroyed before its end"`, fails: "Error"},
	{name: "streaming handler that throws before it returns", files: js(`exports.handler = awslambda.streamifyResponse((e, s) => { s.write("a"); null.x })`), like: `"errorType":"TypeError"`, fails: "TypeError"},
	{name: "streamed answer that is never ended", files: js(`exports.handler = awslambda.streamifyResponse(async (e, s) => { s.write("a") })`), want: `a`},
}

func TestNode_AnswersAsLambdaDoes(t *testing.T) {
	t.Parallel()
	for _, c := range nodeCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.handler == "" {
				c.handler = "index.handler"
			}
			c.run(t, nodeUnit(t, c.handler, c.files))
		})
	}
}

func TestNode_ExitInTheHandlerEndsTheInstance(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", js(`exports.handler = async () => { console.log("bye"); process.exit(3) }`)))
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

// A function that answers for itself, by the runtime's descriptor, must not have the answer that the runtime then gives go to the next caller.
func TestNode_AnAnswerThatIsLateGoesToNobodyElse(t *testing.T) {
	t.Parallel()
	g := launch(t, nodeUnit(t, "index.handler", js(`
		let first = null;
		exports.handler = (e) => new Promise((done) => {
			setInterval(() => {}, 1000);
			if (first !== null) return first();
			first = () => done(e);
			const frame = (kind, body) => {
				const b = Buffer.alloc(8 + body.length);
				b.writeUInt32LE(body.length);
				b[4] = kind;
				b.writeUInt16LE(1, 6);
				b.write(body, 8);
				return b;
			};
			require("fs").writeSync(3, Buffer.concat([frame(1, "r"), frame(3, '"forged"')]));
		})`)))
	if b, err := g.Call(t, `"first"`); err != nil || b.Body.String() != `"forged"` {
		t.Fatalf("%v %s", err, b.Body.String())
	}
	if b, err := g.Call(t, `"second"`); err == nil {
		t.Errorf("the second caller got %s", b.Body.String())
	}
	if e := g.Exit(t); e.Code != 1 {
		t.Errorf("exit %v", e)
	}
	if out, ok := g.OutputLike("Runtime.ProtocolViolation"); !ok {
		t.Errorf("output %q", out)
	}
}

// initCase is a Unit that cannot start.
type initCase struct {
	name    string
	handler string
	files   map[string]string
	fails   string // error type
	message string // pattern
	output  string // pattern
}

func (c *initCase) run(t *testing.T, u *guest.Unit) {
	t.Helper()
	u.Note = "runs on another version"
	e, g := initError(t, u)
	if e.Type != c.fails || !regexp.MustCompile(c.message).MatchString(e.Message) {
		t.Errorf("init error %s: %s\nwant %s: %s", e.Type, e.Message, c.fails, c.message)
	}
	if out, ok := g.OutputLike(c.output); !ok {
		t.Errorf("output %.2000q\nis not like %s", out, c.output)
	}
	if e.Payload != nil {
		var doc struct{ ErrorType, ErrorMessage string }
		if err := json.Unmarshal(e.Payload, &doc); err != nil || doc.ErrorType != c.fails {
			t.Errorf("payload %s: %v", e.Payload, err)
		}
		if !strings.HasSuffix(e.Message, "(runs on another version)") {
			t.Errorf("the message %q does not show the note", e.Message)
		}
	}
}

var nodeInitCases = []initCase{
	{name: "no file", handler: "src/nope.handler", files: js(``), fails: "Runtime.ImportModuleError", message: `Cannot find module 'src/nope': .*src/nope\.js`},
	{name: "bad name", handler: "handler", files: js(``), fails: "Runtime.MalformedHandlerName", message: `Bad handler 'handler'`},
	{name: "no export", files: js(`exports.other = 1`), fails: "Runtime.HandlerNotFound", message: `^index.handler is undefined or not exported`},
	{name: "not a function", files: js(`exports.handler = 1`), fails: "Runtime.HandlerNotFound", message: `^index.handler is not a function`},
	{name: "missing module", files: js("\nrequire('nope-nope')"), fails: "Runtime.ImportModuleError", message: `^Error: Cannot find module 'nope-nope'`, output: `index.js:2:1`},
	{name: "missing module in esm", files: map[string]string{"index.mjs": `import "nope-nope"`}, fails: "Runtime.ImportModuleError", message: `Cannot find package 'nope-nope' imported from .*index.mjs`},
	{name: "syntax error", files: js("let a = 1;\nlet b = = 2;\n"), fails: "Runtime.UserCodeSyntaxError", message: `^SyntaxError: Unexpected token '='`, output: `index.js:2`},
	{name: "syntax error in esm", files: map[string]string{"index.mjs": "let a = 1;\nlet b = = 2;\n"}, fails: "Runtime.UserCodeSyntaxError", message: `^SyntaxError: Unexpected token '='`, output: `index.mjs:2`},
	{name: "throws", files: js("throw new RangeError('at start')"), fails: "RangeError", message: `^at start`, output: `index.js:1`},
	{name: "rejects later", files: map[string]string{"index.mjs": `Promise.reject(new Error("x")); await new Promise((r) => setTimeout(r, 1000)); export const handler = 1`}, fails: "Runtime.UnhandledPromiseRejection", message: `^Error: x`},
	{name: "waits for ever", files: map[string]string{"index.mjs": `await new Promise(() => {}); export const handler = 1`}, fails: "Runtime.InitError", message: `waits for something that never happens`},
}

func TestNode_InitErrorsNameTheFault(t *testing.T) {
	t.Parallel()
	for _, c := range nodeInitCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.handler == "" {
				c.handler = "index.handler"
			}
			c.run(t, nodeUnit(t, c.handler, c.files))
		})
	}
}

// packages writes node_modules folders: CommonJS cjs-NAME and ES module esm-NAME, each exporting who.
func packages(t *testing.T, dir, who string, names ...string) {
	t.Helper()
	for _, n := range names {
		p := filepath.Join(dir, "node_modules", n)
		files := map[string]string{"package.json": `{"name":"` + n + `","main":"i.js"}`, "i.js": `exports.who = "` + who + `"`}
		if strings.HasPrefix(n, "esm-") {
			files = map[string]string{"package.json": `{"name":"` + n + `","type":"module","exports":"./i.js"}`, "i.js": `export const who = "` + who + `"`}
		}
		for f, text := range files {
			if err := os.MkdirAll(p, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(p, f), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestNode_FindsModulesInCodeThenLayersThenSupplied(t *testing.T) {
	t.Parallel()
	const cjs = `const f = (n) => require(n).who; exports.handler = async () => [f("cjs-a"), f("cjs-b"), f("cjs-c")]`
	const esm = `import {who as a} from "esm-a"; import {who as b} from "esm-b"; import {c} from "./lib/c.mjs"; import cj from "cjs-c"; export const handler = async () => [a, b, c, cj.who]`
	const lib = `import {who} from "esm-c"; export const c = who`
	const dyn = `exports.handler = async () => [(await import("esm-a")).who, (await import("esm-b")).who, (await import("esm-c")).who]`
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"require", map[string]string{"index.js": cjs}, `["code","layer","supplied"]`},
		{"import", map[string]string{"index.mjs": esm, "lib/c.mjs": lib}, `["code","layer","supplied","supplied"]`},
		{"dynamic import", map[string]string{"index.js": dyn}, `["code","layer","supplied"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := nodeUnit(t, "index.handler", c.files)
			layer, supplied := t.TempDir(), t.TempDir()
			u.Layers, u.Supplied = layer, supplied
			packages(t, u.Root, "code", "cjs-a", "esm-a")
			packages(t, filepath.Join(layer, "nodejs"), "layer", "cjs-a", "esm-a", "cjs-b", "esm-b")
			packages(t, filepath.Join(supplied, "nodejs"), "supplied", "cjs-a", "esm-a", "cjs-b", "esm-b", "cjs-c", "esm-c")
			b, err := launch(t, u).Call(t, `{}`)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Body.String(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

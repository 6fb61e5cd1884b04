package lambda_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/guesttest"
)

func TestProtocol_HoldsTheContract(t *testing.T) {
	t.Parallel()
	node := func(text string) func(testing.TB) *guest.Unit {
		return func(t testing.TB) *guest.Unit { return nodeUnit(t, "index.handler", js(text)) }
	}
	python := func(text string) func(testing.TB) *guest.Unit {
		return func(t testing.TB) *guest.Unit { return pythonUnit(t, "app.handler", py(text)) }
	}
	shell := func(text string) func(testing.TB) *guest.Unit {
		return func(t testing.TB) *guest.Unit { return shellUnit(t, text) }
	}
	goFn := func(runtime, binary, mode string) func(testing.TB) *guest.Unit {
		return func(t testing.TB) *guest.Unit {
			u := goUnit(t, runtime, binary)
			u.Env = []string{"MODE=" + mode}
			return u
		}
	}
	p := func(t testing.TB) guest.Protocol { return protocol(t) }
	for name, s := range map[string]guesttest.Suite{
		"node": {
			Protocol: p, Echo: node(`exports.handler = async (e) => e`), Fail: node(`exports.handler = async () => { throw new Error("x") }`),
			Exit: node(`exports.handler = () => process.exit(3)`), Hang: node(`exports.handler = () => { setInterval(() => {}, 1000) }`), BadInit: node(`throw new Error("x")`),
		},
		"node that loops": {Protocol: p, Hang: node(`exports.handler = () => { for (;;); }`)},
		"python": {
			Protocol: p, Echo: python("def handler(e, c): return e"), Fail: python("def handler(e, c): raise Exception('x')"),
			Exit: python("import os\ndef handler(e, c): os._exit(3)"), Hang: python("import time\ndef handler(e, c): time.sleep(60)"), BadInit: python("raise Exception('x')"),
		},
		"shell": {
			Protocol: p, Echo: shell(`handler() { echo "$1"; }`), Fail: shell(`handler() { return 1; }`), Hang: shell(`handler() { sleep 60; }`),
		},
		"go":        {Protocol: p, Echo: goFn("provided.al2", "gofn", "echo"), Fail: goFn("provided.al2", "gofn", "fail"), Exit: goFn("provided.al2", "gofn", "exit"), Hang: goFn("provided.al2", "gofn", "hang")},
		"go by RPC": {Protocol: p, Echo: goFn("go1.x", "gorpc", "echo"), Fail: goFn("go1.x", "gorpc", "fail"), Exit: goFn("go1.x", "gorpc", "exit"), Hang: goFn("go1.x", "gorpc", "hang")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			guesttest.Run(t, s)
		})
	}
}

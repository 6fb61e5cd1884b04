package lambda_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/guesttest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// mounted shows Code.Mounts to guests that guesttest starts as plain processes, in a mount namespace of their own.
type mounted struct{ guest.Protocol }

func (m mounted) Code(u *guest.Unit, addr string) (sandbox.Code, error) {
	c, err := m.Protocol.Code(u, addr)
	script := "mount -t tmpfs none /var && "
	for _, mount := range c.Mounts {
		if mount.Source != mount.Target {
			script += "mkdir -p '" + mount.Target + "' && mount --bind '" + mount.Source + "' '" + mount.Target + "' && "
		}
	}
	script, c.Dir = script+"cd '"+c.Dir+"' && ", ""
	c.Command = append([]string{"/usr/bin/env", "unshare", "--mount", "/bin/sh", "-c", script + `exec "$@"`, "sh"}, c.Command...)
	return c, err
}

func TestMounted_LayersAreAtOpt(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("unshare", "--mount", "mount", "--bind", t.TempDir(), "/opt").CombinedOutput(); err != nil {
		t.Skipf("this user cannot mount: %v %s", err, out)
	}
	esm := `import { who } from 'esm-a'; import fs from 'fs'; export const h = async () => [who, process.env.WRAPPED, fs.readFileSync('/opt/data', 'utf8')]`
	runtime := "#!/opt/bin/interpreter -x\n"
	interpreter := "#!/usr/bin/env bash\nexec " + strings.Join(interpreter(t, "EBB_TEST_PYTHON", "python3"), " ") + " /opt/runtime.py \"$@\"\n"
	for _, c := range []struct {
		name, want string
		unit       *guest.Unit
		env        string
	}{
		{"node, wrapped", `["layer","yes","shown"]`, nodeUnit(t, "index.h", map[string]string{"index.mjs": esm}), "AWS_LAMBDA_EXEC_WRAPPER=/opt/wrap"},
		{"node, its handler in a layer", `"in the layer"`, nodeUnit(t, "/opt/nodejs/node_modules/watch/index.h", map[string]string{"x": ""}), "A=b"},
		{"python, wrapped", `["mine", "yes", "shown"]`, pythonUnit(t, "app.h", map[string]string{"app.py": "import os, mine\ndef h(e, c): return [mine.who, os.environ['WRAPPED'], open('/opt/data').read()]"}), "AWS_LAMBDA_EXEC_WRAPPER=/opt/wrap"},
		{"provided, all of it in a layer", `"-x /opt/bootstrap"`, unit("provided.al2023", "x", t.TempDir()), "A=b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := c.unit
			u.Mounts, u.Env = true, []string{c.env}
			u.Layers = write(t, map[string]string{
				"wrap": strings.Replace(wrapScript, "OPTIONS", "", 1), "data": "shown", "python/mine.py": "who = 'mine'", "bootstrap": runtime, "bin/interpreter": interpreter,
				"nodejs/node_modules/watch/index.js": "exports.h = async () => 'in the layer'",
				"runtime.py": `import json, os, sys, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(api + "next") as r:
        call = r.headers["Lambda-Runtime-Aws-Request-Id"]
        r.read()
    urllib.request.urlopen(urllib.request.Request(api + call + "/response", data=json.dumps(" ".join(sys.argv[1:])).encode(), method="POST")).read()
`,
			})
			packages(t, filepath.Join(u.Layers, "nodejs"), "layer", "esm-a")
			g, err := guesttest.Launch(t, mounted{protocol(t)}, u)
			if err != nil {
				t.Fatalf("%v; output:\n%s", err, g.Output())
			}
			b, err := g.Call(t, "{}")
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Body.String(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if _, err := os.Stat("/opt/wrap"); err == nil {
				t.Error("the mount is seen on the host")
			}
		})
	}
}

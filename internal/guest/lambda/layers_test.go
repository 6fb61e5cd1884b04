package lambda_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// wrapScript is the form that Lambda's guide shows: options go before the last argument.
const wrapScript = "#!/usr/bin/env bash\nexport WRAPPED=yes\nexec \"${@:1:$#-1}\" OPTIONS \"${@: -1}\"\n"

func TestCode_ShowsLayersAtOptWhereTheSandboxHasMounts(t *testing.T) {
	t.Parallel()
	files := map[string]string{"lib/x.so": "", "bootstrap": "#!/usr/bin/env sh\n", "nodejs/node_modules/w/index.js": "", "wrap": "#!/usr/bin/env bash\n"}
	for _, c := range []struct {
		name, runtime, handler, file string
		env                          []string
		command                      []string // the end of it
		want                         []string // in the environment
	}{
		{"node", "nodejs20.x", "index.h", "index.js", nil, []string{"/var/supplied", "/opt"},
			[]string{"NODE_PATH=/opt/nodejs/node20/node_modules:/opt/nodejs/node_modules:/var/supplied/nodejs/node_modules:{root}", "LD_LIBRARY_PATH=/opt/lib"}},
		{"node, its handler in a layer", "nodejs20.x", "/opt/nodejs/node_modules/w/index.h", "x", nil, []string{"/var/supplied", "/opt"}, []string{"_HANDLER=/opt/nodejs/node_modules/w/index.h"}},
		{"node, wrapped", "nodejs20.x", "index.h", "index.js", []string{"AWS_LAMBDA_EXEC_WRAPPER=/opt/wrap"}, []string{"{bootstrap}/node.cjs"},
			[]string{"AWS_LAMBDA_EXEC_WRAPPER=/opt/wrap", "_EBB_BOOTSTRAP=/var/supplied\n/opt"}},
		{"python", "python3.11", "app.h", "app.py", nil, []string{"/var/supplied", "/opt"}, []string{"LD_LIBRARY_PATH=/opt/lib"}},
		{"provided", "provided.al2023", "x", "x", nil, []string{"/opt/bootstrap"}, []string{"LD_LIBRARY_PATH=/opt/lib"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := unit(c.runtime, c.handler, write(t, map[string]string{c.file: ""}))
			u.Interpreter, u.Supplied, u.Layers, u.Mounts, u.Env = []string{"/usr/bin/x"}, "/var/supplied", write(t, files), true, c.env
			code, err := protocol(t).Code(u, "127.0.0.1:1")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []sandbox.Mount{{Source: u.Layers, Target: "/opt"}, {Source: u.Root, Target: "/var/task"}} {
				if !slices.Contains(code.Mounts, want) {
					t.Errorf("mounts %v, want %v", code.Mounts, want)
				}
			}
			vars := map[string]string{}
			for _, kv := range code.Env {
				k, v, _ := strings.Cut(kv, "=")
				vars[k] = v
				if strings.Contains(v, u.Layers) || strings.Contains(v, u.Root) {
					t.Errorf("a path of the host: %s", kv)
				}
			}
			r := strings.NewReplacer("{root}", "/var/task", "{bootstrap}", vars["LAMBDA_RUNTIME_DIR"])
			for _, kv := range append(c.want, "LAMBDA_TASK_ROOT={root}") {
				if !slices.Contains(code.Env, r.Replace(kv)) {
					t.Errorf("no %q in\n%s", r.Replace(kv), strings.Join(code.Env, "\n"))
				}
			}
			if !strings.HasSuffix(vars["PATH"], ":/bin:/opt/bin") {
				t.Errorf("PATH %s", vars["PATH"])
			}
			end := code.Command[max(0, len(code.Command)-len(c.command)):]
			for i := range c.command {
				c.command[i] = r.Replace(c.command[i])
			}
			if !slices.Equal(end, c.command) {
				t.Errorf("command %q, want it to end with %q", code.Command, c.command)
			}
			if c.env != nil && code.Command[0] != "/opt/wrap" {
				t.Errorf("command %q, want the wrapper first", code.Command)
			}
		})
	}
}

func TestCode_ShowsNothingElsewhereWithoutMounts(t *testing.T) {
	t.Parallel()
	u := nodeUnit(t, "index.h", map[string]string{"index.js": ""})
	if code, err := protocol(t).Code(u, ""); err != nil || code.Dir != u.Root ||
		!slices.Contains(code.Mounts, sandbox.Mount{Source: u.Root, Target: u.Root}) || slices.ContainsFunc(code.Mounts, func(m sandbox.Mount) bool { return m.Source != m.Target }) {
		t.Errorf("%v in %s, %v", code.Mounts, code.Dir, err)
	}
	u.Mounts = true
	code, err := protocol(t).Code(u, "")
	if err != nil || code.Dir != "/var/task" || slices.ContainsFunc(code.Mounts, func(m sandbox.Mount) bool { return m.Target == "/opt" }) {
		t.Errorf("%v in %s, %v", code.Mounts, code.Dir, err)
	}
}

func TestCode_TakesItsOwnBootstrapBeforeALayers(t *testing.T) {
	t.Parallel()
	u := unit("provided.al2023", "x", write(t, map[string]string{"bootstrap": "#!/usr/bin/env sh\n"}))
	u.Layers = write(t, map[string]string{"bootstrap": "#!/usr/bin/env sh\n"})
	if code, err := protocol(t).Code(u, "127.0.0.1:1"); err != nil || code.Command[0] != filepath.Join(u.Root, "bootstrap") {
		t.Errorf("%q, %v", code.Command, err)
	}
}

func TestCode_RunsABootstrapByTheInterpreterOfItsLayer(t *testing.T) {
	t.Parallel()
	u := unit("provided.al2023", "x", t.TempDir())
	u.Layers = write(t, map[string]string{"bootstrap": "#!/opt/bin/php -n\n", "bin/php": "\x7fELF"})
	p := protocol(t)
	file := filepath.Join(u.Layers, "bootstrap")
	if code, err := p.Code(u, "127.0.0.1:1"); err != nil || !slices.Equal(code.Command, []string{filepath.Join(u.Layers, "bin/php"), "-n", file}) {
		t.Errorf("%q, %v", code.Command, err)
	}
	u.Mounts = true
	if code, err := p.Code(u, "127.0.0.1:1"); err != nil || !slices.Equal(code.Command, []string{"/opt/bootstrap"}) {
		t.Errorf("mounted: %q, %v", code.Command, err)
	}
	u.Layers = write(t, map[string]string{"bootstrap": "#!/opt/bin/php\n"})
	if _, err := p.Code(u, "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "/opt/bin/php") {
		t.Errorf("without the interpreter: %v", err)
	}
}

func TestCode_RefusesWrappersThatCannotWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, value     string
		layers, mounted bool
		code            errs.Code
		says            string
	}{
		{"from a layer, without mounts", "/opt/wrap", true, false, errs.Unsupported, "do not show layers at /opt"},
		{"from a layer that is not here", "/opt/wrap", false, true, errs.Invalid, "no layer here"},
		{"not there", "/opt/other", true, true, errs.Invalid, "no such file"},
		{"neither layer nor code", "/nowhere/wrap", true, true, errs.Invalid, "no such file"},
		{"no path", "wrap", true, true, errs.Invalid, "no absolute path"},
		{"no program", "/var/task/text", true, true, errs.Failed, "neither a program nor a script"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := unit("nodejs20.x", "index.h", write(t, map[string]string{"index.js": "", "text": "plain"}))
			u.Interpreter, u.Mounts, u.Env = []string{"/usr/bin/node"}, c.mounted, []string{"AWS_LAMBDA_EXEC_WRAPPER=" + c.value}
			if c.layers {
				u.Layers = write(t, map[string]string{"wrap": "#!/usr/bin/env bash\n"})
			}
			_, err := protocol(t).Code(u, "")
			if errs.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v (%s), want %s: %q", err, errs.CodeOf(err), c.code, c.says)
			}
		})
	}
}

func TestCode_KnowsNoWrapperForProvided(t *testing.T) {
	t.Parallel()
	u := unit("provided.al2023", "x", write(t, map[string]string{"bootstrap": "#!/usr/bin/env sh\n"}))
	u.Env = []string{"AWS_LAMBDA_EXEC_WRAPPER=/opt/none"}
	if code, err := protocol(t).Code(u, "127.0.0.1:1"); err != nil || len(code.Command) != 1 || !strings.HasSuffix(code.Command[0], "/bootstrap") {
		t.Errorf("%q, %v", code.Command, err)
	}
}

func TestWrapper_StartsTheRuntimeWithItsOptions(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash here")
	}
	for _, c := range []struct {
		name, option, want string
		unit               *guest.Unit
	}{
		{"node", "--title=wrapped", `["yes","wrapped","layer",null,0]`, nodeUnit(t, "index.h", map[string]string{
			"index.js": `const l = require('cjs-a').who; exports.h = async () => [process.env.WRAPPED, process.title, l, process.env._EBB_BOOTSTRAP ?? null, process.argv.length - 2]`,
		})},
		{"python", "-X utf8=1", `["yes", 1, "layer", null, 0]`, pythonUnit(t, "app.h", map[string]string{
			"app.py": "import os, sys, mine\ndef h(e, c): return [os.environ['WRAPPED'], sys.flags.utf8_mode, mine.who, os.environ.get('_EBB_BOOTSTRAP'), len(sys.argv) - 1]",
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := c.unit
			u.Layers = write(t, map[string]string{"python/mine.py": "who = 'layer'"})
			packages(t, filepath.Join(u.Layers, "nodejs"), "layer", "cjs-a")
			if err := os.WriteFile(filepath.Join(u.Root, "wrap"), []byte(strings.Replace(wrapScript, "OPTIONS", c.option, 1)), 0o755); err != nil {
				t.Fatal(err)
			}
			u.Env = append(u.Env, "AWS_LAMBDA_EXEC_WRAPPER=/var/task/wrap")
			b, err := launch(t, u).Call(t, "{}")
			if err != nil {
				t.Fatal(err)
			}
			if got := b.Body.String(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestNode_LoadsAHandlerThatIsInALayer(t *testing.T) {
	t.Parallel()
	u := nodeUnit(t, "/opt/nodejs/node_modules/watch/index.h", map[string]string{"app.js": `exports.own = () => 'own'`})
	u.Layers = write(t, map[string]string{"nodejs/node_modules/watch/index.js": `exports.h = async () => 'watched ' + require(process.env.LAMBDA_TASK_ROOT + '/app.js').own()`})
	b, err := launch(t, u).Call(t, "{}")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Body.String(); got != `"watched own"` {
		t.Errorf("%s", got)
	}
	u.Handler = "/opt/nodejs/node_modules/none/index.h"
	if _, err := protocol(t).Code(u, ""); err == nil || !strings.Contains(err.Error(), "Cannot find module '/opt/nodejs/node_modules/none/index'") {
		t.Errorf("not there: %v", err)
	}
}

func TestPython_LooksInLayersForItsVersionAndTheOneAskedFor(t *testing.T) {
	t.Parallel()
	u := pythonUnit(t, "app.h", map[string]string{"app.py": "import sys, own, old, both\ndef h(e, c): return [own.v, old.v, both.v]"})
	out, err := exec.Command(u.Interpreter[0], "-c", "import sys; print('python%d.%d' % sys.version_info[:2], end='')").Output()
	if err != nil {
		t.Fatal(err)
	}
	u.Runtime = "python3.7"
	site := "/site-packages/"
	u.Layers = write(t, map[string]string{
		"python/lib/" + string(out) + site + "own.py": "v = 'own'", "python/lib/python3.7" + site + "old.py": "v = 'asked'",
		"python/lib/" + string(out) + site + "both.py": "v = 'own'", "python/lib/python3.7" + site + "both.py": "v = 'asked'",
	})
	b, err := launch(t, u).Call(t, "{}")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Body.String(); got != `["own", "asked", "own"]` {
		t.Errorf("%s", got)
	}
}

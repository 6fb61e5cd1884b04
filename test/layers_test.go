package test

import (
	"archive/zip"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const layersYAML = `service: layered
provider:
  name: aws
  runtime: nodejs20.x
  layers: [!Ref NodeDashmodulesLambdaLayer, !Ref OverLambdaLayer]
package:
  individually: true
custom:
  ebb:
    layers:
      greet: ./from-elsewhere.zip
layers:
  node-modules:
    path: layers/node
    package: {patterns: ['!**/drafts/**']}
  over: {path: layers/over}
  tools: {path: layers/tools}
  runtime: {path: layers/runtime}
functions:
  cjs:
    handler: cjs.handler
    events: [httpApi: GET /cjs]
  esm:
    handler: esm.handler
    events: [httpApi: GET /esm]
  ts:
    handler: ts.handler
    events: [httpApi: GET /ts]
  py:
    runtime: python3.11
    handler: app.handler
    layers:
      - arn:aws:lambda:eu-west-1:123456789012:layer:greet:3
      - {Ref: ToolsLambdaLayer}
      - arn:aws:lambda:eu-west-1:123456789012:layer:nowhere:1
    events: [httpApi: GET /py]
  own:
    runtime: provided.al2023
    handler: fn.txt
    package: {patterns: ['!**', fn.txt]}
    layers: [!Ref RuntimeLambdaLayer]
    events: [httpApi: GET /own]
`

// runtimeOfALayer is a custom runtime: it answers with the text of the file that is the handler.
const runtimeOfALayer = `#!/usr/bin/env python3
import json, os, urllib.request
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
text = open(os.path.join(os.environ["LAMBDA_TASK_ROOT"], os.environ["_HANDLER"])).read()
while True:
    with urllib.request.urlopen(api + "next") as r:
        call = r.headers["Lambda-Runtime-Aws-Request-Id"]
        r.read()
    answer = json.dumps({"statusCode": 200, "body": "layer runs " + text}).encode()
    urllib.request.urlopen(urllib.request.Request(api + call + "/response", data=answer, method="POST")).read()
`

func nodePackage(name, version string) map[string]string {
	return map[string]string{name + "/package.json": `{"name":"` + name + `","main":"i.js"}`, name + "/i.js": `exports.v = "` + version + `"`}
}

func TestLayers_OfEveryRuntimeAreFound(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"serverless.yml": layersYAML,
		"cjs.js":         `const a = require('mod-a'), b = require('mod-b'); exports.handler = async () => [a.v, b.v, (() => { try { return require('drafts/x') } catch (e) { return e.code } })()].join(' ');`,
		"esm.mjs":        `import a from 'mod-a'; export const handler = async () => (await import('mod-b')).default.v + ' ' + a.v;`,
		"ts.ts":          `import a from 'mod-a'; export const handler = async (): Promise<string> => a.v;`,
		"app.py":         "import subprocess, greet\ndef handler(e, c): return greet.text + ' ' + subprocess.check_output(['tool'], text=True).strip()",
		"fn.txt":         "its text", "layers/runtime/bootstrap": runtimeOfALayer, "layers/tools/bin/tool": "#!/bin/sh\necho by tool\n",
		"layers/node/nodejs/node_modules/drafts/x.js": "draft",
	}
	for dir, pkg := range map[string]map[string]string{
		"layers/node/nodejs/node_modules/": nodePackage("mod-a", "first"), "layers/node/nodejs/node20/node_modules/": nodePackage("mod-b", "for-20"),
		"layers/over/nodejs/node_modules/": nodePackage("mod-a", "later"),
	} {
		for name, text := range pkg {
			files[dir+name] = text
		}
	}
	dir := project(t, files)
	zipped(t, filepath.Join(dir, "from-elsewhere.zip"), "python/lib/python3.11/site-packages/greet/__init__.py", "text = 'greeted'")
	s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch")
	for path, want := range map[string]string{
		"/cjs": "later for-20 MODULE_NOT_FOUND", "/esm": "for-20 later", "/ts": "later", "/py": "greeted by tool", "/own": "layer runs its text",
	} {
		if status, body := get(http.DefaultClient, s.Ready.Gateway+path); status != 200 || body != want {
			t.Errorf("%s: %d %s, want %s\n%s", path, status, body, want, s.Stderr())
		}
	}
	if out := s.Stderr(); !strings.Contains(out, "layer:nowhere:1 is in the cloud and not here") || !strings.Contains(out, "--layer nowhere=layers/nowhere") || strings.Contains(out, "layer:greet:3") {
		t.Errorf("what is not here is not named, or too much is:\n%s", out)
	}
}

func zipped(t testing.TB, file, name, text string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	w, err := z.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLayers_DeployRollbackAndFlagOfTheCommandLine(t *testing.T) {
	t.Parallel()
	dir := project(t, map[string]string{
		"serverless.yml": `service: layered
provider: {name: aws, runtime: nodejs20.x}
functions:
  cjs:
    handler: cjs.handler
    layers: [arn:aws:lambda:eu-west-1:123456789012:layer:mods:3]
    events: [httpApi: GET /cjs]
`,
		"cjs.js": `const a = require('mod-a'); exports.handler = async () => a.v;`,
	})
	elsewhere := t.TempDir()
	data := filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "serve", "--listen", "127.0.0.1:0")
	for _, version := range []string{"one", "two"} {
		for name, text := range nodePackage("mod-a", version) {
			write(t, filepath.Join(elsewhere, "nodejs/node_modules", name), text)
		}
		if r := ebb.Run(t, dir, "deploy", "--data", data, "--layer", "mods="+elsewhere); r.Code != 0 || strings.Contains(r.Stderr, "mods") {
			t.Fatalf("deploy: %+v", r)
		}
		if status, body := get(http.DefaultClient, s.Ready.Gateway+"/cjs"); status != 200 || body != version {
			t.Errorf("%d %s, want %s", status, body, version)
		}
	}
	if r := ebb.Run(t, dir, "rollback", "--data", data); r.Code != 0 {
		t.Fatalf("rollback: %+v", r)
	}
	if status, body := get(http.DefaultClient, s.Ready.Gateway+"/cjs"); status != 200 || body != "one" {
		t.Errorf("rolled back: %d %s", status, body)
	}
	for _, given := range []string{"mods", "=x", "mods="} {
		if r := ebb.Run(t, dir, "deploy", "--data", data, "--layer", given); r.Code != 2 || !strings.Contains(r.Stderr, "want name=path") {
			t.Errorf("--layer %s: %+v", given, r)
		}
	}
	if r := ebb.Run(t, dir, "deploy", "--data", data, "--layer", "mods=nowhere"); r.Code == 0 || !strings.Contains(r.Stderr, "nowhere") {
		t.Errorf("a folder that is not there: %+v", r)
	}
}

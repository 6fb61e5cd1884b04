package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// installed is a project whose dependencies are there, development and foreign ones beside them.
func installed() map[string]string {
	return map[string]string{
		"package-lock.json":               `{"packages":{"node_modules/a":{"version":"1.0.0"}}}`,
		"package.json":                    `{"dependencies":{"a":"1"},"devDependencies":{"dev":"1","used":"1"}}`,
		"src/index.js":                    `const a = require("a"); const u = require("used"); const l = require("./lib"); exports.h = async () => a`,
		"src/lib.js":                      `exports.x = 1`,
		"other.js":                        `exports.h = async () => 2`,
		"serverless.yml":                  "service: shop",
		".env":                            "SECRET=1",
		".git/HEAD":                       "ref",
		"node_modules/.bin/a":             "#!x",
		"node_modules/.package-lock.json": "{}",
		"node_modules/a/package.json":     `{"name":"a","version":"1.0.0","dependencies":{"b":"1"},"peerDependencies":{"peer":"1","none":"1"}}`,
		"node_modules/a/index.js":         "1",
		"node_modules/a/node_modules/b/package.json":     `{"name":"b","optionalDependencies":{"@s/c":"1"}}`,
		"node_modules/b/package.json":                    `{"name":"b","version":"2.0.0"}`,
		"node_modules/@s/c/package.json":                 `{"name":"@s/c"}`,
		"node_modules/@s/d/package.json":                 `{"name":"@s/d"}`,
		"node_modules/peer/package.json":                 `{"name":"peer"}`,
		"node_modules/dev/package.json":                  `{"name":"dev","dependencies":{"under-dev":"1"}}`,
		"node_modules/under-dev/package.json":            `{"name":"under-dev"}`,
		"node_modules/under-dev/node_modules/x/index.js": "1",
		"node_modules/used/package.json":                 `{"name":"used"}`,
	}
}

const closureWant = "node_modules/@s/c/package.json node_modules/a/index.js node_modules/a/node_modules/b/package.json node_modules/a/package.json " +
	"node_modules/peer/package.json node_modules/used/package.json other.js package.json src/index.js src/lib.js"

func TestNode_PackagesTheProductionClosure(t *testing.T) {
	t.Parallel()
	p := newProject(t, installed())
	r, l := p.build(node("index", "src/index.h"), node("other", "other.h"))
	if l.HasErrors() {
		t.Fatal(l)
	}
	if got := paths(r.Functions["index"].Code); got != closureWant {
		t.Errorf("got  %s\nwant %s", got, closureWant)
	}
	if r.Functions["index"].Code != r.Functions["other"].Code {
		t.Error("two functions of one package have two trees")
	}
	if len(p.steps) != 0 {
		t.Errorf("steps %v for a project that is installed", p.steps)
	}
}

func TestNode_FollowsLinksOfThePackageManager(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"package.json": `{"dependencies":{"a":"1","shared":"workspace:*"}}`, "index.js": `require("a")`,
		"node_modules/a":               "-> .pnpm/a@1/node_modules/a",
		"node_modules/dev":             "-> .pnpm/dev@1/node_modules/dev",
		"node_modules/shared":          "-> ../../shared",
		"node_modules/.pnpm/lock.yaml": "x",
		"node_modules/.pnpm/a@1/node_modules/a/package.json": `{"name":"a","dependencies":{"b":"1"}}`,
		"node_modules/.pnpm/a@1/node_modules/b":              "-> ../../b@1/node_modules/b",
		"node_modules/.pnpm/b@1/node_modules/b/package.json": `{"name":"b"}`,
		"node_modules/.pnpm/dev@1/node_modules/dev/index.js": "1",
		"../shared/package.json":                             `{"name":"shared","dependencies":{"up":"1"},"devDependencies":{"tool":"1"}}`,
		"../shared/index.js":                                 "2",
		"../shared/node_modules/tool/package.json":           `{}`,
		"../node_modules/up/package.json":                    `{"name":"up"}`,
	})
	got := paths(p.one(node("f", "index.h")).Code)
	want := "index.js node_modules/.pnpm/a@1/node_modules/a/package.json node_modules/.pnpm/a@1/node_modules/b node_modules/.pnpm/b@1/node_modules/b/package.json " +
		"node_modules/a node_modules/shared/index.js node_modules/shared/package.json node_modules/up/package.json package.json"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNode_PatternsDecide(t *testing.T) {
	t.Parallel()
	f := func(only bool, patterns ...string) app.Function {
		x := node("f", "src/index.h")
		x.Package = app.Package{Only: only, Patterns: patterns}
		return x
	}
	for _, row := range []struct {
		name string
		fn   app.Function
		want string
	}{
		{"leave out, take back", f(false, "!**", "src/**", "!src/lib.js"), "src/index.js"},
		{"last match wins", f(false, "!src/**", "src/lib.js", "!node_modules/**", "!*.js*"), "src/lib.js"},
		{"only", f(true, "src/index.js"), "src/index.js"},
		{"a default comes back", f(false, "!**", ".env"), ".env"},
		{"a broad pattern brings no development dependency", f(false, "!**", "**"), closureWant + " serverless.yml .env package-lock.json"},
		{"a named one does", f(false, "!**", "node_modules/dev/**"), "node_modules/dev/package.json"},
		{"braces and stars", f(false, "!**", "src/{lib,none}.*"), "src/lib.js"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := strings.Fields(paths(newProject(t, installed()).one(row.fn).Code))
			want := strings.Fields(row.want)
			if len(got) != len(want) {
				t.Fatalf("got %v, want %v", got, want)
			}
			for _, w := range want {
				if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+w+" ") {
					t.Errorf("no %s in %v", w, got)
				}
			}
		})
	}
}

func TestNode_FaultsAreLocated(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"bad.js": "exports.h = async () => {\n  return {;\n}\n", "uses.js": `require("./bad")`, "good.js": "exports.h = 1",
		"src/handler.js": "", "t.ts": "export const h = (: string) => 1\n", "m.ts": `import x from "no-such-package"; export const h = x`,
	})
	r, l := p.build(node("bad", "bad.h"), node("uses", "uses.h"), node("good", "good.h"), node("near", "src/handlr.main"), node("far", "handler.main"),
		node("ts", "t.h"), node("import", "m.h"), node("none", "bad"), node("up", "../x.h"))
	wantDiag(t, l, diag.Error, "syntax", "bad.js:2:11", "expected identifier")
	wantDiag(t, l, diag.Error, "syntax", "t.ts:1:19", "")
	wantDiag(t, l, diag.Error, "unresolved-import", "m.ts:1:15", "npm install no-such-package")
	wantDiag(t, l, diag.Error, "missing-handler", "", `The nearest file is src/handler.js; its handler would be "src/handler.main".`)
	wantDiag(t, l, diag.Error, "missing-handler", "", `needs a file handler.js`)
	wantDiag(t, l, diag.Error, "bad-handler", "", `"bad" names no file and export`)
	wantDiag(t, l, diag.Error, "bad-handler", "", `"../x.h"`)
	if len(r.Functions) != 1 || r.Functions["good"] == nil {
		t.Errorf("built: %v", r.Functions)
	}
}

func TestNode_PlainCodeIsNotJudgedBeyondItsSyntax(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"a.js":         `try { require("./made-later") } catch {} with ({}) {} exports.h = () => require("not-here") + require("./page.html")`,
		"page.html":    "<b>",
		"b.mjs":        `import fs from "node:fs"; import "./c.mjs"; export const h = await Promise.resolve(1)`,
		"c.mjs":        `import { x } from "./a.js"`,
		"esm/a.js":     `export const h = await 1; import data from "./d.json" with { type: "json" }`,
		"esm/d.json":   "{}",
		"type/main.js": `await 1; export const h = 2`, // a module by its syntax alone
	})
	r, l := p.build(node("a", "a.h"), node("b", "b.h"), node("c", "esm/a.h"), node("d", "type/main.h"))
	if l.HasErrors() || len(r.Functions) != 4 {
		t.Error(l)
	}
}

func TestNode_TypeScriptIsBundled(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"package.json":                  `{"dependencies":{"dep":"1","native":"1"},"devDependencies":{"@types/x":"1"}}`,
		"package-lock.json":             `{"packages":{"":{}}}`,
		"tsconfig.json":                 "{ // comment\n \"compilerOptions\": {\"baseUrl\": \".\", \"paths\": {\"@lib/*\": [\"lib/*\"],},},\n}",
		"src/api.ts":                    `import { greet } from "@lib/greet"; import dep from "dep"; import native from "native"; import { S3 } from "@aws-sdk/client-s3"; import type { T } from "x"; export const main = (e: T): string => greet(dep) + native + S3`,
		"lib/greet.ts":                  `export const greet = (n: string): string => "hello " + n`,
		"src/page.html":                 "<b>",
		"node_modules/dep/package.json": `{"name":"dep","dependencies":{}}`, "node_modules/dep/index.js": `module.exports = "from-dep"`,
		"node_modules/native/package.json": `{"name":"native","gypfile":true,"dependencies":{"deep":"1"}}`, "node_modules/native/index.js": "1",
		"node_modules/deep/package.json": `{"name":"deep"}`,
	})
	writeFiles(t, p.bin, map[string]string{"npm": fakeNpm})
	f := node("api", "src/api.main")
	b := p.one(f)
	want := "node_modules/deep/package.json node_modules/native/index.js node_modules/native/package.json package.json src/api.js src/api.js.map src/page.html"
	if got := paths(b.Code); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	code := content(t, b.Code, "src/api.js")
	for _, part := range []string{"from-dep", `"hello "`, `require("native")`, `require("@aws-sdk/client-s3")`, "sourceMappingURL=api.js.map"} {
		if !strings.Contains(code, part) {
			t.Errorf("the bundle lacks %s", part)
		}
	}
	if got := paths(b.Supplied); got != "nodejs/node_modules/@aws-sdk/client-s3/index.js" {
		t.Errorf("supplied: %s", got)
	}
	p.one(f)
	if len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
	p.write(map[string]string{"lib/greet.ts": `export const greet = (n: string): string => "bye " + n`})
	if code := content(t, p.one(f).Code, "src/api.js"); !strings.Contains(code, "bye ") || strings.Join(p.steps, " ") != "bundle" {
		t.Errorf("a change was not bundled: %v", p.steps)
	}
}

func TestNode_TypeScriptModules(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"package.json": `{"type":"module"}`, "a.ts": `export const h = await Promise.resolve(import.meta.url)`, "b.cts": `exports.h = 1`,
		"dist/old.js": "exports.h = 'stale'", "dist/old.ts": "export const h = 'fresh'", "src/made.ts": "export const h = 3",
		"tsconfig.json": `{"compilerOptions":{"outDir":"./dist","rootDir":"src"}}`,
	})
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(p.root, "dist/old.js"), past, past); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ handler, file, part string }{
		{"a.h", "a.mjs", "import.meta.url"}, {"b.h", "b.cjs", "exports.h = 1"}, {"dist/old.h", "dist/old.mjs", "fresh"}, {"dist/made.h", "dist/made.mjs", "3"},
	} {
		if b := p.one(node("f", row.handler)); !strings.Contains(content(t, b.Code, row.file), row.part) || b.Handler != row.handler {
			t.Errorf("%s: %s", row.handler, paths(b.Code))
		}
	}
}

// fakeNpm installs what the package.json of its folder names, as one file each.
const fakeNpm = `#!/bin/sh
echo "$PWD $*" >> "$0.log"
for n in $(sed -e 's/.*"dependencies":{//' -e 's/}.*//' -e 's/"\([^"]*\)":"[^"]*"/\1/g' -e 's/,/ /g' package.json); do
  mkdir -p "node_modules/$n" && echo 1 > "node_modules/$n/index.js"
done
`

func TestNode_SuppliesTheSDKOnce(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"index.js": `const AWS = require("aws-sdk"); import("@aws-sdk/client-s3").then(); require("./lib")`, "lib.js": `require("aws-sdk/clients/s3"); exports.a = 1`,
		"has.mjs": `import x from "@smithy/types"`, "node_modules/@smithy/types/package.json": `{"name":"@smithy/types"}`, "plain.js": "exports.h = 1",
	})
	writeFiles(t, p.bin, map[string]string{"npm": fakeNpm})
	for range 2 {
		r, l := p.build(node("f", "index.h"), node("has", "has.h"), node("plain", "plain.h"))
		if len(l) != 0 {
			t.Fatal(l)
		}
		if got := paths(r.Functions["f"].Supplied); got != "nodejs/node_modules/@aws-sdk/client-s3/index.js nodejs/node_modules/aws-sdk/index.js" {
			t.Errorf("supplied: %s", got)
		}
		if r.Functions["has"].Supplied != nil || r.Functions["plain"].Supplied != nil {
			t.Error("functions that need none were supplied")
		}
	}
	log, err := os.ReadFile(filepath.Join(p.bin, "npm.log"))
	if err != nil || strings.Count(string(log), "\n") != 1 {
		t.Errorf("npm ran: %q %v", log, err)
	}
}

func TestNode_WithoutTheSDKItGoesOn(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{"index.js": `require("aws-sdk"); exports.h = 1`})
	writeFiles(t, p.bin, map[string]string{"npm": "#!/bin/sh\necho 'npm error code ENOTFOUND'\necho 'npm error network request to https://r/aws-sdk failed, reason: getaddrinfo ENOTFOUND r'\nexit 1\n"})
	r, l := p.build(node("f", "index.h"))
	wantDiag(t, l, diag.Warning, "sdk-not-supplied", "", "network request to https://r/aws-sdk failed")
	if r.Functions["f"] == nil || r.Functions["f"].Supplied != nil {
		t.Errorf("got %+v", r.Functions["f"])
	}
}

func TestNode_ImportedDevelopmentDependencyIsThere(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"package.json": `{"devDependencies":{"uuid":"^9","jest":"1"}}`, "index.js": `const { v4 } = require("uuid")`, "index.test.js": `require("jest")`,
	})
	writeFiles(t, p.bin, map[string]string{"npm": fakeNpm})
	r, l := p.build(node("f", "index.h"))
	wantDiag(t, l, diag.Note, "dev-dependency", "", "uuid is a development dependency")
	if got := paths(r.Functions["f"].Code); got != "index.js index.test.js node_modules/uuid/index.js package.json" {
		t.Errorf("got %s", got)
	}
	p.env["PATH"] = p.root
	if p.build(node("f", "index.h")); len(p.steps) != 0 {
		t.Errorf("a second build took the steps %v", p.steps)
	}
}

func TestNode_ModulesNamedAsScriptsAreBundled(t *testing.T) {
	t.Parallel()
	p := newProject(t, map[string]string{
		"package.json": "{}", "src/a.js": `import { x } from "./lib"; export const h = async () => x`, "src/lib.js": `export const x = "from-lib"`,
		"self.js": `export const h = import.meta.url`, "script.js": `exports.h = 1`,
	})
	r, l := p.build(node("a", "src/a.h"), node("self", "self.h"), node("script", "script.h"))
	if l.HasErrors() {
		t.Fatal(l)
	}
	if code := content(t, r.Functions["a"].Code, "src/a.js"); !strings.Contains(code, "from-lib") || strings.Contains(code, "import {") {
		t.Errorf("not bundled: %s", code)
	}
	for _, key := range []string{"self", "script"} {
		if code := content(t, r.Functions[key].Code, key+".js"); strings.Contains(code, "sourceMappingURL") {
			t.Errorf("%s was bundled: %s", key, code)
		}
	}
}

package serverless

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
)

func TestParseDotenv_ReadsTheFormat(t *testing.T) {
	t.Parallel()
	env := func(k string) (string, bool) { return "outer", k == "OUTER" }
	tests := []struct{ name, in, want string }{
		{"plain", "A=1\nB=two words \n", "A=1|B=two words"},
		{"comments", "# no\nA=1 # yes\nB='#'\n", "A=1|B=#"},
		{"export", "export A=1", "A=1"},
		{"quotes", `A="x\ny"` + "\n" + `B='x\ny'`, "A=x\ny|B=x\\ny"},
		{"lines", "A=\"one\ntwo\"\nB=3", "A=one\ntwo|B=3"},
		{"empty", "A=\nB=", "A=|B="},
		{"references", "A=1\nB=${A}-$A-${OUTER}-${NONE:-d}", "A=1|B=1-1-outer-d"},
		{"single quotes are literal", "A=1\nB='${A}'", "A=1|B=${A}"},
		{"escaped", `A=1` + "\n" + `B=\$A`, "A=1|B=$A"},
		{"itself", "A=$A", "A="},
		{"windows", "A=1\r\nB=2\r\n", "A=1|B=2"},
		{"nonsense", "?!\n=\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := parseDotenv(tt.in, env)
			var parts []string
			for _, k := range slices.Sorted(maps.Keys(got)) {
				parts = append(parts, k+"="+got[k])
			}
			if s := strings.Join(parts, "|"); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestNaming_IsServerless(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, got, want string }{
		{"function", lambdaID("hello"), "HelloLambdaFunction"},
		{"dashes", lambdaID("my-fn_a"), "MyDashfnUnderscoreaLambdaFunction"},
		{"path", normalPath("users/{id}"), "UsersIdVar"},
		{"proxy", normalPath("{proxy+}"), "ProxyVar"},
		{"case", normalPath("UserNames/{userId}"), "UsernamesUseridVar"},
		{"dots", normalPath("a.b/c_d/e-f"), "AbCdEDashf"},
		{"root", normalPath(""), ""},
		{"route", normalPath("GET /users/{id}"), "GetUsersIdVar"},
		{"bucket", bucketID("my-bucket.x"), "S3BucketMybucketx"},
		{"topic", topicID("a-topic"), "SNSTopicAtopic"},
		{"content type", startCase("application/json"), "ApplicationJson"},
		{"method", restMethodID("users/{id}", "GET"), "ApiGatewayMethodUsersIdVarGet"},
		{"websocket", routePart("$connect") + "," + routePart("a/b-c"), "Sconnect,aSlashbDashc"},
		{"short rule", shortName("a-rule-1", "rule-1"), "a-rule-1"},
		{"long rule", shortName(strings.Repeat("x", 70), "rule-1"), strings.Repeat("x", 25) + "7d56c0f83fd1e320d60ea2f13dfdeedd-rule-1"},
		{"construct", constructID("my-jobs", "Queue"), "myjobsQueueD4765FA1"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const scripted = `
service: scripted
provider:
  name: aws
  runtime: nodejs22.x
  environment:
    VALUE: ${file(values.js):value}
    FUNC: ${file(values.js):func.key}
    STAGE: ${file(stage.js)}
    SHA: ${git:sha1}
functions:
  hello:
    handler: index.handler
`

func TestScript_RunsWithTheProjectsNode(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"serverless.yml": scripted,
		"values.js":      "console.log('noise'); module.exports = { value: 'v', func: async ({ options }) => ({ key: options.stage + '!' }) };",
		"stage.js":       "module.exports = async ({ resolveVariable }) => await resolveVariable('sls:stage');",
	})
	p := frontend.Project{Root: dir, Exec: func(ctx context.Context, name string, args ...string) ([]byte, error) {
		if name == "git" {
			return []byte("abc1234\n"), nil
		}
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		return cmd.Output()
	}}
	a, l := Frontend{}.Load(context.Background(), p, frontend.Options{Stage: "prod"})
	if a == nil {
		t.Fatal(l)
	}
	env := a.Functions[0].Env
	got := fmt.Sprintf("%s %s %s %s", env["VALUE"], env["FUNC"], env["STAGE"], env["SHA"])
	if got != "v prod! prod abc1234" {
		t.Errorf("the variables are %q", got)
	}
}

func TestScript_FaultsAreLocated(t *testing.T) {
	t.Parallel()
	answer := func(out string, err error) func(context.Context, string, ...string) ([]byte, error) {
		return func(context.Context, string, ...string) ([]byte, error) { return []byte(out), err }
	}
	tests := []struct {
		name string
		exec func(context.Context, string, ...string) ([]byte, error)
		code string
	}{
		{"not allowed", nil, "exec-not-allowed"},
		{"no node", answer("", errors.New("not found")), "script-failed"},
		{"ends itself", answer("bye\n", nil), "script-failed"},
		{"throws", answer("\n\x01ebb!\"Error: no\"\n", nil), "script-failed"},
		{"no JSON", answer("\n\x01ebb:{", nil), "script-failed"},
		{"nothing there", answer("\n\x01ebb:null\n", nil), "unresolved-variable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, map[string]string{
				"serverless.yml": strings.Replace(scripted, "    STAGE: ${file(stage.js)}\n    SHA: ${git:sha1}\n", "", 1), "values.js": "",
			})
			a, l := Frontend{}.Load(context.Background(), frontend.Project{Root: dir, Exec: tt.exec}, frontend.Options{})
			i := slices.IndexFunc(l, func(d diag.Diagnostic) bool { return d.Code == tt.code && d.Line == 7 })
			if a != nil || i < 0 {
				t.Errorf("app %v, diagnostics %v; want code %s on line 7", a != nil, l, tt.code)
			}
		})
	}
}

func TestLoad_ReadsAConfigurationInJavaScript(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"serverless.js": "module.exports = {};"})
	p := frontend.Project{Root: dir, Exec: func(context.Context, string, ...string) ([]byte, error) {
		return []byte("\n\x01ebb:" + `{"service":"js","provider":{"name":"aws","runtime":"nodejs22.x"},"functions":{"a":{"handler":"a.b","timeout":9}}}` + "\n"), nil
	}}
	a, l := Frontend{}.Load(context.Background(), p, frontend.Options{})
	if a == nil || a.Function("js-dev-a") == nil || a.Functions[0].TimeoutSec != 9 {
		t.Errorf("app %+v, diagnostics %v", a, l)
	}
}

// TestLoad_ReadsAConfigurationInTypeScript: what is run is the module that was made of it, in the place of the file.
func TestLoad_ReadsAConfigurationInTypeScript(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "node_modules", "dep"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"serverless.ts": "const x: number = 9;", "node_modules/dep/index.js": "module.exports = 'dep';"})
	p := frontend.Project{Root: dir, Exec: func(ctx context.Context, name string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		return cmd.Output()
	}}
	load := func() (*app.App, diag.List) {
		return Frontend{}.Load(context.Background(), p, frontend.Options{})
	}
	tests := []struct {
		name   string
		script func(string) (string, error)
		want   string // of a fault; "" for none
	}{
		{"nobody makes it", nil, "in TypeScript, which is not compiled here"},
		{"broken", func(string) (string, error) { return "", errors.New("serverless.ts:1:7: expected") }, "serverless.ts cannot be compiled: serverless.ts:1:7: expected"},
		{"too large", func(string) (string, error) { return random(1 << 20), nil }, "are too much to run"},
		{"without its packages", func(string) (string, error) { return "require('none')", nil }, "Cannot find module 'none'"},
		{"right", func(file string) (string, error) {
			if file != filepath.Join(dir, "serverless.ts") {
				return "", errors.New(file)
			}
			return `const path = require('path');
exports.__esModule = true;
exports.default = { service: require('dep'), provider: { name: 'aws', runtime: 'nodejs22.x', environment: { AT: path.basename(__filename), IN: String(__dirname === path.dirname(__filename)) } }, functions: { a: { handler: 'a.b', timeout: 9 } } };`, nil
		}, ""},
	}
	for _, tt := range tests {
		p.Script = tt.script
		a, l := load()
		if tt.want != "" {
			if a != nil || len(l) == 0 || !strings.Contains(l[0].String(), tt.want) {
				t.Errorf("%s: app %v, diagnostics %v", tt.name, a != nil, l)
			}
			continue
		}
		if a == nil || a.Function("dep-dev-a") == nil || a.Functions[0].TimeoutSec != 9 || fmt.Sprint(a.Functions[0].Env["AT"], a.Functions[0].Env["IN"]) != "serverless.ts true" {
			t.Errorf("%s: app %+v, diagnostics %v", tt.name, a, l)
		}
	}
}

// random is text that cannot be packed.
func random(n int) string {
	b := make([]byte, n/2)
	_, _ = rand.Read(b)
	return "// " + hex.EncodeToString(b)
}

func TestDetect_FindsTheMainFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if file, ok := (Frontend{}).Detect(frontend.Project{Root: dir}); ok {
		t.Errorf("an empty folder gives %q", file)
	}
	write(t, dir, map[string]string{"serverless.ts": "", "serverless.yaml": "", "serverless.prod.yml": "", "other.yml": ""})
	tests := []struct{ file, want string }{{"", "serverless.yaml"}, {"serverless.prod.yml", "serverless.prod.yml"}, {"other.yml", ""}, {"serverless.x.yml", ""}}
	for _, tt := range tests {
		if got, _ := (Frontend{}).Detect(frontend.Project{Root: dir, File: tt.file}); got != tt.want {
			t.Errorf("Detect with file %q gives %q, want %q", tt.file, got, tt.want)
		}
	}
}

func TestLoad_EnvFileAndStages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"serverless.yml": "service: s\nprovider:\n  name: aws\n  runtime: nodejs22.x\n  region: ${opt:region, 'eu-west-1'}\nfunctions:\n  a:\n    handler: a.b\n" +
			"    environment: {A: '${env:A}', B: '${env:B}', S: '${opt:stage, self:provider.stage}', R: '${self:provider.region}'}\n",
		"given.env": "A=file\nB=file\n",
	})
	p := frontend.Project{Root: dir, Env: func(k string) (string, bool) { return "own", k == "B" }}
	tests := []struct {
		name string
		o    frontend.Options
		want string
	}{
		{"defaults", frontend.Options{EnvFile: "given.env"}, "file own dev eu-west-1 s-dev-a"},
		{"chosen", frontend.Options{EnvFile: "given.env", Stage: "prod", Region: "ap-south-1"}, "file own prod ap-south-1 s-prod-a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, l := Frontend{}.Load(context.Background(), p, tt.o)
			if a == nil {
				t.Fatal(l)
			}
			e := a.Functions[0].Env
			if got := fmt.Sprintf("%s %s %s %s %s", e["A"], e["B"], e["S"], e["R"], a.Functions[0].Name); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if a, l := (Frontend{}).Load(context.Background(), p, frontend.Options{EnvFile: "none.env"}); a != nil || l[0].Code != "unreadable" {
		t.Errorf("a missing env file gives %v", l)
	}
}

func TestLoad_ReadsNoFileThatIsRefused(t *testing.T) {
	t.Parallel()
	const head = "service: s\nprovider:\n  name: aws\n  runtime: nodejs22.x\nfunctions:\n  a:\n    handler: a.b\n"
	tests := []struct {
		name, file string // of the diagnostic
		code       string
		files      map[string]string
		links      []string // to the secret
	}{
		{"absolute", "serverless.yml", "outside", map[string]string{"serverless.yml": head + "    environment: {A: '${file(SECRET):key}'}\n"}, nil},
		{"with a fallback", "serverless.yml", "outside", map[string]string{"serverless.yml": head + "    environment: {A: \"${file(SECRET):key, 'x'}\"}\n"}, nil},
		{"behind a link", "serverless.yml", "outside", map[string]string{"serverless.yml": head + "    environment: {A: '${file(./x.yml):key}'}\n"}, []string{"x.yml"}},
		{"a text", "serverless.yml", "outside", map[string]string{"serverless.yml": head + "    environment: {A: '${file(./x.txt)}'}\n"}, []string{"x.txt"}},
		{"a program", "serverless.yml", "outside", map[string]string{"serverless.yml": head + "    environment: {A: '${file(./x.js):key}'}\n"}, []string{"x.js"}},
		{"the home", "serverless.yml", "outside", map[string]string{"serverless.yml": head + "    environment: {A: '${file(~/secret.yml):key}'}\n"}, nil},
		{".env", ".env", "outside", map[string]string{"serverless.yml": "useDotenv: true\n" + head + "    environment: {A: '${env:key}'}\n"}, []string{".env"}},
		{".env of the stage", ".env.dev", "outside", map[string]string{"serverless.yml": "useDotenv: true\n" + head + "    environment: {A: '${env:key}'}\n"}, []string{".env.dev"}},
		{"the project file", "serverless.yml", "unreadable", nil, []string{"serverless.yml"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, home := t.TempDir(), t.TempDir()
			secret := filepath.Join(home, "secret.yml")
			write(t, home, map[string]string{"secret.yml": "key: canary\nkey=canary\n"})
			for name, text := range tt.files {
				write(t, dir, map[string]string{name: strings.ReplaceAll(text, "SECRET", secret)})
			}
			for _, name := range tt.links {
				if err := os.Symlink(secret, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			var asked []string
			p := frontend.Project{Root: dir, Env: func(k string) (string, bool) { return home, k == "HOME" }, Exec: func(context.Context, string, ...string) ([]byte, error) {
				return []byte("\n\x01ebb:\"canary\"\n"), nil
			}}
			for _, reads := range []func(string) error{nil, func(file string) error {
				asked = append(asked, file)
				if real, err := filepath.EvalSymlinks(file); err == nil && strings.HasPrefix(real, home) {
					return errs.New(errs.Forbidden, "it is not allowed").WithHint("the mend")
				}
				return nil
			}} {
				p.Reads = reads
				a, l := Frontend{}.Load(context.Background(), p, frontend.Options{})
				if a != nil {
					t.Fatalf("it is read: %v", a.Functions[0].Env)
				}
				if i := slices.IndexFunc(l, func(d diag.Diagnostic) bool { return d.Code == tt.code && d.Pos.File == tt.file }); i < 0 || reads != nil && l[i].Hint != "the mend" {
					t.Errorf("it is said as %v", l)
				}
			}
			if len(asked) == 0 {
				t.Error("nobody was asked")
			}
		})
	}
}

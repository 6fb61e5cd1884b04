package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// namers are ways in which a project has ebb itself read a file of the machine, without a program of its own: @HOME@ is the home. What begins
// with "-> " is a link.
var namers = []struct {
	name    string
	files   map[string]string
	refused bool // with an error; else what is named is left out
}{
	{"import", map[string]string{"serverless.yml": oneNode, "h.ts": "import key from '@HOME@/.ssh/id.pem'\nexport const f = async () => key\n"}, true},
	{"link in the sources", map[string]string{"serverless.yml": oneNode, "h.ts": "import key from './key.txt'\nexport const f = async () => key\n", "key.txt": "-> @HOME@/.ssh/id.pem"}, true},
	{"source map", map[string]string{"serverless.yml": oneNode, "h.ts": "import './made.js'\nexport const f = async () => 1\n", "made.js": "@MAP@"}, false},
	{"link in a package", map[string]string{"serverless.yml": oneNode, "h.js": "exports.f = async () => 1\n", "data": "-> @HOME@/.ssh"}, true},
	{"linked dependency", map[string]string{"serverless.yml": oneNode, "h.js": "exports.f = async () => require('ebb-linked-evil')\n", "package.json": `{"dependencies":{"ebb-linked-evil":"*"}}`, "node_modules/ebb-linked-evil": "-> @HOME@/.ssh"}, true},
	{"${file()} of the home", map[string]string{"serverless.yml": strings.Replace(oneNode, "handler: h.f", "handler: h.f, environment: {KEY: '${file(~/.ssh/id.pem)}'}", 1), "h.js": "exports.f = async () => 1\n"}, true},
	{"${file()} behind a link", map[string]string{"serverless.yml": strings.Replace(oneNode, "handler: h.f", "handler: h.f, environment: {KEY: '${file(./key.txt)}'}", 1), "h.js": "exports.f = async () => 1\n", "key.txt": "-> @HOME@/.ssh/id.pem"}, true},
	{".env behind a link", map[string]string{"serverless.yml": "useDotenv: true\n" + oneNode, "h.js": "exports.f = async () => 1\n", ".env": "-> @HOME@/.ssh/id.pem"}, true},
}

// named has a project read files by name, and gives what came of it in the words of the report.
func named(t *testing.T, mode string, files map[string]string, refused, allow bool) (broke []string) {
	t.Helper()
	s := newStage(t, mode, false, "out", nil)
	write(t, filepath.Join(s.home, ".ssh", "id.pem"), "KEY="+s.canary+"\n")
	write(t, filepath.Join(s.home, ".ssh", "index.js"), "module.exports = '"+s.canary+"'\n")
	for name, text := range files {
		text = strings.ReplaceAll(text, "@HOME@", s.home)
		if text == "@MAP@" {
			text = "export default 1\n//# sourceMappingURL=data:application/json;base64," + base64.StdEncoding.EncodeToString([]byte(`{"version":3,"sources":["file://`+s.home+`/.ssh/id.pem"],"names":[],"mappings":"AAAA"}`)) + "\n"
		}
		to, link := strings.CutPrefix(text, "-> ")
		if !link {
			write(t, filepath.Join(s.project, name), text)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(s.project, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(s.project, name)); err != nil {
			t.Fatal(err)
		}
	}
	if s.rootless {
		if err := filepath.WalkDir(s.dir, func(p string, _ fs.DirEntry, err error) error { return os.Lchown(p, user, user) }); err != nil {
			t.Fatal(err)
		}
	}
	if allow {
		s.flags = []string{"--allow-files", filepath.Join(s.home, ".ssh")}
	}
	said, ready := s.tryUp()
	_, installs := files["package.json"]
	switch {
	case installs: // npm, which does not find the package, may have taken the link away, and then there is nothing to refuse: the canary counts
	case ready && refused:
		broke = append(broke, "files: it serves")
	case !ready && !refused:
		t.Errorf("it does not serve:\n%s", said)
	case refused && !strings.Contains(said, "--allow-files"):
		t.Errorf("it does not say the mend:\n%s", said)
	}
	if strings.Contains(said, s.canary) {
		broke = append(broke, "files: it says "+said)
	}
	_ = filepath.WalkDir(filepath.Join(s.project, ".ebb"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if text, err := os.ReadFile(p); err == nil && bytes.Contains(text, []byte(s.canary)) {
				broke = append(broke, "files: "+p)
			}
		}
		return nil
	})
	return broke
}

// tryUp runs `ebb up` until it is ready, or ends by itself.
func (s *stage) tryUp() (said string, ready bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := s.command(ctx, append([]string{"up", "--no-watch", "--listen", "127.0.0.1:0", "--json"}, s.flags...)...)
	var out strings.Builder
	var warned bytes.Buffer
	cmd.Stderr = &warned
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for lines := bufio.NewScanner(pipe); !ready && lines.Scan(); {
		out.WriteString(lines.Text() + "\n")
		ready = strings.Contains(lines.Text(), `"event":"ready"`)
	}
	if ready {
		_ = cmd.Process.Signal(syscall.SIGINT)
	}
	_ = cmd.Wait()
	return out.String() + warned.String(), ready
}

func TestBuilds_NoFilesOfTheMachineByName(t *testing.T) {
	t.Parallel()
	for _, n := range namers {
		t.Run(n.name, func(t *testing.T) {
			t.Parallel()
			for _, b := range named(t, "plain", n.files, n.refused, false) {
				t.Error("the project got through: ", b)
			}
		})
	}
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		if broke := named(t, "plain", namers[0].files, false, true); len(broke) == 0 {
			t.Error("what is looked for would not be found")
		}
	})
}

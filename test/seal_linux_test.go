package test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

var cageFiles = map[string]string{
	"serverless.yml": `service: cage
provider: {name: aws, runtime: nodejs20.x, region: eu-west-1}
functions:
  bird:
    handler: canary-file-name.handler
    environment: {SONG: canary-environment-value}
    events: [{httpApi: 'GET /bird'}, {eventBridge: {pattern: {source: [canary.event.source]}}}]
`,
	"canary-file-name.js": `// canary-code-text
exports.handler = async (e) => { console.log('canary-log-line', JSON.stringify(e)); return { statusCode: 200, body: process.env.SONG, cookies: ['canary-answer=1'] }; };
`,
}

// birds are canaries: what each part of ebb is given to keep. Those with true are sealed by ebb's own key where the operator has given none.
var birds = map[string]bool{
	"canary-environment-value": true, "canary-code-text": false, "canary-file-name": false, "canary-log-line": false, "canary-payload": false,
	"canary-queue-name": false, "canary-message-body": false, "canary-message-attribute": false,
	"canary-topic-name": false, "canary-publication-subject": false, "canary-publication-message": false,
	"canary-stream-name": false, "canary-partition-key": false, "canary-record-data": false,
	"canary.event.source": false, "canary-event-type": false, "canary-event-detail": false,
	"canary-table-name": false, "canary-item-key": false, "canary-attribute-name": false, "canary-item-value": false, "canary-item-large": false,
	"canary-bucket-name": false, "canary-object-key": false, "canary-object-small": false, "canary-object-metadata": false, "canary-object-large": false,
	"canary-upload-key": false, "canary-object-part": false,
	"canary-parameter-name": true, "canary-parameter-value": true, "canary-parameter-secure": true,
	"canary-secret-name": true, "canary-secret-value": true,
	"canary-schedule-name": false, "canary-schedule-input": false,
}

// forms are how a text may stand in a file.
func forms(s string) (all [][]byte) {
	all = append(all, []byte(s), []byte(hex.EncodeToString([]byte(s))))
	for shift := range 3 { // what stands before it decides how base64 begins; what is behind it, how that ends
		coded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), s...))
		all = append(all, []byte(coded[(shift*8+5)/6:(shift+len(s))*8/6]))
	}
	return all
}

// caged are the canaries that stand in the files below dir, and where.
func caged(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		data := []byte(path) // names count too
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data = append(data, text...)
		}
		for name := range birds {
			for _, form := range forms(name) {
				if bytes.Contains(data, form) {
					found[name] = path
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func birdScript(t *testing.T, s *harness.Server, access, secret, what string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "python3", "-W", "ignore", "testdata/canary.py", s.Ready.AWS, access, secret, what).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all canaries\n") {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
}

// Nothing that a sealed data directory was given to keep is found in any byte below it: while it is used, after a kill, after a restart and
// after a stop. The same search finds all of it where there is no seal.
func TestSeal_NoCanaryIsInAnyFile(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("needs python3 with boto3: %v %s", err, out)
	}
	for name, sealed := range map[string]bool{"clear": false, "sealed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cage(t, sealed)
		})
	}
}

func cage(t *testing.T, sealed bool) {
	t.Helper()
	dir, data, key := project(t, cageFiles), filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "key")
	args := []string{"serve", "--listen", "127.0.0.1:0", "--tls-self-signed", "--api-listen", "127.0.0.1:0"}
	if sealed {
		if r := ebb.Run(t, dir, "keys", "seal-new", key); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		args = append(args, "--seal-key-file", key)
	}
	look := func(when string) {
		t.Helper()
		found := caged(t, data)
		for name, own := range birds {
			where, is := found[name]
			switch {
			case is && sealed:
				t.Errorf("%s: %s is in %s", when, name, where)
			case !is && !sealed && !own:
				t.Errorf("%s: %s is not found where nothing is sealed: the search is wrong", when, name)
			}
		}
		for _, mark := range []string{"PRIVATE KEY", "SQLite format 3"} {
			if at := fileHolding(t, data, mark); (at == "") != sealed {
				t.Errorf("%s: %q is in %q", when, mark, at)
			}
		}
	}
	s := ebb.Start(t, dir, data, args...)
	r := ebb.Run(t, dir, "keys", "create", "deploy", "--json", "--data", data)
	var k struct{ AccessKeyID, SecretAccessKey string }
	if err := json.Unmarshal([]byte(r.Stdout), &k); err != nil {
		t.Fatalf("%+v %v", r, err)
	}
	if r := ebb.Run(t, dir, "deploy", "--data", data); r.Code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	birdScript(t, s, k.AccessKeyID, k.SecretAccessKey, "put")
	if r := ebb.Run(t, dir, "invoke", "bird", "--async", "--data", `{"x":"canary-payload"}`, "--server-data", data); r.Code != 0 {
		t.Fatalf("invoke: %+v", r)
	}
	bird := func() string {
		r := ebb.Run(t, dir, "invoke", "bird", "--server-data", data)
		return r.Stdout
	}
	if got := bird(); !strings.Contains(got, "canary-environment-value") {
		t.Fatalf("the function says %s", got)
	}
	lines := func() string { return ebb.Run(t, dir, "logs", "--data", data).Stdout }
	eventually(t, "the function has had the payload and the event", func() bool {
		text := lines()
		return strings.Contains(text, "canary-payload") && strings.Contains(text, "canary-event-detail")
	})
	look("while it is used")
	s.Kill()
	look("after a kill")
	s = ebb.Start(t, dir, data, args...)
	birdScript(t, s, k.AccessKeyID, k.SecretAccessKey, "take")
	if got, text := bird(), lines(); !strings.Contains(got, "canary-environment-value") || !strings.Contains(text, "canary-event-detail") {
		t.Errorf("after a restart the function says %s, and its log is\n%s", got, text)
	}
	look("after a restart")
	if code := s.Interrupt(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.Stderr())
	}
	look("after a stop")
	if strings.Contains(s.Stderr(), "ebb-seal-key") {
		t.Error("the key is in the log")
	}
	t.Logf("%d canaries in %v", len(birds), slices.Sorted(maps.Keys(caged(t, data))))
}

// fileHolding is a file below dir that holds a text; "" where none does.
func fileHolding(t *testing.T, dir, text string) (at string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			at = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A data directory is opened by its own key alone; what is refused is left as it is.
func TestSeal_RefusesWhatDoesNotOpen(t *testing.T) {
	t.Parallel()
	dir, home := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(1)}), t.TempDir()
	in := func(name string) string { return filepath.Join(home, name) }
	for _, name := range []string{"key", "other"} {
		if r := ebb.Run(t, dir, "keys", "seal-new", in(name)); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	if info, err := os.Stat(in("key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key's mode is %v %v", info.Mode(), err)
	}
	for name, seal := range map[string]string{"data": "", "sealed": in("key")} {
		data := in(name)
		args := []string{"serve", "--listen", "127.0.0.1:0"}
		if seal != "" {
			args = append(args, "--seal-key-file", seal)
		}
		s := ebb.Start(t, dir, data, args...)
		if r := ebb.Run(t, dir, "deploy", "--data", data); r.Code != 0 {
			t.Fatalf("deploy: %+v", r)
		}
		if code := s.Interrupt(t); code != 0 {
			t.Fatalf("exit code %d", code)
		}
	}
	serve := func(data string, more ...string) harness.Result {
		return ebb.Run(t, dir, append([]string{"serve", "--listen", "127.0.0.1:0", "--data", in(data)}, more...)...)
	}
	refused := func(what, say, hint string, r harness.Result) {
		t.Helper()
		if r.Code == 0 || !strings.Contains(r.Stderr, say) || !strings.Contains(r.Stderr, hint) || !strings.Contains(r.Stderr, "hint: ") {
			t.Errorf("%s: %+v", what, r)
		}
	}
	refused("sealed, without a key", "is sealed", "--seal-key-file FILE", serve("sealed"))
	refused("sealed, with another key", "another key has sealed it", "--seal-key-file FILE", serve("sealed", "--seal-key-file", in("other")))
	refused("not sealed, with a key", "made without a seal", "start without --seal-key-file", serve("data", "--seal-key-file", in("key")))
	refused("no key file", "does not exist", "keys seal-new", serve("sealed", "--seal-key-file", in("none")))
	refused("a cluster", "with --nats", "jetstream", serve("new", "--seal-key-file", in("key"), "--nats", "nats://127.0.0.1:1"))
	if err := os.Rename(in("sealed/SEAL"), in("SEAL")); err != nil {
		t.Fatal(err)
	}
	refused("no seal", "SEAL is missing", "backup", serve("sealed", "--seal-key-file", in("key")))
	text, err := os.ReadFile(in("SEAL"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, in("sealed/SEAL"), string(text[:20]))
	refused("a seal that is cut", "damaged", "backup", serve("sealed", "--seal-key-file", in("key")))
	write(t, in("sealed/SEAL"), string(text))
	if err := os.Chmod(in("key"), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("a key that others read", "can be read by others", "chmod 600", serve("sealed", "--seal-key-file", in("key")))
	if err := os.Chmod(in("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(in("key"), in("sealed/key")); err != nil {
		t.Fatal(err)
	}
	refused("a key in what it seals", "in the data directory that it seals", "elsewhere", serve("sealed", "--seal-key-file", in("sealed/key")))
	if err := os.Rename(in("sealed/key"), in("key")); err != nil {
		t.Fatal(err)
	}
	// Another key from now on.
	refused("rotate from another key", "another key has sealed it", "", ebb.Run(t, dir, "keys", "seal-rotate", in("other"), in("key"), "--data", in("sealed")))
	refused("rotate what is not sealed", "not a sealed data directory", "--data DIR", ebb.Run(t, dir, "keys", "seal-rotate", in("key"), in("other"), "--data", in("data")))
	if r := ebb.Run(t, dir, "keys", "seal-rotate", in("key"), in("other"), "--data", in("sealed")); r.Code != 0 {
		t.Fatalf("rotate: %+v", r)
	}
	refused("the old key", "another key has sealed it", "--seal-key-file FILE", serve("sealed", "--seal-key-file", in("key")))
	s := ebb.Start(t, dir, in("sealed"), "serve", "--listen", "127.0.0.1:0", "--seal-key-file", in("other"))
	if status, body := get(http.DefaultClient, s.Ready.Gateway+"/hello/x"); status != 200 {
		t.Errorf("after all: %d %s", status, body)
	}
	refused("rotate while it is used", "is already using", "", ebb.Run(t, dir, "keys", "seal-rotate", in("other"), in("key"), "--data", in("sealed")))
	if r := ebb.RunEnv(t, dir, []string{"EBB_DATA=" + in("sealed")}, "doctor"); !strings.Contains(r.Stdout+r.Stderr, "sealed by the operator's key") {
		t.Errorf("doctor: %+v", r)
	}
	if code := s.Interrupt(t); code != 0 { // what it had in memory goes with it
		t.Errorf("exit code %d\n%s", code, s.Stderr())
	}
}

package test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/testkit/harness"
)

// distant is a server that others reach over TLS, on its own data directory.
type distant struct {
	*harness.Server
	dir string
}

func startDistant(t *testing.T, more ...string) *distant {
	t.Helper()
	dir := t.TempDir()
	return &distant{serveDistant(t, dir, more...), dir}
}

func serveDistant(t *testing.T, dir string, more ...string) *harness.Server {
	t.Helper()
	args := append([]string{"serve", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--tls-self-signed"}, more...)
	return ebb.Start(t, dir, filepath.Join(dir, "data"), args...)
}

// key makes a key on the server's own machine.
func (d *distant) key(t *testing.T, args ...string) string {
	t.Helper()
	r := ebb.Run(t, d.dir, append(append([]string{"keys", "create"}, args...), "--data", d.Data)...)
	if r.Code != 0 {
		t.Fatalf("keys create: %+v", r)
	}
	return strings.TrimSpace(r.Stdout)
}

// call runs a command that calls the server with a key, from a home that has never heard of it.
func (d *distant) call(t *testing.T, dir, key string, args ...string) harness.Result {
	t.Helper()
	home := t.TempDir()
	return ebb.RunEnv(t, dir, []string{"EBB_KEY=" + key, "HOME=" + home, "XDG_CONFIG_HOME=" + home}, append(args, "--server", d.Ready.API)...)
}

func (d *distant) web(t *testing.T) *http.Client {
	t.Helper()
	r := ebb.Run(t, d.dir, "keys", "ca", "--data", d.Data)
	pool := x509.NewCertPool()
	if r.Code != 0 || !pool.AppendCertsFromPEM([]byte(r.Stdout)) || !strings.Contains(r.Stderr, "fingerprint") {
		t.Fatalf("keys ca: %+v", r)
	}
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
}

func TestRemote_EveryCommandWorksWithAKey(t *testing.T) {
	t.Parallel()
	d := startDistant(t)
	dir := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(1)})
	key := d.key(t, "ci", "--role", "deploy")
	for i, c := range []struct {
		args []string
		says string
	}{
		{[]string{"deploy", "-m", "one"}, "deployed shop"}, {[]string{"ls"}, "shop  stage dev  https://"}, {[]string{"logs"}, ""},
		{[]string{"invoke", "hello", "--data", `{"pathParameters":{"name":"ann"}}`}, `"statusCode":200`}, {[]string{"ls", "--history"}, "  ci  "},
		{[]string{"deploy"}, "deployed shop"}, {[]string{"rollback"}, "rolled back"}, {[]string{"logs", "--tail", "1"}, ""},
		{[]string{"rm", "shop"}, "removed shop"},
	} {
		if i == 5 {
			client := d.web(t)
			if status, body := get(client, d.Ready.Gateway+"/hello/x"); status != 200 || !strings.Contains(body, `"version":1`) {
				t.Errorf("gateway: %d %s", status, body)
			}
			resp, err := client.Get(d.Ready.Gateway + "/hello/x")
			if err != nil || resp.ProtoMajor != 2 {
				t.Errorf("gateway: %v, %v", resp, err)
			} else {
				_ = resp.Body.Close()
			}
			write(t, filepath.Join(dir, "handler.js"), handler(2))
		}
		if r := d.call(t, dir, key, c.args...); r.Code != 0 || !strings.Contains(r.Stdout, c.says) {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	if all := d.Stderr() + strings.Join(d.Events(), "\n"); strings.Contains(all, strings.Split(key, ".")[2]) {
		t.Error("the key is in the server's output")
	}
	if left := exec.Command("grep", "-rFl", strings.Split(key, ".")[2], d.Data, dir); left.Run() == nil {
		t.Error("the key's secret is on disk")
	}
}

func TestRemote_EachRefusalSaysWhyAndHowToMendIt(t *testing.T) {
	t.Parallel()
	d, other := startDistant(t), startDistant(t)
	dir := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(1)})
	good := d.key(t, "ci")
	short := d.key(t, "short", "--expires", "1s")
	revoked := d.key(t, "gone")
	if r := ebb.Run(t, dir, "keys", "revoke", strings.Split(revoked, ".")[1], "--data", d.Data); r.Code != 0 {
		t.Fatalf("revoke: %+v", r)
	}
	scoped := d.key(t, "other-app", "--app", "other")
	reader := d.key(t, "monitor", "--role", "read")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	write(t, ca, ebb.Run(t, dir, "keys", "ca", "--data", other.Data).Stdout)
	stranger := other.key(t, "stranger")
	foreign := stranger[:strings.LastIndex(stranger, ".")] + good[strings.LastIndex(good, "."):]
	eventually(t, "the key expires", func() bool { return strings.Contains(d.call(t, dir, short, "ls").Stderr, "expired at") })
	for name, c := range map[string]struct {
		key        string
		args       []string
		says, hint string
	}{
		"no key":            {"", []string{"deploy"}, "no key for https://", "EBB_KEY"},
		"not a key":         {"hello", []string{"deploy"}, "this is not a key of ebb", "copied whole"},
		"unknown key":       {foreign, []string{"deploy"}, "does not know the key", "another server"},
		"expired":           {short, []string{"deploy"}, "(short) expired at", "ebb keys create short"},
		"revoked":           {revoked, []string{"deploy"}, "(gone) was revoked at", "ebb keys create gone"},
		"wrong role":        {reader, []string{"deploy"}, "has the role read, which may not", "--role deploy"},
		"not for keys":      {good, []string{"keys", "list"}, "has the role deploy, which may not", "--role admin"},
		"wrong app":         {scoped, []string{"deploy"}, "is for app other only, not for shop", "--app shop"},
		"another's CA, key": {stranger, []string{"deploy"}, "does not come from the CA that the key names", "ebb keys ca"},
		"another's CA":      {good, []string{"deploy", "--server-ca", ca}, "a CA that is not trusted", "--server-ca"},
		"the system's CAs":  {good, []string{"deploy", "--server-ca", "system"}, "a CA that is not trusted", "--server-ca"},
		"key as a flag":     {"", []string{"ls", "--key", good}, "read by every user of this machine", "EBB_KEY"},
	} {
		r := d.call(t, dir, c.key, c.args...)
		if r.Code == 0 || r.Stdout != "" || !strings.Contains(r.Stderr, c.says) || !strings.Contains(r.Stderr, "ebb: hint: ") || !strings.Contains(r.Stderr, c.hint) {
			t.Errorf("%s: %+v", name, r)
		}
		for _, k := range []string{good, stranger} {
			if strings.Contains(r.Stderr, strings.Split(k, ".")[2]) {
				t.Errorf("%s: the key is in the message", name)
			}
		}
	}
	wide := startDistant(t, "--api-listen", "0.0.0.0:0")
	good = wide.key(t, "ci")
	port := d.Ready.API[strings.LastIndex(d.Ready.API, ":"):]
	widePort := wide.Ready.API[strings.LastIndex(wide.Ready.API, ":"):]
	local := d.Ready.Local[strings.LastIndex(d.Ready.Local, ":"):]
	for url, says := range map[string]string{
		"https://127.0.0.2" + widePort: "is not for that name but for", "http://127.0.0.1" + port: "never sent in clear",
		"https://127.0.0.1" + local: "does not speak TLS", wide.Ready.Gateway: "is not ebb's control API",
	} {
		r := ebb.RunEnv(t, dir, []string{"EBB_KEY=" + good}, "ls", "--server", url)
		if r.Code == 0 || !strings.Contains(r.Stderr, says) || !strings.Contains(r.Stderr, "ebb: hint: ") {
			t.Errorf("%s: %+v", url, r)
		}
	}
	if r := wide.call(t, dir, good, "ls"); r.Code != 0 {
		t.Errorf("after all that the right key: %+v", r)
	}
	if log := d.Stderr(); !strings.Contains(log, "authentication failed") || strings.Contains(log, strings.Split(foreign, ".")[2]) {
		t.Errorf("log: %s", log)
	}
}

func TestRemote_RevocationHoldsOnOpenConnectionsAndOverKill9(t *testing.T) {
	t.Parallel()
	d := startDistant(t)
	key := d.key(t, "ci", "--role", "read")
	client := d.web(t)
	ask := func(at string) int {
		req, err := http.NewRequest("GET", at+"/v1/stacks", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.Join(strings.Split(key, ".")[:3], "."))
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if status := ask(d.Ready.API); status != 200 {
		t.Fatal(status)
	}
	d.Kill()
	d.Server = serveDistant(t, d.dir)
	if status := ask(d.Ready.API); status != 200 {
		t.Errorf("a key that was shown is lost by kill -9: %d", status)
	}
	if r := ebb.Run(t, d.dir, "keys", "revoke", strings.Split(key, ".")[1], "--data", d.Data); r.Code != 0 {
		t.Fatalf("revoke: %+v", r)
	}
	if status := ask(d.Ready.API); status != 401 { // by the connection that is open
		t.Errorf("a revoked key: %d", status)
	}
	d.Kill()
	d.Server = serveDistant(t, d.dir)
	if status := ask(d.Ready.API); status != 401 {
		t.Errorf("a revoked key after kill -9: %d", status)
	}
}

func TestRemote_RotationKeepsTheOldKeyForAWhile(t *testing.T) {
	t.Parallel()
	d := startDistant(t)
	first := d.key(t, "boss", "--role", "admin", "--expires", "never")
	r := d.call(t, d.dir, first, "keys", "rotate")
	second := strings.TrimSpace(r.Stdout)
	if r.Code != 0 || !strings.HasPrefix(second, "ebb1.") {
		t.Fatalf("rotate: %+v", r)
	}
	for _, k := range []string{first, second} {
		if r := d.call(t, d.dir, k, "keys", "list"); r.Code != 0 {
			t.Errorf("%+v", r)
		}
	}
	r = d.call(t, d.dir, second, "keys", "rotate", strings.Split(first, ".")[1], "--overlap", "0", "--json")
	var third struct{ Key, Replaces string }
	if err := json.Unmarshal([]byte(r.Stdout), &third); err != nil || third.Replaces != strings.Split(first, ".")[1] {
		t.Fatalf("%v: %+v", err, r)
	}
	if r := d.call(t, d.dir, first, "keys", "list"); r.Code == 0 || !strings.Contains(r.Stderr, "was revoked at") {
		t.Errorf("the old key: %+v", r)
	}
}

// heavy is a project that takes a while to upload.
func heavy(t *testing.T, files, size int) string {
	t.Helper()
	dir := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(7)})
	r := rand.New(rand.NewPCG(1, uint64(files)))
	for i := range files {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("data%03d.bin", i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRemote_Kill9InTheMiddleOfAnUploadLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	dir := heavy(t, 60, 1<<20)
	d := startDistant(t)
	key := d.key(t, "ci")
	pending := filepath.Join(d.Data, "artifacts", "pending")
	arrived := func() int {
		list, _ := filepath.Glob(filepath.Join(pending, "[0-9a-f]*"))
		return len(list)
	}
	cmd := exec.Command(ebb.Path, "deploy", "--server", d.Ready.API)
	var errOut bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.Env = dir, &errOut, harness.Env(t.TempDir(), "EBB_KEY="+key)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "some files have arrived", func() bool { return arrived() > 3 })
	d.Kill()
	if err := cmd.Wait(); err == nil {
		t.Fatal("the upload was over before the kill")
	}
	if text := errOut.String(); !strings.Contains(text, "upload") || !strings.Contains(text, "ebb: hint: ") {
		t.Errorf("the client says: %s", text)
	}
	before := arrived()
	port := strings.TrimPrefix(d.Ready.API, "https://")
	d.Server = serveDistant(t, d.dir, "--api-listen", port)
	if got := arrived(); got < before || before < 3 {
		t.Errorf("%d files had arrived, %d are left", before, got)
	}
	if r := d.call(t, dir, key, "deploy"); r.Code != 0 {
		t.Fatalf("deploy again: %+v", r)
	}
	d.Kill() // between the acknowledgement and the first use
	d.Server = serveDistant(t, d.dir)
	if status, body := get(d.web(t), d.Ready.Gateway+"/hello/x"); status != 200 || !strings.Contains(body, `"version":7`) {
		t.Errorf("what was acknowledged: %d %s", status, body)
	}
}

func TestRemote_ACancelledUploadLeavesTheOldDeploymentAndGoesOn(t *testing.T) {
	t.Parallel()
	d := startDistant(t)
	key := d.key(t, "ci")
	small := project(t, map[string]string{"serverless.yml": nodeYAML, "handler.js": handler(1)})
	if r := d.call(t, small, key, "deploy"); r.Code != 0 {
		t.Fatalf("deploy: %+v", r)
	}
	dir := heavy(t, 60, 1<<20)
	cmd := exec.Command(ebb.Path, "deploy", "--server", d.Ready.API)
	cmd.Dir, cmd.Env = dir, harness.Env(t.TempDir(), "EBB_KEY="+key)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a file has arrived", func() bool {
		list, _ := filepath.Glob(filepath.Join(d.Data, "artifacts", "pending", "[0-9a-f]*"))
		return len(list) > 1
	})
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err == nil {
		t.Error("the cancelled deploy says that it is done")
	}
	client := d.web(t)
	if _, body := get(client, d.Ready.Gateway+"/hello/x"); !strings.Contains(body, `"version":1`) {
		t.Errorf("after the cancel: %s", body)
	}
	if r := d.call(t, dir, key, "deploy"); r.Code != 0 {
		t.Fatalf("deploy again: %+v", r)
	}
	if _, body := get(client, d.Ready.Gateway+"/hello/x"); !strings.Contains(body, `"version":7`) {
		t.Errorf("after all: %s", body)
	}
}

func TestServe_RefusesToBeReachedInClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		args       []string
		says, hint string
	}{
		"control API":     {[]string{"--listen", "127.0.0.1:0", "--api-listen", "0.0.0.0:0"}, "over TLS only", "--tls-self-signed"},
		"control API, 2":  {[]string{"--listen", "127.0.0.1:0", "--api-listen", ":0", "--plain-http"}, "over TLS only", "--tls-self-signed"},
		"gateway":         {[]string{"--listen", ":0"}, "in clear beyond this machine", "--plain-http"},
		"half a pair":     {[]string{"--tls-cert", "x.pem"}, "belong together", ""},
		"two ways":        {[]string{"--tls-self-signed", "--tls-domain", "a.example"}, "come from one place", ""},
		"no such file":    {[]string{"--listen", "127.0.0.1:0", "--tls-cert", "x.pem", "--tls-key", "y.pem"}, "no such file", "PEM"},
		"not a domain":    {[]string{"--listen", "127.0.0.1:0", "--tls-domain", "10.0.0.1"}, "not a domain", "--tls-domain"},
		"names for files": {[]string{"--tls-names", "a"}, "--tls-names is for --tls-self-signed", ""},
	} {
		r := ebb.Run(t, dir, append([]string{"serve", "--data", filepath.Join(dir, strings.ReplaceAll(name, " ", ""))}, c.args...)...)
		if r.Code == 0 || !strings.Contains(r.Stderr, c.says) || !strings.Contains(r.Stderr, c.hint) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s := ebb.Start(t, dir, filepath.Join(dir, "plain"), "serve", "--listen", "0.0.0.0:0", "--plain-http")
	if !strings.HasPrefix(s.Ready.Gateway, "http://") {
		t.Errorf("%+v", s.Ready)
	}
}

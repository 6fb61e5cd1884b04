package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
)

// node is a running Server and a client of it.
type node struct {
	*server.Server
	client *api.Client
	log    *lockedBuffer
	dir    string
	stop   func() error // stops and closes it
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func options(t testing.TB, dir string, log io.Writer) server.Options {
	t.Helper()
	return optionsWith(t, dir, log, nil)
}

func optionsWith(t testing.TB, dir string, log io.Writer, more map[string]string) server.Options {
	t.Helper()
	flags := map[string]string{"listen": "127.0.0.1:0", "data": dir}
	maps.Copy(flags, more)
	cfg, err := config.Load(config.Sources{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	return server.Options{Config: cfg, Version: "test", Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Env: os.LookupEnv}
}

func open(t testing.TB, dir string) *node {
	t.Helper()
	return openWith(t, dir, nil)
}

// openWith is open with settings.
func openWith(t testing.TB, dir string, flags map[string]string) *node {
	t.Helper()
	return openOptions(t, dir, flags, func(*server.Options) {})
}

// openOptions is openWith with what the function changes of the options.
func openOptions(t testing.TB, dir string, flags map[string]string, change func(*server.Options)) *node {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("needs node")
	}
	n := &node{log: &lockedBuffer{}, dir: dir}
	o := optionsWith(t, dir, n.log, flags)
	change(&o)
	s, err := server.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	n.Server = s
	n.client = api.NewClient(s.APIURL(), s.Token())
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	n.stop = sync.OnceValue(func() error {
		cancel()
		n.client.CloseIdle()
		return errors.Join(<-ran, s.Close())
	})
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return n
}

// shop is an App with one Function whose code is given.
func shop(name, stage, code string) (*app.App, *artifact.Tree) {
	a := &app.App{
		Name: name, Stage: stage, Region: "us-east-1",
		Functions: []app.Function{{
			Key: "hello", Name: name + "-" + stage + "-hello", ID: "HelloLambdaFunction", Runtime: "nodejs20.x", Handler: "handler.hello",
			MemoryMB: 256, TimeoutSec: 5, Env: map[string]app.Value{"STAGE": app.Lit(stage)},
		}},
		APIs:   []app.API{{ID: "HttpApi", Kind: app.HTTP, Name: name, Stage: "$default"}},
		Routes: []app.Route{{API: "HttpApi", Method: "GET", Path: "/hello", Function: "hello", Format: "2.0"}},
	}
	return a, artifact.FromFiles(artifact.File{Path: "handler.js", Mode: 0o644, Data: []byte(code)})
}

func says(text string) string { return fmt.Sprintf("exports.hello = async () => %q;", text) }

func (n *node) deploy(t testing.TB, a *app.App, tree *artifact.Tree) (*api.Deployed, error) {
	t.Helper()
	digest, err := n.client.PutTree(t.Context(), tree, nil)
	if err != nil {
		return nil, err
	}
	f := a.Functions[0]
	return n.client.Deploy(t.Context(), api.DeployRequest{App: a, Units: []api.Unit{{Key: f.Key, Code: digest, Runtime: f.Runtime, Handler: f.Handler}}})
}

func (n *node) mustDeploy(t testing.TB, name, stage, code string) *api.Deployed {
	t.Helper()
	a, tree := shop(name, stage, code)
	d, err := n.deploy(t, a, tree)
	if err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
	return d
}

// get asks the gateway, with a Host where one is given.
func (n *node) get(t testing.TB, host string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", n.GatewayURL()+"/hello", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func (n *node) answers(t testing.TB, want string) {
	t.Helper()
	if status, body := n.get(t, ""); status != 200 || body != want {
		t.Errorf("got %d %q, want %q\n%s", status, body, want, n.log)
	}
}

func TestDeploy_SecondThatCannotStartKeepsTheFirstAndLeavesNoHistory(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeploy(t, "shop", "dev", says("one"))
	a, tree := shop("shop", "dev", `throw new Error("at load");`)
	_, err := n.deploy(t, a, tree)
	if errs.CodeOf(err) != errs.Failed || !strings.Contains(err.Error(), "at load") {
		t.Errorf("got %s: %v", errs.CodeOf(err), err)
	}
	n.answers(t, "one")
	history, err := n.client.History(t.Context(), "shop", "dev")
	if err != nil || len(history) != 1 || !history[0].Current {
		t.Errorf("history %+v, %v", history, err)
	}
	n.mustDeploy(t, "shop", "dev", says("three"))
	n.answers(t, "three")
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", ""); err != nil {
		t.Fatal(err)
	}
	n.answers(t, "one")
}

func TestDeploy_FirstGoesLiveEvenIfItFails(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeploy(t, "shop", "dev", `throw new Error("at load");`)
	if status, body := n.get(t, ""); status != 500 || strings.Contains(body, "at load") {
		t.Errorf("got %d %s", status, body)
	}
	answer, err := n.client.Invoke(t.Context(), "hello", []byte("{}"), "")
	if err != nil || answer.Cause == "" || !strings.Contains(answer.Message, "at load") {
		t.Errorf("got %+v, %v", answer, err)
	}
	n.mustDeploy(t, "shop", "dev", says("mended"))
	n.answers(t, "mended")
}

func TestDeploy_RoutesThatCannotBeMountedChangeNothing(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeploy(t, "shop", "dev", says("one"))
	a, tree := shop("shop", "dev", says("two"))
	a.APIs[0].StageVars = map[string]app.Value{"table": app.Import("elsewhere")}
	if _, err := n.deploy(t, a, tree); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("got %v", err)
	}
	n.answers(t, "one")
	if history, err := n.client.History(t.Context(), "shop", "dev"); err != nil || len(history) != 1 {
		t.Errorf("history %+v, %v", history, err)
	}
}

func TestStacks_StandBesideEachOtherAndNamesAreTheirs(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.mustDeploy(t, "shop", "dev", says("dev"))
	d := n.mustDeploy(t, "shop", "prod", says("prod"))
	if !strings.HasPrefix(d.Gateway, "http://shop.prod.localhost:") {
		t.Errorf("address %s", d.Gateway)
	}
	for host, want := range map[string]string{"shop-dev.localhost": "dev", "shop-prod.localhost": "prod"} {
		if status, body := n.get(t, host); status != 200 || body != want {
			t.Errorf("%s: %d %s", host, status, body)
		}
	}
	_, err := n.client.Invoke(t.Context(), "hello", nil, "")
	if errs.CodeOf(err) != errs.Conflict || errs.HintOf(err) != "Give the full name: shop-dev-hello or shop-prod-hello." {
		t.Errorf("two with one key: %v, hint %q", err, errs.HintOf(err))
	}
	a, tree := shop("other", "dev", says("thief"))
	a.Functions[0].Name = "shop-dev-hello"
	_, err = n.deploy(t, a, tree)
	if errs.CodeOf(err) != errs.Exists || !strings.Contains(err.Error(), "belongs to app shop, stage dev") || errs.HintOf(err) == "" {
		t.Errorf("a name that is taken: %v, hint %q", err, errs.HintOf(err))
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	n.answers(t, "prod")
	if err := n.client.Remove(t.Context(), "shop", "dev"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestRollback_GoesBackStepByStepAndToAName(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	var ids []string
	for _, v := range []string{"one", "two", "three"} {
		ids = append(ids, n.mustDeploy(t, "shop", "dev", says(v)).Deployment)
	}
	for _, want := range []string{"two", "one"} {
		begun := time.Now()
		if _, err := n.client.Rollback(t.Context(), "shop", "dev", ""); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("a rollback took %v", took)
		}
		n.answers(t, want)
	}
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", ""); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("before the first: %v", err)
	}
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", "nothere"); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("to nowhere: %v", err)
	}
	n.answers(t, "one")
	// What was rolled back from is not gone back to: a new deployment replaces the one that serves.
	n.mustDeploy(t, "shop", "dev", says("four"))
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", ""); err != nil {
		t.Fatal(err)
	}
	n.answers(t, "one")
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", ids[2]); err != nil {
		t.Fatal(err)
	}
	n.answers(t, "three")
}

func TestOpen_RestoresWhatWasCurrent(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.mustDeploy(t, "shop", "dev", says("one"))
	n.mustDeploy(t, "shop", "dev", says("two"))
	if _, err := n.client.Rollback(t.Context(), "shop", "dev", ""); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	again.answers(t, "one")
	if _, err := again.client.Rollback(t.Context(), "shop", "dev", ""); errs.CodeOf(err) != errs.NotFound {
		t.Errorf("history after a restart: %v", err)
	}
}

func TestOpen_SaysWhatIsDamagedAndEmptiesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.mustDeploy(t, "shop", "dev", says("one"))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		damage func(t *testing.T, dir string)
		names  string // what the error names
	}{
		"newer format":         {func(t *testing.T, d string) { put(t, filepath.Join(d, "FORMAT"), "2\n") }, "data directory"},
		"empty format":         {func(t *testing.T, d string) { put(t, filepath.Join(d, "FORMAT"), "") }, "data directory"},
		"missing format":       {func(t *testing.T, d string) { remove(t, filepath.Join(d, "FORMAT")) }, "not a data directory"},
		"token cut":            {func(t *testing.T, d string) { put(t, filepath.Join(d, "token"), "abc\n") }, "token"},
		"token open to others": {func(t *testing.T, d string) { mode(t, filepath.Join(d, "token"), 0o644) }, "token"},
		"key cut":              {func(t *testing.T, d string) { put(t, filepath.Join(d, "seal.key"), "abc") }, "seal.key"},
		"key of another":       {func(t *testing.T, d string) { put(t, filepath.Join(d, "seal.key"), strings.Repeat("k", 32)) }, "seal.key"},
		"key missing":          {func(t *testing.T, d string) { remove(t, filepath.Join(d, "seal.key")) }, "seal.key"},
		"key open to others":   {func(t *testing.T, d string) { mode(t, filepath.Join(d, "seal.key"), 0o644) }, "seal.key"},
		"messages overwritten": {func(t *testing.T, d string) { scribble(t, filepath.Join(d, "nats", "jetstream"), ".blk") }, "nats"},
		"store format missing": {func(t *testing.T, d string) { remove(t, filepath.Join(d, "nats", "format")) }, "nats"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			copied := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
				rel, _ := filepath.Rel(dir, p)
				info, infoErr := os.Stat(p)
				return errors.Join(err, infoErr, os.Chmod(filepath.Join(copied, rel), info.Mode().Perm()))
			}); err != nil {
				t.Fatal(err)
			}
			row.damage(t, copied)
			before := tree(t, copied)
			log := &lockedBuffer{}
			s, err := server.Open(t.Context(), options(t, copied, log))
			if err == nil {
				_ = s.Close()
				t.Fatalf("it opened\n%s", log)
			}
			if !strings.Contains(err.Error(), copied) || !strings.Contains(err.Error(), row.names) || errs.HintOf(err) == "" {
				t.Errorf("error %q, hint %q: want %s and a mend", err, errs.HintOf(err), row.names)
			}
			for path, size := range before {
				if now, ok := tree(t, copied)[path]; !ok || now < size && !strings.HasSuffix(path, "server.json") {
					t.Errorf("%s had %d bytes, has %d", path, size, now)
				}
			}
		})
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func mode(t *testing.T, path string, m fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, m); err != nil {
		t.Fatal(err)
	}
}

// scribble overwrites the middle of every file with the suffix.
func scribble(t *testing.T, dir, suffix string) {
	t.Helper()
	done := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, suffix) {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil || len(data) < 64 {
			return err
		}
		done++
		copy(data[len(data)/3:], bytes.Repeat([]byte{0xee}, len(data)/3))
		return os.WriteFile(p, data, 0o600)
	})
	if err != nil || done == 0 {
		t.Fatalf("nothing to damage: %v", err)
	}
}

// tree is the size of every file.
func tree(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	sizes := map[string]int64{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			sizes[p] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

func TestOpen_RefusesADirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.mustDeploy(t, "shop", "dev", says("one"))
	_, err := server.Open(t.Context(), options(t, dir, io.Discard))
	if errs.CodeOf(err) != errs.Exists || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || errs.HintOf(err) == "" {
		t.Errorf("got %v, hint %q", err, errs.HintOf(err))
	}
	n.answers(t, "one")
	if r, err := server.ReadRunFile(dir); err != nil || r.Gateway != n.GatewayURL() {
		t.Errorf("run file %+v, %v", r, err)
	}
}

func TestRemove_CollectsArtifactsThatNobodyNeeds(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.mustDeploy(t, "shop", "dev", says("mine "+strings.Repeat("x", 1000)))
	n.mustDeploy(t, "other", "dev", says("theirs"))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	// What was put lately may belong to a deploy under way, and is kept.
	old := time.Now().Add(-48 * time.Hour)
	if err := filepath.WalkDir(filepath.Join(dir, "artifacts"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = os.Chtimes(p, old, old)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	n.answers(t, "theirs")
	// Instances of a removed app may run for a while; the next start finds what nothing needs.
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	n.answers(t, "theirs")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	for path := range tree(t, filepath.Join(dir, "artifacts")) {
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte("mine xxxx")) {
			t.Errorf("%s is still there", path)
		}
	}
}

func TestSecrets_AreNowhereInClear(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	canary := "canary-7f3a-value"
	a, code := shop("shop", "dev", `exports.hello = async () => process.env.PASSWORD.length + "";`)
	a.Functions[0].Env["PASSWORD"] = app.Lit(canary)
	d, err := n.deploy(t, a, code)
	if err != nil {
		t.Fatal(err)
	}
	n.answers(t, fmt.Sprint(len(canary)))
	if strings.Contains(fmt.Sprintf("%+v", d), canary) || strings.Contains(n.log.String(), canary) {
		t.Error("an answer or the log holds the value")
	}
	if entries, err := os.ReadDir("/proc"); err == nil {
		for _, e := range entries {
			if line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")); err == nil && bytes.Contains(line, []byte(canary)) {
				t.Errorf("arguments of process %s hold the value", e.Name())
			}
		}
	}
	look := func(when string) {
		for path := range tree(t, dir) {
			if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(canary)) {
				t.Errorf("%s, %s holds the value", when, path)
			}
		}
	}
	look("running")
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	look("stopped")
	again := open(t, dir)
	again.answers(t, fmt.Sprint(len(canary)))
}

func TestMetrics_CountWhatHappened(t *testing.T) {
	t.Parallel()
	n := openWith(t, filepath.Join(t.TempDir(), "data"), map[string]string{"freeze-after": "never"})
	n.mustDeploy(t, "shop", "dev", `exports.hello = async (e) => { if (e.fail) throw new Error("x"); return "ok"; };`)
	n.answers(t, "ok")
	n.answers(t, "ok")
	if _, err := n.client.Invoke(t.Context(), "hello", []byte(`{"fail":true}`), ""); err != nil {
		t.Fatal(err)
	}
	broken, code := shop("shop", "dev", "syntax error")
	if _, err := n.deploy(t, broken, code); err == nil {
		t.Error("a broken deploy went live")
	}
	page := n.metrics(t)
	labels := `app="shop",function="shop-dev-hello"`
	for _, want := range []string{
		`ebb_invocations_total{` + labels + `,outcome="success",stage="dev",tenant="default"} 2`,
		`ebb_invocations_total{` + labels + `,outcome="handler",stage="dev",tenant="default"} 1`,
		`ebb_cold_starts_total{` + labels + `,stage="dev",tenant="default"} 1`,
		`ebb_gateway_requests_total{status="2xx"} 2`,
		`ebb_deploys_total{result="ok"} 1`,
		`ebb_deploys_total{result="failed"} 1`,
		`ebb_instances{` + labels + `,stage="dev",state="idle",tenant="default"} 1`,
		`ebb_build_info{`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", page)
	}
}

// Not parallel: it counts goroutines and descriptors of the whole process.
func TestClose_ReleasesEverything(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cycle := func() {
		n := open(t, dir)
		n.mustDeploy(t, "shop", "dev", says("one"))
		n.answers(t, "one")
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Errorf("closed twice: %v", err)
		}
	}
	cycle() // what is made once per process is made
	goroutines, files := settled(t, 0, 0)
	for range 3 {
		cycle()
	}
	nowG, nowF := settled(t, goroutines, files)
	if nowG > goroutines || nowF > files {
		buf := make([]byte, 1<<20)
		t.Errorf("goroutines %d -> %d, descriptors %d -> %d\n%s", goroutines, nowG, files, nowF, buf[:runtime.Stack(buf, true)])
	}
}

// settled waits until goroutines and descriptors are down to the given numbers, or have stopped falling.
func settled(t *testing.T, wantG, wantF int) (goroutines, files int) {
	t.Helper()
	count := func() (int, int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return runtime.NumGoroutine(), 0
		}
		return runtime.NumGoroutine(), len(entries)
	}
	deadline := time.Now().Add(10 * time.Second)
	var seen []int
	for {
		g, f := count()
		if wantG > 0 && g <= wantG && f <= wantF {
			return g, f
		}
		seen = append(seen, g*1000+f)
		if n := len(seen); wantG == 0 && n > 20 && slices.Max(seen[n-20:]) == slices.Min(seen[n-20:]) || time.Now().After(deadline) {
			return g, f
		}
		time.Sleep(10 * time.Millisecond) // polling, not timing
	}
}

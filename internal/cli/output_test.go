package cli_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestUp_OutputInsideTheProjectIsNoChangeOfIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("serverless.yml", "service: shop\nprovider: {name: aws, runtime: nodejs20.x}\nfunctions:\n  hello: {handler: handler.hello, events: [httpApi: GET /hello]}\n")
	write("handler.js", "exports.hello = async () => 'first'\n")
	out, err := os.Create(filepath.Join(dir, "out.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("ebb", "up", "--json", "--listen", "127.0.0.1:0", dir)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	type line struct {
		Event, Gateway string
		Files          []string
	}
	lines := func() (all []line) {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(text)) {
			var one line
			if json.Unmarshal([]byte(l), &one) == nil {
				all = append(all, one)
			}
		}
		return all
	}
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	poll := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain until %s; %v", what, lines())
			}
			<-tick.C
		}
	}
	gateway := ""
	poll("it is ready", func() bool {
		for _, l := range lines() {
			if l.Event == "ready" {
				gateway = l.Gateway
			}
		}
		return gateway != ""
	})
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	answers := func(want string) func() bool {
		return func() bool {
			resp, err := client.Get(gateway + "/hello")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			return err == nil && string(body) == want
		}
	}
	poll("it answers", answers("first"))
	write("handler.js", "exports.hello = async () => 'second'\n")
	poll("the change is served", answers("second"))
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	for _, l := range lines() {
		for _, f := range l.Files {
			if f != "handler.js" {
				t.Errorf("%s after a change of %s", l.Event, f)
			}
		}
	}
	if packaged, _ := filepath.Glob(filepath.Join(dir, ".ebb", "artifacts", "trees", "*", "out.log")); len(packaged) > 0 {
		t.Error("its output is packaged")
	}
}

package test

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestProvisioned_InstancesAreReadyAndKnowIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ runtime, file, code string }{
		{"nodejs22.x", "h.js", "exports.f = async () => ({ statusCode: 200, body: process.env.AWS_LAMBDA_INITIALIZATION_TYPE });\n"},
		{"python3.13", "h.py", "import os\ndef f(event, context):\n    return {'statusCode': 200, 'body': os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']}\n"},
	} {
		t.Run(c.runtime, func(t *testing.T) {
			t.Parallel()
			yaml := burstYAML(c.runtime, "h.f")
			dir := project(t, map[string]string{"serverless.yml": yaml + "    provisionedConcurrency: 2\n", c.file: c.code})
			s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch")
			eventually(t, "both are ready", func() bool {
				r := ebb.Run(t, dir, "ls")
				return strings.Contains(r.Stdout, "provisioned 2 of 2")
			})
			if status, body := get(http.DefaultClient, s.Ready.Gateway+"/f"); status != 200 || body != "provisioned-concurrency" {
				t.Errorf("got %d %s", status, body)
			}
			if r := ebb.Run(t, dir, "logs", "f"); !strings.Contains(r.Stdout, "REPORT") || strings.Contains(r.Stdout, "Init Duration") {
				t.Errorf("a call of a provisioned instance was cold: %s", r.Stdout)
			}
		})
	}
}

// The REPORT line of a cold start says where its time went.
func TestColdStart_IsBrokenDown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, runtime, file, code string }{
		{"node", "nodejs22.x", "h.js", "const until = Date.now() + 62; while (Date.now() < until); exports.f = async () => ({ statusCode: 200 });\n"},
		{"python", "python3.13", "h.py", "import time\ntime.sleep(0.062)\ndef f(event, context):\n    return {'statusCode': 200}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := project(t, map[string]string{"serverless.yml": burstYAML(c.runtime, "h.f"), c.file: c.code})
			s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch")
			if status, body := get(http.DefaultClient, s.Ready.Gateway+"/f"); status != 200 {
				t.Fatalf("got %d %s", status, body)
			}
			want := regexp.MustCompile(`\tInit Duration: [\d.]+ ms\tQueue: [\d.]+ ms\tSandbox: [\d.]+ ms\tRuntime Init: [\d.]+ ms\tHandler Init: (\d{2,}\.)\d\d ms\t`)
			out := ebb.Run(t, dir, "logs", "f").Stdout
			m := want.FindStringSubmatch(out)
			if m == nil || len(m[1]) == 3 && m[1] < "60." {
				t.Errorf("a module that takes 60 ms: %s", out)
			}
			t.Log(regexp.MustCompile(`Init Duration.*`).FindString(out))
		})
	}
}

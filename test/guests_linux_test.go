package test

import (
	"bytes"
	"crypto/rand"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
)

var guestsPage = flag.String("guests.page", "", "write the table of hostile guests to this page")

// guestRow is one way in which a guest misuses the protocol that it is spoken to in, or looks for what others left.
type guestRow struct {
	name string
	says string // one sentence for operators
}

var guestRows = []guestRow{
	{"answers twice", "a guest that answers an Invocation twice has given its answer with the first, or the Invocation fails; the second reaches nobody."},
	{"answers for another", "an answer for an Invocation that the guest has not been given, or has answered before, is refused, and reaches nobody."},
	{"answers before it is asked", "an answer that is sent between Invocations reaches no caller of another function, and none gets another caller's; by the Runtime API it is refused."},
	{"answers in its init", "an answer that is sent before init is over fails the init or is refused."},
	{"slow init", "an init that does not end is ended at its limit, with all that it started; who waited gets an error."},
	{"exits in init", "a guest that ends in its init gives an error to who waited, and leaves nothing; the next call is tried anew."},
	{"stdout held open", "a guest that ends while a child of it holds its standard output gives an error at once, and the child ends."},
	{"a former Version", "what a Version left in files, environment, processes and sockets is not there for the next one of the same function."},
	{"another app", "what a function left is not there for a function of another app on the same server."},
	{"a deleted function", "what a function left is not there for one of the same name that is deployed after it was deleted."},
	{rowDraws, "Instances that come from one program that was ready, as copies or otherwise, draw nothing twice: random numbers of every kind, identifiers, keys, names of files, at their init or later. Python's seed of string hashes, which it draws once for each process, is what copies share."},
}

// guestRuntimes are the ways in which guests are spoken to.
var guestRuntimes = []struct{ name, title, runtime, handler, program string }{
	{"node", "Node.js, frames", "nodejs20.x", "handler", "node"},
	{"python", "Python, frames", "python3.11", "handler", "python3"},
	{"provided", "provided, Runtime API", "provided.al2023", "bootstrap", "python3"},
}

// guestVerdicts are what the rows came to, by row and runtime.
type guestVerdicts struct {
	mu  sync.Mutex
	all map[string]string
}

func (v *guestVerdicts) run(t *testing.T, row, runtime string, test func(t *testing.T)) {
	t.Run(strings.ReplaceAll(row, " ", "_")+"/"+runtime, func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() {
			word := "holds"
			switch {
			case t.Failed():
				word = "**FAILS**"
			case t.Skipped():
				word = "not run"
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			v.all[row+"/"+runtime] = word
		})
		test(t)
	})
}

func (v *guestVerdicts) table() string {
	var p strings.Builder
	p.WriteString("## What functions do to their callers and to each other\n\nThese guests are real functions on a whole server, called over HTTP beside functions that do nothing wrong, which must " +
		"answer all the time. Only what is\nstated is claimed: a function that lies to its own callers is not prevented from it.\n\n| Hostile guest |")
	for _, r := range guestRuntimes {
		p.WriteString(" " + r.title + " |")
	}
	p.WriteString("\n|---" + strings.Repeat("|---", len(guestRuntimes)) + "|\n")
	for _, row := range guestRows {
		p.WriteString("| " + row.name + " |")
		for _, r := range guestRuntimes {
			word := v.all[row.name+"/"+r.name]
			if word == "" {
				word = "not run"
			}
			p.WriteString(" " + word + " |")
		}
		p.WriteString("\n")
	}
	p.WriteString("\n")
	for _, row := range guestRows {
		p.WriteString("- **" + row.name + "**: " + row.says + "\n")
	}
	return p.String()
}

// TestGuests_HostileOnesHarmOnlyThemselves runs the catalogue's rows that need a whole server.
func TestGuests_HostileOnesHarmOnlyThemselves(t *testing.T) {
	needIsolation(t)
	v := &guestVerdicts{all: map[string]string{}}
	t.Run("rows", func(t *testing.T) {
		t.Parallel()
		testLiars(t, v)
		testCanaries(t, v)
		testDraws(t, v)
	})
	t.Cleanup(func() { // when the parallel rows have ended
		if *guestsPage == "" {
			return
		}
		if err := sandboxtest.WriteSection(*guestsPage, "functions", v.table()); err != nil {
			t.Error(err)
		}
	})
}

func TestGuests_AreOnTheirPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/isolation.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range guestRows {
		if !strings.Contains(string(page), "\n| "+row.name+" |") || !strings.Contains(string(page), "- **"+row.name+"**: "+row.says+"\n") {
			t.Errorf("docs/isolation.md has no row %q, or another text for it; run make isolation-table", row.name)
		}
	}
	if strings.Contains(string(page), "FAILS") || strings.Contains(string(page), "not run") {
		t.Error("docs/isolation.md is of a run that failed; run make isolation-table")
	}
}

func testLiars(t *testing.T, v *guestVerdicts) {
	tests := []struct {
		row, title string
		judge      func(l *liar, t *testing.T)
	}{
		{"twice", "answers twice", (*liar).lies},
		{"other", "answers for another", (*liar).lies},
		{"early", "answers before it is asked", (*liar).lies},
		{"init", "answers in its init", (*liar).lies},
		{"slow", "slow init", (*liar).fails},
		{"exits", "exits in init", (*liar).fails},
		{"holds", "stdout held open", (*liar).fails},
	}
	token := "liar-" + rand.Text()
	var y strings.Builder
	y.WriteString("service: liars\nprovider: {name: aws, memorySize: 256, timeout: 8}\npackage: {patterns: ['!**', 'handler.*', bootstrap]}\nfunctions:\n")
	for _, r := range guestRuntimes {
		for _, row := range []string{"calm", "twice", "other", "early", "init", "slow", "exits", "holds"} {
			fmt.Fprintf(&y, "  %s-%s: {runtime: %s, handler: %s.handler, environment: {ROW: %s, TOKEN: %s-%s-%s}, events: [httpApi: GET /%s/%s]}\n",
				r.name, row, r.runtime, r.handler, row, token, r.name, row, r.name, row)
		}
	}
	dir := project(t, map[string]string{"serverless.yml": y.String()})
	if err := os.CopyFS(dir, os.DirFS("testdata/liar")); err != nil {
		t.Fatal(err)
	}
	s := ebb.Start(t, dir, filepath.Join(dir, ".ebb"), "up", "--listen", "127.0.0.1:0", "--no-watch")
	for _, c := range tests {
		for _, r := range guestRuntimes {
			v.run(t, c.title, r.name, func(t *testing.T) {
				if _, err := exec.LookPath(r.program); err != nil {
					t.Skipf("needs %s", r.program)
				}
				l := &liar{at: s.Ready.Gateway + "/" + r.name + "/", row: c.row, runtime: r.name, token: token + "-" + r.name + "-" + c.row}
				c.judge(l, t)
			})
		}
	}
}

// liar is one hostile function on a server.
type liar struct {
	at, row, runtime, token string
	calls                   int
}

// call calls the function, beside one that does nothing wrong. more is "&well=1" where it is to behave.
func (l *liar) call(t *testing.T, row, more string) (status int, body, nonce string) {
	t.Helper()
	l.calls++
	nonce = fmt.Sprintf("nonce-%s-%d", l.token, l.calls)
	status, body = get(http.DefaultClient, l.at+row+"?n="+url.QueryEscape(nonce)+more)
	return status, body, nonce
}

// lies judges a function that sends what nobody asked for.
func (l *liar) lies(t *testing.T) {
	stop := l.calm(t)
	defer stop()
	well, failed, rounds, most := 0, 0, 3, 8
	if l.row == "init" {
		rounds, most = 1, 3 // each failed init is waited for longer
	}
	for round := range rounds {
		for i := 0; i < most && well < 2; i++ {
			more := "&well=1"
			if i == 0 {
				more = ""
			}
			status, body, nonce := l.call(t, l.row, more)
			own := body == nonce
			switch {
			case status == 200 && own:
				well++
			case status >= 500 && !strings.Contains(body, "nonce-") && !strings.Contains(body, "forged"):
				well, failed = 0, failed+1
			case status == 200 && body == "forged" && l.row == "early" && l.runtime != "provided":
				well = 0 // to its own caller a function says what it likes
			default:
				t.Fatalf("round %d, call %d got %d %.300s; its nonce is %s", round, i, status, body, nonce)
			}
		}
		if well < 2 && (l.row != "init" || l.runtime == "provided") {
			t.Fatalf("round %d: the function does not work any more", round)
		}
		well = 0
	}
	switch {
	case l.runtime == "provided" && failed > 0:
		t.Errorf("%d calls failed, although what was forged was refused at once", failed)
	case l.runtime != "provided" && l.row != "early" && failed == 0:
		t.Error("no call failed: nothing was forged")
	}
}

// fails judges a function that never answers.
func (l *liar) fails(t *testing.T) {
	stop := l.calm(t)
	defer stop()
	times := 2
	if l.row == "slow" {
		times = 1 // an init has ten seconds
	}
	for range times {
		status, body, _ := l.call(t, l.row, "")
		if status < 500 {
			t.Fatalf("got %d %.300s", status, body)
		}
		eventually(t, "what it started is gone", func() bool { return len(withToken(t, l.token)) == 0 })
	}
}

// calm calls a function that does nothing wrong until it is stopped. Each call must be answered, and with its own answer.
func (l *liar) calm(t *testing.T) (stop func()) {
	t.Helper()
	end, ended := make(chan struct{}), make(chan struct{})
	other := &liar{at: l.at, token: l.token + "-calm"}
	go func() {
		defer close(ended)
		for {
			if status, body, nonce := other.call(t, "calm", ""); status != 200 || body != nonce {
				t.Errorf("a function beside got %d %.300s, want %s", status, body, nonce)
				return
			}
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond): // leave the processors to others
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// withToken lists living processes with a token in their arguments.
func withToken(t *testing.T, token string) (found []string) {
	t.Helper()
	for _, file := range glob(t, "/proc/[0-9]*/cmdline") {
		if args, _ := os.ReadFile(file); bytes.Contains(args, []byte(token)) {
			found = append(found, file)
		}
	}
	return found
}

// canaryScript leaves a canary in all that lasts longer than a process may, or looks for one. Its arguments are what to do and the canary.
// In the pattern of the search no canary stands, so that it does not find itself.
const canaryScript = `
case $1 in
leave)
  for dir in /tmp /var/tmp /dev/shm; do echo "$2" > "$dir/$2" 2>/dev/null; done
  (exec </dev/null >/dev/null 2>&1; CANARY="$2" sleep 1000 &)
  ;;
look)
  for dir in /tmp /var/tmp /dev/shm; do ls -A "$dir" 2>/dev/null | grep "[c]anary-"; grep -rl "[c]anary-" "$dir" 2>/dev/null; done
  grep -l "[c]anary-" /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null
  grep "[c]anary-" /proc/net/unix
  env | grep "[c]anary-"
  ;;
esac
true
`

const canaryPython = `import os, socket, subprocess
kept = []
def handler(event, context):
    q = event["queryStringParameters"]
    if q["do"] == "leave":
        s = socket.socket(socket.AF_UNIX)
        s.bind("\0" + q["canary"])
        kept.append(s)
    out = subprocess.run(["/bin/sh", os.path.join(os.environ["LAMBDA_TASK_ROOT"], "canary.sh"), q["do"], q.get("canary", "")], stdout=subprocess.PIPE, text=True).stdout
    return {"statusCode": 200, "body": "GENERATION " + out}
`

const canaryNode = `const { execFileSync } = require('child_process');
const net = require('net');
const kept = [];
exports.handler = async (event) => {
  const q = event.queryStringParameters;
  if (q.do === 'leave') await new Promise((done) => kept.push(net.createServer().listen('\0' + q.canary, done)));
  const out = execFileSync('/bin/sh', [process.env.LAMBDA_TASK_ROOT + '/canary.sh', q.do, q.canary || ''], { encoding: 'utf8' });
  return { statusCode: 200, body: 'GENERATION ' + out };
};
`

const canaryProvided = `#!/usr/bin/env python3
import json, os, sys, urllib.request
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
import handler
api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(api + "next") as r:
        call, event = r.headers["Lambda-Runtime-Aws-Request-Id"], json.load(r)
    answer = json.dumps(handler.handler(event, None)).encode()
    urllib.request.urlopen(urllib.request.Request(api + call + "/response", data=answer, method="POST")).read()
`

// canaries is a project whose functions leave canaries or look for them. Each generation has other code; the first has a secret.
func canaries(app, generation, secret string) map[string]string {
	var y strings.Builder
	fmt.Fprintf(&y, "service: %s\nprovider: {name: aws, memorySize: 256, timeout: 20}\npackage: {patterns: ['!**', 'handler.*', bootstrap, canary.sh]}\nfunctions:\n", app)
	for _, r := range guestRuntimes {
		fmt.Fprintf(&y, "  %s: {runtime: %s, handler: handler.handler, environment: {SECRET: %q}, events: [httpApi: GET /%s]}\n", r.name, r.runtime, secret, r.name)
	}
	files := map[string]string{"serverless.yml": y.String(), "canary.sh": canaryScript, "bootstrap": canaryProvided, "handler.py": canaryPython, "handler.js": canaryNode}
	for _, name := range []string{"handler.py", "handler.js"} {
		files[name] = strings.ReplaceAll(files[name], "GENERATION", generation)
	}
	return files
}

func testCanaries(t *testing.T, v *guestVerdicts) {
	data := t.TempDir()
	canary := "canary-" + rand.Text()
	s := ebb.Start(t, t.TempDir(), data, "serve", "--listen", "127.0.0.1:0")
	deploy := func(app, generation, secret string) {
		t.Helper()
		if r := ebb.Run(t, project(t, canaries(app, generation, secret)), "deploy", "--data", data); r.Code != 0 {
			t.Fatalf("deploy: %+v", r)
		}
	}
	look := func(app, runtime string) string {
		t.Helper()
		status, body := getOf(t, s.Ready.Gateway, app+".dev.localhost", "/"+runtime+"?do=look")
		if status != 200 {
			t.Fatalf("%s %s: %d %s", app, runtime, status, body)
		}
		return body
	}
	leave := func() {
		t.Helper()
		for _, r := range guestRuntimes {
			if status, body := getOf(t, s.Ready.Gateway, "first.dev.localhost", "/"+r.name+"?do=leave&canary="+canary); status != 200 {
				t.Fatalf("%s: %d %s", r.name, status, body)
			}
			// The attack is one: in the Instance itself all of it is there.
			found := look("first", r.name)
			for _, want := range []string{"/tmp/" + canary, "/dev/shm/" + canary, "/environ", "@" + canary, "SECRET=" + canary} {
				if !strings.Contains(found, want) {
					t.Errorf("%s: the function does not find its own %q in\n%s", r.name, want, found)
				}
			}
		}
	}
	// One after the other on one server: the rows are judged by what was found then.
	found := map[string]string{}
	note := func(row, app, generation string) {
		for _, r := range guestRuntimes {
			body := look(app, r.name)
			if rest, ok := strings.CutPrefix(body, generation+" "); ok {
				body = rest
			} else {
				body = "an answer of other code: " + body
			}
			found[row+"/"+r.name] = strings.TrimSpace(body)
		}
	}
	deploy("first", "one", canary)
	leave()
	deploy("second", "beside", "none")
	note("another app", "second", "beside")
	deploy("first", "two", "none")
	note("a former Version", "first", "two")
	deploy("first", "three", canary)
	leave()
	if r := ebb.Run(t, t.TempDir(), "rm", "first", "--data", data); r.Code != 0 {
		t.Fatalf("rm: %+v", r)
	}
	deploy("first", "four", "none")
	note("a deleted function", "first", "four")
	for _, row := range []string{"a former Version", "another app", "a deleted function"} {
		for _, r := range guestRuntimes {
			v.run(t, row, r.name, func(t *testing.T) {
				if text, ok := found[row+"/"+r.name]; !ok || text != "" {
					t.Errorf("found:\n%s", text)
				}
			})
		}
	}
}

// getOf is get for a host of a server.
func getOf(t *testing.T, at, host, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ebb-run/ebb/internal/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"ebb": func() { os.Exit(cli.Main(cli.OS(), os.Args[1:])) },
	})
}

// TestScript runs the files in testdata/script, which specify the command line. Beyond testscript's own commands they have
//
//	start NAME ARGS…    runs `ebb ARGS…` in the background until it prints that it is ready; its URLs are in
//	                    $NAME_gateway, $NAME_api and $NAME_aws, its output in the files NAME.out and NAME.err
//	spawn NAME ARGS…    the same without waiting
//	ended NAME [N]      waits for its end with exit code N (0)
//	interrupt NAME [N]  sends SIGINT and wants exit code N (0)
//	await NAME REGEXP   waits until its output, of both kinds, matches
//	get STATUS URL [HOST] wants that status of a GET; the body is stdout of what follows
//	id NAME ARGS…       runs `ebb ARGS…` and keeps what it prints in $NAME
//	code N ebb ARGS…    wants that exit code
func TestScript(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		if h, err := os.UserHomeDir(); err == nil {
			cache = filepath.Join(h, ".cache")
		}
	}
	goCache, goPath := goEnv(t, "GOCACHE"), goEnv(t, "GOPATH")
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Values[serversKey{}] = &servers{all: map[string]*server{}}
			e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, ".home"))
			e.Setenv("XDG_CACHE_HOME", cache)
			e.Setenv("HOME", home)
			e.Setenv("GOCACHE", goCache)
			e.Setenv("GOPATH", goPath)
			e.Setenv("GOFLAGS", os.Getenv("GOFLAGS"))
			e.Setenv("GOPROXY", os.Getenv("GOPROXY"))
			e.Setenv("NO_COLOR", "1")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "goproxy":
				return reachesProxy(), nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": start, "spawn": spawn, "ended": ended, "interrupt": interrupt, "await": await, "get": get, "code": code, "id": id,
		},
	})
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// reachesProxy says whether the one module that the Go starter needs can be had.
func reachesProxy() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, "go", "mod", "download", "github.com/aws/aws-lambda-go@v1.55.1").Run() == nil
}

type serversKey struct{}

type servers struct {
	mu  sync.Mutex
	all map[string]*server
}

// server is an ebb in the background.
type server struct {
	cmd      *exec.Cmd
	out, err string // files
	done     chan struct{}
	mu       sync.Mutex
	text     strings.Builder // both kinds of output
	grown    chan struct{}
}

func (s *server) take(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.WriteString(line)
	close(s.grown)
	s.grown = make(chan struct{})
}

func (s *server) seen() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.grown
}

// until waits for output that matches.
func (s *server) until(re *regexp.Regexp) error {
	deadline := time.After(90 * time.Second)
	for {
		text, grown := s.seen()
		if re.MatchString(text) {
			return nil
		}
		select {
		case <-grown:
		case <-s.done:
			if text, _ = s.seen(); re.MatchString(text) {
				return nil
			}
			return fmt.Errorf("it ended without printing %s:\n%s", re, text)
		case <-deadline:
			return fmt.Errorf("not printed within 90 s: %s\n%s", re, text)
		}
	}
}

// ready is both the event and the line for people.
var ready = regexp.MustCompile(`(?m)^\{.*"event":"ready".*$|^ready http|^serving http`)

func start(ts *testscript.TestScript, neg bool, args []string) {
	spawn(ts, neg, args)
	name := args[0]
	s := named(ts, name)
	if err := s.until(ready); err != nil {
		ts.Fatalf("start %s: %v", name, err)
	}
	text, _ := s.seen()
	line := ready.FindString(text)
	var e struct{ Gateway, API, AWS string }
	if json.Unmarshal([]byte(line), &e) == nil {
		ts.Setenv(name+"_gateway", e.Gateway)
		ts.Setenv(name+"_api", e.API)
		ts.Setenv(name+"_aws", e.AWS)
	} else if m := regexp.MustCompile(`(?:ready|serving) (http://[^ ,]+)`).FindStringSubmatch(text); m != nil {
		ts.Setenv(name+"_gateway", m[1])
	}
}

func spawn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start or spawn NAME ARGS…")
	}
	name := args[0]
	s := &server{
		cmd: exec.Command("ebb", args[1:]...), done: make(chan struct{}), grown: make(chan struct{}),
		out: ts.MkAbs(filepath.Join(ts.Getenv("WORK"), name+".out")), err: ts.MkAbs(filepath.Join(ts.Getenv("WORK"), name+".err")),
	}
	s.cmd.Dir = ts.MkAbs(".")
	for _, k := range []string{"PATH", "HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "NO_COLOR", "GOCACHE", "GOPATH", "GOFLAGS", "GOPROXY", "TMPDIR", "EBB_DATA", "CANARY"} {
		if v := ts.Getenv(k); v != "" {
			s.cmd.Env = append(s.cmd.Env, k+"="+v)
		}
	}
	var pipes sync.WaitGroup
	for file, open := range map[string]func() (io.ReadCloser, error){s.out: s.cmd.StdoutPipe, s.err: s.cmd.StderrPipe} {
		pipe, err := open()
		ts.Check(err)
		f, err := os.Create(file)
		ts.Check(err)
		pipes.Go(func() {
			defer func() { _ = f.Close() }()
			r := bufio.NewReader(pipe)
			for {
				line, err := r.ReadString('\n')
				_, _ = f.WriteString(line)
				s.take(line)
				if err != nil {
					return
				}
			}
		})
	}
	ts.Check(s.cmd.Start())
	go func() {
		pipes.Wait()
		_ = s.cmd.Wait()
		close(s.done)
	}()
	ts.Defer(func() {
		_ = s.cmd.Process.Kill()
		<-s.done
	})
	all := ts.Value(serversKey{}).(*servers)
	all.mu.Lock()
	all.all[name] = s
	all.mu.Unlock()
}

func named(ts *testscript.TestScript, name string) *server {
	all := ts.Value(serversKey{}).(*servers)
	all.mu.Lock()
	defer all.mu.Unlock()
	s := all.all[name]
	if s == nil {
		ts.Fatalf("nothing was started as %s", name)
	}
	return s
}

func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: interrupt NAME [CODE]")
	}
	ts.Check(named(ts, args[0]).cmd.Process.Signal(syscall.SIGINT))
	ended(ts, neg, args)
}

func ended(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: ended NAME [CODE]")
	}
	s, want := named(ts, args[0]), "0"
	if len(args) > 1 {
		want = args[1]
	}
	select {
	case <-s.done:
	case <-time.After(40 * time.Second):
		ts.Fatalf("%s has not ended within 40 s", args[0])
	}
	text, _ := s.seen()
	if got := fmt.Sprint(s.cmd.ProcessState.ExitCode()); got != want {
		ts.Fatalf("%s ended with exit code %s, want %s\n%s", args[0], got, want, text)
	}
}

func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await NAME REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	if err := named(ts, args[0]).until(re); err != nil {
		ts.Fatalf("await %s: %v", args[0], err)
	}
}

func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: get STATUS URL [HOST]")
	}
	req, err := http.NewRequest("GET", args[1], nil)
	ts.Check(err)
	if len(args) > 2 {
		req.Host = args[2]
	}
	client := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	ts.Check(err)
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if fmt.Sprint(resp.StatusCode) != args[0] {
		ts.Fatalf("GET %s: %s, want %s", args[1], resp.Status, args[0])
	}
}

// id keeps what a command prints in a variable.
func id(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: id NAME ARGS…")
	}
	ts.Check(ts.Exec("ebb", args[1:]...))
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND ARGS…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := err.(*exec.ExitError); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s: exit code %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// Package harness runs the real ebb binary for tests: it builds it once, starts it on free ports, and stops or kills it.
//
// Main types: [Binary] and [Server].
//
// It asserts nothing about answers; tests do.
package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Binary is a built ebb.
type Binary struct{ Path string }

// Build builds ebb as it ships (without cgo) into a folder that the caller removes.
func Build(dir string) (*Binary, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return nil, fmt.Errorf("locate the module")
	}
	root := filepath.Join(filepath.Dir(file), "..", "..", "..")
	path := filepath.Join(dir, "ebb")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/ebb")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build ebb: %w\n%s", err, out)
	}
	return &Binary{Path: path}, nil
}

// Ready is the event that `ebb up --json` and `ebb serve --json` print.
type Ready struct {
	Gateway, API, AWS, App, Stage string
	Local                         string // the control API for this machine, where API is the one for keys
	Functions                     []struct{ Name, Key, Handler, Runtime string }
	Routes                        []struct{ Method, Path, Function string }
}

// Server is a running ebb.
type Server struct {
	Ready  Ready
	Dir    string // working directory
	Data   string
	cmd    *exec.Cmd
	done   chan struct{}
	err    error
	stderr *lockedBuffer
	mu     sync.Mutex
	events []string // lines of standard output
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Env is the environment for ebb in tests: this process's, with a home of its own.
func Env(home string, more ...string) []string {
	return append(append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(home, "data"), "NO_COLOR=1"), more...)
}

// Start runs `ebb ARGS… --json` in dir and waits for its ready event. The Server is stopped when the test ends.
func (b *Binary) Start(t testing.TB, dir, data string, args ...string) *Server {
	t.Helper()
	s := &Server{Dir: dir, Data: data, done: make(chan struct{}), stderr: &lockedBuffer{}}
	args = append(args, "--json", "--data", data)
	s.cmd = exec.Command(b.Path, args...)
	s.cmd.Dir, s.cmd.Stderr, s.cmd.Env = dir, s.stderr, Env(data)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan Ready, 1)
	go func() {
		s.read(out, ready)
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.Kill()
		removeCgroups(data)
	})
	select {
	case s.Ready = <-ready:
	case <-s.done:
		t.Fatalf("ebb %v ended before it was ready: %v\n%s%s", args, s.err, s.Events(), s.Stderr())
	case <-time.After(120 * time.Second):
		t.Fatalf("ebb %v is not ready after 120 s\n%s%s", args, s.Events(), s.Stderr())
	}
	return s
}

func (s *Server) read(out io.Reader, ready chan<- Ready) {
	scan := bufio.NewScanner(out)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		line := scan.Text()
		s.mu.Lock()
		s.events = append(s.events, line)
		s.mu.Unlock()
		var e struct {
			Event string
			Ready
		}
		if json.Unmarshal(scan.Bytes(), &e) == nil && e.Event == "ready" {
			ready <- e.Ready
		}
	}
}

// PID is the process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stderr is what it has printed on standard error.
func (s *Server) Stderr() string { return s.stderr.String() }

// Events is what it has printed on standard output.
func (s *Server) Events() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.events...)
}

// Interrupt asks it to stop and returns its exit code.
func (s *Server) Interrupt(t testing.TB) int {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-s.done:
	case <-time.After(40 * time.Second):
		t.Fatalf("ebb did not stop within 40 s of SIGINT\n%s", s.Stderr())
	}
	return s.cmd.ProcessState.ExitCode()
}

// Kill ends it with SIGKILL and waits for its end.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Result is what a command gave.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs `ebb ARGS…` in dir to its end.
func (b *Binary) Run(t testing.TB, dir string, args ...string) Result {
	t.Helper()
	return b.RunEnv(t, dir, nil, args...)
}

// RunEnv is Run with further environment variables, "NAME=value".
func (b *Binary) RunEnv(t testing.TB, dir string, env []string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.Path, args...)
	var out, errOut bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, &out, &errOut, Env(t.TempDir(), env...)
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("ebb %v did not end within 120 s", args)
	}
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return Result{Stdout: out.String(), Stderr: errOut.String(), Code: cmd.ProcessState.ExitCode()}
}

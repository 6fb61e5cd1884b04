// Package faults ends whole servers at named points, fills their disks and takes their stores away, and counts what was acknowledged.
//
// It proves "never lost" with real functions: each numbered event that was acknowledged ends as a success or as a dead letter. The test binary starts
// itself again as the server that dies; what functions do is told to a sink outside of it.
package faults

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/identity"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/testkit/fault"
)

// In the environment of the test binary these make it the server: its settings, one a line, and where it dies.
const (
	childFlags = "EBB_FAULTS_FLAGS"
	childPlan  = "EBB_FAULTS_PLAN"
)

// page is rewritten with what was measured.
var page = flag.String("faults.page", "", "write the tables of this run into the page")

// patience bounds waits; it is reached only when something is wrong.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	if text := os.Getenv(childNATS); text != "" {
		fmt.Println("error", serveNATS(text))
		os.Exit(1)
	}
	if flags := os.Getenv(childFlags); flags != "" {
		if err := serve(flags, os.Getenv(childPlan)); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve is the child: a server that dies where it is planned to, and with its parent.
func serve(flags, plan string) error {
	endWithParent()
	p, err := fault.Parse(plan)
	if err != nil {
		return err
	}
	set := map[string]string{"listen": "127.0.0.1:0"}
	for line := range strings.Lines(flags) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		set[k] = v
	}
	cfg, err := config.Load(config.Sources{Flags: set})
	if err != nil {
		return err
	}
	s, err := server.Open(context.Background(), server.Options{
		Config: cfg, Version: "test", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Env: os.LookupEnv,
		Passing: func(at bus.Point) { p.Pass(string(at)) },
	})
	if err != nil {
		return err
	}
	fmt.Println("ready", s.APIURL(), s.Token(), s.GatewayURL())
	return errors.Join(s.Run(context.Background()), s.Close())
}

// endWithParent ends the process when the one that started it is gone.
func endWithParent() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
}

// node is a server in a process of its own.
type node struct {
	*api.Client
	gateway string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process has ended
	said    *said
}

// said keeps the end of what a process printed.
type said struct {
	mu sync.Mutex
	b  []byte
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b = append(s.b, p...)
	s.b = s.b[max(0, len(s.b)-64<<10):]
	return len(p), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.b)
}

// start starts a server and waits until its API listens.
func start(t *testing.T, flags map[string]string, plan *fault.Plan) *node {
	t.Helper()
	n, err := tryStart(t, flags, plan)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func tryStart(t *testing.T, flags map[string]string, plan *fault.Plan) (*node, error) {
	t.Helper()
	var lines []string
	for k, v := range flags {
		lines = append(lines, k+"="+v)
	}
	n := &node{cmd: exec.Command(os.Args[0]), done: make(chan struct{}), said: &said{}}
	n.cmd.Env = append(os.Environ(), childFlags+"="+strings.Join(lines, "\n"), childPlan+"="+plan.String())
	n.cmd.Stderr = n.said
	if _, err := n.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan []string, 1)
	go func() {
		defer close(n.done)
		for in := bufio.NewScanner(out); in.Scan(); {
			if f := strings.Fields(in.Text()); len(f) == 4 && f[0] == "ready" {
				ready <- f
			} else {
				fmt.Fprintln(n.said, in.Text())
			}
		}
		_ = n.cmd.Wait()
	}()
	t.Cleanup(n.kill)
	select {
	case f := <-ready:
		n.Client, n.gateway = api.NewClient(f[1], identity.Token(f[2])), f[3]
		return n, nil
	case <-n.done:
		return nil, fmt.Errorf("the server ended before it was ready: %v\n%s", n.cmd.ProcessState, n.said)
	case <-time.After(patience):
		n.kill()
		return nil, fmt.Errorf("the server is not ready\n%s", n.said)
	}
}

// kill ends the process with SIGKILL, and waits for its end.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	<-n.done
}

// until asks until the answer is yes.
func until(t *testing.T, what string, f func() (bool, error)) {
	t.Helper()
	limit := time.Now().Add(patience)
	for {
		ok, err := f()
		if ok && err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s: %v, %v", what, ok, err)
		}
		time.Sleep(20 * time.Millisecond) // there is nothing to wait on but the answer
	}
}

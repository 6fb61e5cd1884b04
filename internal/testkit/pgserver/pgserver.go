// Package pgserver runs real PostgreSQL servers for tests: their own data, their own user, reached by a Unix socket.
//
// Main types: [Server], one that runs; [Shared], one for all tests of a package, each with a database of its own.
//
// A machine without PostgreSQL skips the test and says why; `scripts/test-deps` installs it.
package pgserver

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds how long a server may take to come up.
const patience = time.Minute

// Server is one PostgreSQL server.
type Server struct {
	bin    string // folder of its programs
	dir    string // data, socket and log
	cmd    *exec.Cmd
	exited chan struct{}
	names  atomic.Int64
}

var errMissing = errors.New("no initdb in PATH or /usr/lib/postgresql; scripts/test-deps installs PostgreSQL")

// there skips a test where there is no PostgreSQL, and fails it where that does not start.
func there(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, errMissing):
		t.Skipf("no PostgreSQL to test with: %v", err)
	case err != nil:
		t.Fatal(err)
	}
}

// programs finds the folder with initdb and postgres.
func programs() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian keeps them out of PATH
	if len(found) == 0 {
		return "", errMissing
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := start()
	there(t, err)
	t.Cleanup(s.remove)
	return s
}

func start() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pg") // short: it holds a socket, whose path is bounded
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, err
		}
	}
	if out, err := s.command("initdb", "-D", s.data(), "-U", "ebb", "-A", "trust", "-E", "UTF8", "--no-sync").CombinedOutput(); err != nil {
		s.remove()
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := s.Start(); err != nil {
		s.remove()
		return nil, err
	}
	return s, nil
}

// nobody is the user that servers run as where the tests are root, whom PostgreSQL refuses.
const nobody = 65534

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "HOME=" + s.dir, "PGHOST=" + s.dir, "PGUSER=ebb"}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

// Start starts the server again after a Stop or Kill, and waits until it answers.
func (s *Server) Start() error {
	deadline := time.Now().Add(patience)
	for {
		err := s.run(deadline)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond) // what is left of a killed one still holds the data
	}
}

func (s *Server) run(deadline time.Time) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=")
	cmd.Stdout, cmd.Stderr = log, log
	if err := startTied(cmd); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	s.cmd, s.exited = cmd, exited
	for time.Now().Before(deadline) {
		if out, err := s.command("psql", "-d", "postgres", "-Atc", "SELECT 1").CombinedOutput(); err == nil && strings.TrimSpace(string(out)) == "1" {
			return nil
		}
		select {
		case <-exited:
			said, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("postgres ended at once:\n%s", said)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return errors.New("postgres does not answer")
}

// Kill ends the server's main process with SIGKILL. What it started ends by itself.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Crash ends the server as `pg_ctl stop -m immediate` does: without writing anything more.
func (s *Server) Crash() {
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	<-s.exited
}

// remove ends the server and removes its files.
func (s *Server) remove() {
	if s.cmd != nil {
		s.Crash()
	}
	for range 50 { // its last processes may be writing still
		if os.RemoveAll(s.dir) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// SQL runs a statement in a database and returns what it prints.
func (s *Server) SQL(t testing.TB, database, text string) string {
	t.Helper()
	out, err := s.command("psql", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc", text).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", text, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Database makes an empty database and returns its name.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("d%d", s.names.Add(1))
	s.SQL(t, "postgres", "CREATE DATABASE "+name)
	return name
}

// URL is where a database is reached.
func (s *Server) URL(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {s.dir}, "user": {"ebb"}}.Encode()
}

// Shared is one server for all tests of a package. TestMain calls Stop.
type Shared struct {
	once sync.Once
	s    *Server
	err  error
}

// Get returns the server, which the first call starts.
func (sh *Shared) Get(t testing.TB) *Server {
	t.Helper()
	sh.once.Do(func() { sh.s, sh.err = start() })
	there(t, sh.err)
	return sh.s
}

// Stop ends the server if a test asked for it.
func (sh *Shared) Stop() {
	if sh.s != nil {
		sh.s.remove()
	}
}

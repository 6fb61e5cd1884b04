package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/bench/load"
)

// wantBody is what every contender answers.
const wantBody = `{"message":"Hello, world!"}`

// server is a contender that runs.
type server struct {
	cmd    *exec.Cmd
	begun  time.Time
	out    string // file with its standard output
	errOut string // file with its standard error
	ended  chan struct{}
	addr   string // host:port
	path   string
	gentle bool // stops on SIGINT

	ready time.Duration // from the start of the process until it says so, where it does
	first time.Duration // from the start of the process to the first right answer
	cold  time.Duration // from the first request to its answer, where the server was ready before
}

// launch starts a program with its output in files, so that reading it costs this process nothing.
func (b *bench) launch(dir string, env []string, gentle bool, command ...string) (*server, error) {
	s := &server{ended: make(chan struct{}), path: "/", gentle: gentle}
	out, err := os.CreateTemp(b.work, "out-*")
	if err != nil {
		return nil, err
	}
	defer out.Close()
	errOut, err := os.CreateTemp(b.work, "err-*")
	if err != nil {
		return nil, err
	}
	defer errOut.Close()
	s.out, s.errOut = out.Name(), errOut.Name()
	s.cmd = exec.Command(command[0], command[1:]...)
	s.cmd.Dir, s.cmd.Env = dir, append(os.Environ(), env...)
	s.cmd.Stdout, s.cmd.Stderr = out, errOut
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.begun = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.ended)
	}()
	return s, nil
}

// line waits for a line of standard output that has the mark.
func (s *server) line(ctx context.Context, mark string, within time.Duration) (string, error) {
	deadline := time.Now().Add(within)
	for {
		text, err := os.ReadFile(s.out)
		if err != nil {
			return "", err
		}
		for l := range bytes.Lines(text) {
			if bytes.Contains(l, []byte(mark)) && bytes.HasSuffix(l, []byte("\n")) {
				s.ready = time.Since(s.begun)
				return strings.TrimSpace(string(l)), nil
			}
		}
		if err := s.pause(ctx, deadline, time.Millisecond); err != nil {
			return "", err
		}
	}
}

// pause waits a little, or says why there is nothing to wait for any more.
func (s *server) pause(ctx context.Context, deadline time.Time, d time.Duration) error {
	select {
	case <-s.ended:
		return fmt.Errorf("%s ended: %s", filepath.Base(s.cmd.Path), s.complaint())
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
	}
	if time.Now().After(deadline) {
		return fmt.Errorf("%s does not answer: %s", filepath.Base(s.cmd.Path), s.complaint())
	}
	return nil
}

// complaint is the end of what it wrote.
func (s *server) complaint() string {
	var all []byte
	for _, f := range []string{s.out, s.errOut} {
		b, _ := os.ReadFile(f) // a complaint without words
		all = append(all, b[max(0, len(b)-600):]...)
	}
	return strings.TrimSpace(string(all))
}

var errNotYet = errors.New("no answer yet")

// get asks once, over a new connection.
func get(addr, path string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotYet, err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+addr+"\r\nUser-Agent: ebb-bench\r\nAccept: application/json\r\nConnection: close\r\n\r\n"); err != nil {
		return fmt.Errorf("%w: %w", errNotYet, err)
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotYet, err)
	}
	if !bytes.HasPrefix(text, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("%w: %.200q", errNotYet, text)
	}
	if !bytes.Contains(text, []byte(wantBody)) {
		return fmt.Errorf("a wrong answer: %.400q", text)
	}
	return nil
}

// answers waits for the first right answer.
func (s *server) answers(ctx context.Context, within time.Duration) error {
	deadline := time.Now().Add(within)
	for {
		asked := time.Now()
		err := get(s.addr, s.path)
		if err == nil {
			s.first = time.Since(s.begun)
			if s.ready > 0 {
				s.cold = time.Since(asked)
			}
			return nil
		}
		if !errors.Is(err, errNotYet) {
			return err
		}
		if pauseErr := s.pause(ctx, deadline, time.Millisecond); pauseErr != nil {
			return fmt.Errorf("%w (%w)", pauseErr, err)
		}
	}
}

// stop ends the server and everything it started in its group.
func (s *server) stop() {
	if s.gentle {
		_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended
		select {
		case <-s.ended:
		case <-time.After(15 * time.Second):
		}
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	<-s.ended
	_ = os.Remove(s.out)
	_ = os.Remove(s.errOut)
}

func (s *server) target() load.Target {
	return load.Target{Addr: s.addr, Path: s.path, Body: len(wantBody)}
}

// freePort gives a port that was free a moment ago, for servers that cannot say which one they got.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// descendants lists the processes below pid.
func descendants(pid int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		rest := string(stat[bytes.LastIndexByte(stat, ')')+1:])
		if f := strings.Fields(rest); len(f) > 1 {
			if parent, err := strconv.Atoi(f[1]); err == nil {
				children[parent] = append(children[parent], id)
			}
		}
	}
	var all []int
	for next := children[pid]; len(next) > 0; {
		id := next[0]
		next = append(next[1:], children[id]...)
		all = append(all, id)
	}
	return all
}

// tick is the unit of processor time in /proc, in seconds: USER_HZ, which Linux keeps at 100 for programs.
const tick = 0.01

// processors is the processor time that the server's process, and those below it, have taken so far, in seconds.
func (s *server) processors() (host, guests float64) {
	for _, pid := range descendants(s.cmd.Process.Pid) {
		guests += taken(pid)
	}
	return taken(s.cmd.Process.Pid), guests
}

// taken is the processor time of one process; 0 where it has ended.
func taken(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64) // the system writes digits
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) * tick
}

// busyTime is the processor time that all programs of the machine have taken so far, in seconds.
func busyTime() float64 {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	sum := 0.0
	for i, f := range strings.Fields(line) {
		if n, err := strconv.ParseFloat(f, 64); err == nil && i <= 8 && i != 4 && i != 5 { // idle and waiting for a disk
			sum += n
		}
	}
	return sum * tick
}

// ownTime is the processor time of this process and of those below it that have ended, in seconds.
func ownTime() float64 {
	sum := 0.0
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
		}
	}
	return sum
}

// memory reads proportional and resident set size in MiB.
func memory(pid int) (pss, rss float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Pss:":
			pss = n / 1024
		case "Rss:":
			rss = n / 1024
		}
	}
	return pss, rss, nil
}

// metric adds up the series of a metric on the control API's page.
func metric(api, token, name string) (float64, error) {
	req, err := http.NewRequest(http.MethodGet, api+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if at := strings.LastIndexByte(rest, ' '); ok && at >= 0 && (rest[0] == ' ' || rest[0] == '{') {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest[at:]), 64)
			if err != nil {
				return 0, fmt.Errorf("read metric %s: %w", name, err)
			}
			sum += v
		}
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("metrics answered %s", resp.Status)
	}
	return sum, nil
}

func cpus() int { return runtime.NumCPU() }

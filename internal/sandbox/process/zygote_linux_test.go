package process_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

// mother is a Driver that has a zygote, and its Template.
func mother(t *testing.T) (*process.Driver, *sandbox.Template) {
	t.Helper()
	d, err := openCopies(t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	c, is := d.(copying)
	if !is {
		t.Skip("this machine isolates no guests, so none is a copy")
	}
	if err := process.AwaitZygote(c.Driver, *c.template); err != nil {
		t.Skipf("no zygote can be had here: %v", err)
	}
	return c.Driver, c.template
}

// echo is a guest that sends back what it gets on its line.
func echo(t *testing.T, d *process.Driver, from *sandbox.Template) (sandbox.Sandbox, sandbox.Conn) {
	t.Helper()
	b, err := d.Prepare(t.Context(), sandbox.Spec{ID: "echo", Transport: sandbox.Stream, Output: io.Discard, Limits: sandbox.Limits{MemoryBytes: 64 << 20, Processes: 50}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Stop(0) })
	c, err := b.Start(t.Context(), sandbox.Code{Command: []string{"/bin/sh", "-c", "cat <&3 >&3"}, Env: []string{"PATH=/usr/bin:/bin"}, Template: from})
	if err != nil {
		t.Fatal(err)
	}
	return b, c
}

func answers(t *testing.T, c sandbox.Conn) {
	t.Helper()
	s := c.Stream()
	_ = s.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := s.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestZygote_IsWaitedForByThePatient(t *testing.T) {
	t.Parallel()
	mother(t) // skips
	d, err := openCopies(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	c := d.(copying)
	b, err := c.Driver.Prepare(t.Context(), sandbox.Spec{ID: "patient", Transport: sandbox.Stream, Output: io.Discard, Limits: sandbox.Limits{Processes: 50}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Stop(0)
	if _, err := b.Start(t.Context(), sandbox.Code{Command: []string{"/bin/true"}, Template: c.template, Patient: true}); err != nil {
		t.Fatal(err)
	}
	if n := process.Copies(c.Driver); n != 1 {
		t.Errorf("%d copies, want 1", n)
	}
	bad := *c.template
	bad.Command = []string{bad.Command[0], "-c", "import socket; socket.socket(fileno=4).send(b'unfit here')"}
	last, err := c.Driver.Prepare(t.Context(), sandbox.Spec{ID: "executed", Transport: sandbox.Stream, Output: io.Discard, Limits: sandbox.Limits{Processes: 50}})
	if err != nil {
		t.Fatal(err)
	}
	defer last.Stop(0)
	if _, err := last.Start(t.Context(), sandbox.Code{Command: []string{"/bin/true"}, Template: &bad, Patient: true}); err != nil {
		t.Errorf("where there is no zygote: %v", err)
	}
}

func TestZygote_KilledLeavesItsCopies(t *testing.T) {
	t.Parallel()
	d, from := mother(t)
	_, first := echo(t, d, from)
	answers(t, first)
	if n := process.Copies(d); n != 1 {
		t.Fatalf("%d copies, want 1", n)
	}
	if err := syscall.Kill(process.Zygotes(d)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	process.AwaitNoZygote(d)
	answers(t, first)
	_, second := echo(t, d, from) // executed, while the next zygote boots
	answers(t, second)
	if n := process.Copies(d); n != 1 {
		t.Errorf("%d copies without a zygote, want 1", n)
	}
	if err := process.AwaitZygote(d, *from); err != nil {
		t.Fatal(err)
	}
	_, third := echo(t, d, from)
	answers(t, third)
	if n := process.Copies(d); n != 2 {
		t.Errorf("%d copies with a new zygote, want 2", n)
	}
}

func TestZygote_ThatIsStuckIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	d, from := mother(t)
	if err := syscall.Kill(process.Zygotes(d)[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, c := echo(t, d, from)
	answers(t, c)
	if n := process.Copies(d); n != 0 {
		t.Errorf("%d copies of a process that stands still", n)
	}
	process.AwaitNoZygote(d)
}

func TestZygote_ServesManyAtOnce(t *testing.T) {
	t.Parallel()
	d, from := mother(t)
	most := 200
	if testing.Short() {
		most = 40
	}
	var all sync.WaitGroup
	for range most {
		all.Go(func() {
			_, c := echo(t, d, from)
			answers(t, c)
		})
	}
	all.Wait()
	if n := process.Copies(d); n < most/10 {
		t.Errorf("of %d guests %d were copies", most, n)
	}
}

// surroundings counts what a zygote and its copies could leave: descriptors, mounts, children, cgroups.
func surroundings(t *testing.T, d *process.Driver) string {
	t.Helper()
	count := func(pid int) string {
		fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		mounts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		return fmt.Sprintf("%d descriptors, %d mounts, %d mappings", len(fds), strings.Count(string(mounts), "\n"), strings.Count(string(maps), "\n"))
	}
	children := 0
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, f := range tasks {
		text, _ := os.ReadFile(f)
		children += len(strings.Fields(string(text)))
	}
	own, _ := os.ReadDir("/proc/self/fd")
	return fmt.Sprintf("zygote %s; own %d descriptors, %d children, %d cgroups", count(process.Zygotes(d)[0]), len(own), children, len(process.CgroupsOf(d)))
}

// It does not run beside others, since it counts what the whole test process has.
func TestZygote_LeavesNothing(t *testing.T) {
	d, from := mother(t)
	rounds := 240 // of one zygote
	if testing.Short() {
		rounds = 40
	}
	cycle := func(i int) {
		b, c := echo(t, d, from)
		if i%4 > 0 {
			answers(t, c)
		}
		b.Stop(0)
		_ = c.Close()
	}
	for i := range 8 {
		cycle(i)
	}
	before := surroundings(t, d)
	for i := range rounds {
		cycle(i)
	}
	after := ""
	for end := time.Now().Add(30 * time.Second); after != before && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		after = surroundings(t, d)
	}
	if after != before {
		t.Errorf("before: %s\nafter:  %s", before, after)
	}
	if n := process.Copies(d); n < rounds*9/10 {
		t.Errorf("of %d guests %d were copies", rounds, n)
	}
	if testing.Short() {
		return
	}
	first := process.Zygotes(d)[0]
	for i := 0; process.Zygotes(d)[0] == first; i++ {
		if i > 1000 {
			t.Fatal("a zygote makes copies without end")
		}
		cycle(i)
		if err := process.AwaitZygote(d, *from); err != nil {
			t.Fatal(err)
		}
	}
}

func TestZygote_UnfitIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	d, from := mother(t)
	for name, code := range map[string]string{
		"says so": "import socket; socket.socket(fileno=4).send(b'unfit here')", "ends": "pass", "nonsense": "import socket; socket.socket(fileno=4).send(b'ready 7')",
	} {
		bad := *from
		bad.Command = []string{from.Command[0], "-c", code}
		if err := process.AwaitZygote(d, bad); err == nil {
			t.Errorf("%s: it is ready", name)
		}
		_, c := echo(t, d, &bad)
		answers(t, c)
	}
	if n := process.Copies(d); n != 0 {
		t.Errorf("%d copies", n)
	}
}

func TestZygote_IsOfRootsOwnFiles(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("without rights a zygote has none either")
	}
	d, from := mother(t)
	for name, spoil := range map[string]func(file string) error{
		"somebody else's": func(f string) error { return os.Chown(f, 1000, -1) },
		"open to all":     func(f string) error { return os.Chmod(f, 0o777) },
		"in such a folder": func(f string) error {
			return os.Chown(filepath.Dir(f), 1000, -1)
		},
	} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		of := *from
		of.Mounts = append([]sandbox.Mount{{Source: file, Target: "/t/file"}}, from.Mounts...)
		if err := process.AwaitZygote(d, of); err != nil {
			t.Fatalf("%s, before: %v", name, err)
		}
		if err := spoil(file); err != nil {
			t.Fatal(err)
		}
		of.Name, of.Mounts[0].Target = name, "/t/another"
		if err := process.AwaitZygote(d, of); err == nil || !strings.Contains(err.Error(), "others than root can change") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

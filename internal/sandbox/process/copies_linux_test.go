package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
)

// copying is a Driver whose guests, as far as they are this test's program, are copies of a Python that then executes them: so they are where
// copies are, and must find there what an executed guest finds.
type copying struct {
	*process.Driver
	template *sandbox.Template
	ahead    bool // each is made before it is needed
}

type copyingSandbox struct {
	sandbox.Sandbox
	from copying
}

var (
	wanted, made atomic.Int64 // guests that should be copies, and are, in this process
	ownProgram   = func() string { p, _ := os.Executable(); return p }()
)

// Under is the driver that is tested.
func (c copying) Under() sandbox.Driver { return c.Driver }

func (c copying) Prepare(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	b, err := c.Driver.Prepare(ctx, s)
	if err != nil || s.Transport != sandbox.Stream || s.Beside > 0 {
		return b, err
	}
	return copyingSandbox{b, c}, nil
}

func (b copyingSandbox) Start(ctx context.Context, c sandbox.Code) (sandbox.Conn, error) {
	if len(c.Command) > 0 && c.Command[0] == ownProgram {
		c.Template = b.from.template
		if err := process.AwaitZygote(b.from.Driver, *c.Template); err != nil {
			return nil, err
		}
	}
	waits := false
	if c.Template != nil && b.from.ahead {
		var err error
		if waits, err = process.ReadyStem(b.Sandbox, c); err != nil {
			return nil, fmt.Errorf("have a copy wait: %w", err)
		}
	}
	conn, err := b.Sandbox.Start(ctx, c)
	if err == nil && c.Template != nil {
		wanted.Add(1)
	}
	if err == nil && waits && !process.FromTemplate(b.Sandbox) {
		b.Stop(time.Second)
		return nil, errors.New("it was not the copy that waited")
	}
	return conn, err
}

func (c copying) Close() error {
	made.Add(int64(process.Copies(c.Driver)))
	return c.Driver.Close()
}

// python gives an interpreter that zygotes can be made of, or why there is none.
func python() (string, error) {
	for _, name := range []string{"/usr/bin/python3", "python3"} {
		out, err := exec.Command(name, "-c", "import sys, ctypes; print(getattr(sys, '_base_executable', sys.executable))").Output()
		if err != nil {
			continue
		}
		real, err := filepath.EvalSymlinks(strings.TrimSpace(string(out)))
		if err == nil {
			return real, nil
		}
	}
	return "", errors.New("there is no Python 3 with ctypes")
}

// The scripts of a zygote, from this package's folder or, in processes that run elsewhere, from the one that the variable names.
const (
	scriptsVar    = "EBB_TEST_SCRIPTS"
	executeScript = "testdata/execute.py"
	zygoteScript  = "../../guest/lambda/bootstrap/python-zygote.py"
)

// copyScripts makes a folder below dir as scriptsVar has it.
func copyScripts(t *testing.T, dir string) string {
	t.Helper()
	base := filepath.Join(dir, "a", "b", "c")
	for _, name := range []string{executeScript, zygoteScript} {
		text, err := os.ReadFile(name)
		to := filepath.Join(base, name)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	return base
}

// executing is the Template of a Python whose copies execute their Command.
func executing() (*sandbox.Template, error) {
	program, err := python()
	if err != nil {
		return nil, err
	}
	dir := os.Getenv(scriptsVar)
	if dir == "" {
		dir = "."
	}
	script, err := filepath.Abs(filepath.Join(dir, executeScript))
	if err != nil {
		return nil, err
	}
	zygote, err := filepath.Abs(filepath.Join(dir, zygoteScript))
	if err != nil {
		return nil, err
	}
	up := filepath.Dir(filepath.Dir(program))
	return &sandbox.Template{Name: "execute", Kind: sandbox.Copied, Command: []string{program, "-I", "/t/execute.py", "/t/zygote.py"}, Mounts: []sandbox.Mount{
		{Source: up, Target: up}, {Source: script, Target: "/t/execute.py"}, {Source: zygote, Target: "/t/zygote.py"},
	}}, nil
}

func openCopies(dir string) (sandbox.Driver, error) { return openCopiesTo(dir, nil, false) }
func openAhead(dir string) (sandbox.Driver, error)  { return openCopiesTo(dir, nil, true) }

func openCopiesTo(dir string, e sandbox.Egress, ahead bool) (sandbox.Driver, error) {
	t, err := executing()
	if err != nil {
		return nil, err
	}
	d, err := process.Open(process.Options{Dir: dir, Egress: e})
	if err != nil {
		return nil, err
	}
	if is, _ := d.Isolated(); is {
		if ahead {
			t.Ahead = &sandbox.Ahead{}
		}
		return copying{d, t, ahead}, nil
	}
	return d, nil
}

// canCopy skips the test where there are no copies.
func canCopy(t *testing.T) {
	t.Helper()
	d, err := openCopies(t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	c, is := d.(copying)
	if !is {
		_ = d.Close()
		t.Skip("this machine isolates no guests, so none is a copy")
	}
	err = process.AwaitZygote(c.Driver, *c.template)
	_ = d.Close()
	if err != nil {
		t.Skipf("no zygote can be had here: %v", err)
	}
}

// TestDriver_ConformsWithCopiesAhead runs it with copies that waited.
func TestDriver_ConformsWithCopiesAhead(t *testing.T) {
	canCopy(t)
	m := mechanisms(t)
	o := walled(t, "", openAhead, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX"}, Memory: true, Processes: m["process limit"].Strong, Processors: m["cpu limit"].Strong,
		Concealed: m["tree kill"].Strong, Dependent: true, Descriptors: true, Cycles: 200,
	})
	o.Book = nil
	o.Connected = func(dir string, e sandbox.Egress) (sandbox.Driver, error) { return openCopiesTo(dir, e, true) }
	sandboxtest.Run(t, "ahead", openAhead, o)
}

// TestDriver_ConformsWithCopies runs the suite, the catalogue included, with guests that are copies of a zygote.
func TestDriver_ConformsWithCopies(t *testing.T) {
	canCopy(t)
	m := mechanisms(t)
	mode := "copies"
	if os.Geteuid() != 0 {
		mode = "copies, rootless"
	}
	o := walled(t, mode, openCopies, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX"}, Memory: true, Processes: m["process limit"].Strong, Processors: m["cpu limit"].Strong,
		Concealed: m["tree kill"].Strong, Dependent: true, Descriptors: runtime.GOOS == "linux", Cycles: 300,
	})
	o.Connected = func(dir string, e sandbox.Egress) (sandbox.Driver, error) { return openCopiesTo(dir, e, false) }
	sandboxtest.Run(t, "copies", openCopies, o)
	if w, m := wanted.Load(), made.Load(); w < 50 || m < w*9/10 { // on a machine that has much to do some are not waited for
		t.Errorf("of %d guests %d were copies", w, m)
	}
}

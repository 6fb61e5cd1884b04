// Package oci runs guests on a kernel of their own: that of runsc (gVisor), which an operator has installed.
//
// Main type: [Driver], a sandbox.Driver around another one, whose Sandboxes hold the runtime instead of the guest.
//
// Guarantees, beside those of package sandbox:
//
//  1. A guest's system calls are answered by the runtime, a program without rights outside of its Sandbox, and not by the host's kernel.
//  2. What the outer Sandbox holds is held still: files, limits, network, and the end of everything. A guest that breaks out of the runtime is
//     where a guest of the outer driver begins, but for the rights of that Sandbox's own namespaces.
//  3. Inside it looks as in the outer driver: the same root, user, /tmp, addresses and descriptors.
//  4. Nothing of a guest is written to the host's disk: its bundle is made inside.
//  5. Without a runtime, or with one that does not work here, Prepare refuses and says what to install.
//
// What it does not do: programs beside the main one, and templates. The environment also has HOME, which the runtime adds. An exit status
// from 129 on is taken for a signal, as shells do, because the runtime tells no more.
package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Options are what a Driver needs from outside.
type Options struct {
	// Open opens the driver of the outer Sandboxes, in which programs keep the rights of their namespaces. It is the Driver's own and closed
	// with it.
	Open func() (sandbox.Driver, error)
	// Used reports whether an earlier process may have left anything for that driver to sweep; nil means yes.
	Used func() bool
	// Runtime is the path of runsc, or its name to look for in Path.
	Runtime string
	// Trust says that the runtime was seen to work, and need not be tried.
	Trust bool
	// Path is where programs are looked for, as in the variable PATH.
	Path string
}

// DefaultRuntime is looked for where none is named.
const DefaultRuntime = "runsc"

// Driver creates Sandboxes with an OCI runtime inside. Its methods may be called concurrently.
type Driver struct {
	o Options

	mu struct {
		sync.Mutex
		host    sandbox.Driver // nil until it is needed
		closed  bool
		tried   bool
		runtime string // absolute, without symbolic links
		err     error
	}
}

var _ sandbox.Driver = (*Driver)(nil)

// New makes a Driver. The runtime is looked for when it is first needed.
func New(o Options) *Driver {
	if o.Runtime == "" {
		o.Runtime = DefaultRuntime
	}
	return &Driver{o: o}
}

// Name is "oci".
func (d *Driver) Name() string { return "oci" }

// Traits say that Sandboxes have files of their own. They cannot be frozen: the runtime's own processes do not bear to be interrupted
// where they wait, which ends the guest.
func (d *Driver) Traits() sandbox.Traits {
	return sandbox.Traits{Mounts: true, Alone: true, OwnBytes: ownMemory}
}

// Sweep ends what earlier processes left.
func (d *Driver) Sweep(ctx context.Context) (int, error) {
	if d.o.Used != nil && !d.o.Used() {
		return 0, nil
	}
	host, err := d.host()
	if err != nil {
		return 0, err
	}
	return host.Sweep(ctx)
}

// host is the driver of the outer Sandboxes.
func (d *Driver) host() (sandbox.Driver, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		return nil, errs.New(errs.Unavailable, "the oci driver is closed")
	}
	if d.mu.host == nil {
		host, err := d.o.Open()
		if err != nil {
			return nil, err
		}
		d.mu.host = host
	}
	return d.mu.host, nil
}

// Close closes the outer driver. Further calls do nothing.
func (d *Driver) Close() error {
	d.mu.Lock()
	host := d.mu.host
	d.mu.host, d.mu.closed = nil, true
	d.mu.Unlock()
	if host == nil {
		return nil
	}
	return host.Close()
}

// Check reports why guests cannot run here; nil when they can. It tries the runtime the first time, which takes half a second. What failed is
// tried again by the next call, since operators mend it.
func (d *Driver) Check(ctx context.Context) error {
	_, err := d.ready(ctx)
	return err
}

// ready gives the runtime's path.
func (d *Driver) ready(ctx context.Context) (string, error) {
	d.mu.Lock()
	tried, path := d.mu.tried, d.mu.runtime
	d.mu.Unlock()
	if tried {
		return path, nil
	}
	path, err := d.find(ctx)
	if err == nil && !d.o.Trust {
		err = d.try(ctx, path)
	}
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.tried, d.mu.runtime = true, path
	return path, nil
}

const install = "Install gVisor's runsc (https://gvisor.dev/docs/user_guide/install/) or name it with --oci-runtime PATH."

// find looks for the runtime and sees to it that it is one of the kind that this package knows.
func (d *Driver) find(ctx context.Context) (string, error) {
	path := d.o.Runtime
	if !strings.Contains(path, "/") {
		path = lookPath(d.o.Path, path)
		if path == "" {
			return "", errs.New(errs.Unavailable, "strong isolation needs the OCI runtime %s, which is not installed", d.o.Runtime).WithHint(install)
		}
	}
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", errs.New(errs.Unavailable, "strong isolation needs the OCI runtime %s: %w", d.o.Runtime, err).WithHint(install)
	}
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = []string{}
	text, err := cmd.Output()
	if err != nil {
		return "", errs.New(errs.Unavailable, "run the OCI runtime %s: %w", path, err).WithHint(install)
	}
	if !strings.HasPrefix(string(text), "runsc version ") {
		first, _, _ := strings.Cut(string(text), "\n")
		return "", errs.New(errs.Unsupported, "the OCI runtime %s is not runsc but says that it is %q", path, first).
			WithHint("Others give a guest the host's kernel, which the default isolation does as well. %s", install)
	}
	return path, nil
}

func lookPath(path, name string) string {
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// trialPatience bounds the wait for a runtime that is tried.
const trialPatience = 20 * time.Second

// try runs a guest that ends at once.
func (d *Driver) try(ctx context.Context, runtime string) error {
	host, err := d.host()
	if err != nil {
		return err
	}
	if !host.Traits().Mounts {
		return errs.New(errs.Unavailable, "strong isolation adds to the default one, which this machine does not give").
			WithHint("ebb doctor says what this machine denies, and what mends it.")
	}
	ctx, cancel := context.WithTimeout(ctx, trialPatience)
	defer cancel()
	out := &tail{}
	spec := sandbox.Spec{ID: "trial", Output: out}
	outer, err := host.Prepare(ctx, outerSpec(spec))
	if err != nil {
		return fmt.Errorf("try the OCI runtime: %w", err)
	}
	defer outer.Stop(0)
	if _, err := outer.Start(ctx, wrap(runtime, spec, sandbox.Code{Command: []string{"/bin/sh", "-c", "exit 42"}})); err != nil {
		return fmt.Errorf("try the OCI runtime: %w", err)
	}
	select {
	case <-outer.Done():
	case <-ctx.Done():
	}
	if exit := outer.Exit(); exit.Code != 42 {
		return errs.New(errs.Unavailable, "the OCI runtime %s does not work here: %s", runtime, out.text()).
			WithHint("A newer runsc may; see %s", "https://gvisor.dev/docs/user_guide/install/")
	}
	return nil
}

// Prepare makes a Sandbox for a guest.
func (d *Driver) Prepare(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	if s.Beside > 0 {
		return nil, errs.New(errs.Unsupported, "programs beside the main one cannot run with strong isolation").
			WithHint("Functions with external extensions need isolation: auto.")
	}
	runtime, err := d.ready(ctx)
	if err != nil {
		return nil, err
	}
	if s.Limits.MemoryBytes > 0 && s.Limits.MemoryBytes < minMemory {
		return nil, errs.New(errs.Invalid, "a memory limit of %d bytes is too small for a process", s.Limits.MemoryBytes).
			WithHint("Give at least %d MiB.", minMemory>>20)
	}
	host, err := d.host()
	if err != nil {
		return nil, err
	}
	outer, err := host.Prepare(ctx, outerSpec(s))
	if err != nil {
		return nil, err
	}
	return &box{Sandbox: outer, spec: s, runtime: runtime}, nil
}

// What the runtime takes for itself. It is given on top of a guest's limits, and what of it the runtime does not use the guest can.
const (
	ownMemory    = 64 << 20
	ownProcesses = 192 // threads of the runtime's kernel, of the one that opens files, and of the one that waits
	perProcess   = 2   // of the host, for one of a guest's: its memory, and a thread that runs there
)

// minMemory is the smallest memory limit, as in the outer driver.
const minMemory = 4 << 20

// outerSpec is that of a Sandbox for the runtime.
func outerSpec(s sandbox.Spec) sandbox.Spec {
	if s.Limits.MemoryBytes > 0 {
		// Guests' files in memory are the runtime's memory.
		s.Limits.MemoryBytes += ownMemory + s.Limits.TmpBytes
	}
	if s.Limits.Processes > 0 {
		s.Limits.Processes = ownProcesses + perProcess*s.Limits.Processes
	}
	s.Limits.TmpBytes = 0
	return s
}

// tail keeps the end of what was written, for messages.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

// Write takes bytes.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - 2000; over > 0 {
		t.kept = t.kept[over:]
	}
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := strings.TrimSpace(string(t.kept)); s != "" {
		return s
	}
	return "it says nothing"
}

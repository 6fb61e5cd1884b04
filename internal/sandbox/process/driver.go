// Package process runs guests as processes of the host: isolated ones where the machine allows it, else plain ones.
//
// Main type: [Driver], a sandbox.Driver. [Open] finds out what this machine can do and [Driver.Protections] says it.
//
// Guarantees, beside those of package sandbox:
//
//  1. An isolated guest (Linux) has its own user, mount, pid, network, ipc and uts namespaces; a read-only root of the system's programs and
//     Code.Mounts, writable where they say so; /tmp of Limits.TmpBytes; one fixed user inside, and outside, where the host is root, one for each Sandbox; no
//     capabilities, no way to new privileges, a filter of system calls. Its process 1 is package helper's program.
//  2. It has loopback alone. What it connects to beyond that is Options.Egress's to allow, by name.
//  3. A guest is its own session and process group, without a terminal. Standard input is empty, standard output and standard
//     error are one pipe (so their order is kept), descriptor 3 is the line of the Stream transport, and nothing else is open.
//  4. Its environment is Code.Env. A plain guest's also has TMPDIR and HOME (one private folder, removed at the end, unless Code.Env sets them) and
//     EBB_SANDBOX, a name by which processes are found again after kill -9 of the host; one in Code.Env is not passed on.
//  5. On Linux the guest dies with the host, and at once: an isolated one with all that it started.
//  6. When the main process has ended, everything else in the Sandbox is killed without waiting for Stop.
//  7. A guest whose Code has a Template of kind Copied is a copy of one that is ready, in a Sandbox as closed as any other; where none is, or it does
//     not answer within a second, Command is run. The memory that it shares with others counts to no Sandbox.
//  8. An idle Sandbox costs descriptors and a few parked goroutines, no thread and no timer. Only where there is no
//     memory cgroup does one goroutine, for all Sandboxes together, sample memory.
//  8. An isolated guest on the Stream transport that has a Template of the kind Waiting comes from one that waits in a Sandbox of its own, where
//     one is ready. It has then been born with the same Limits and is used once; everything above holds for it. There are a few of each kind for
//     as long as it is asked for, and together they keep to Options.Ready.
//
// What it does not do: plain guests are not isolated from each other nor from the host's files and network, and their temp folder is not
// bounded. Limits.Processes needs a pids cgroup. Elsewhere than on Linux all guests are plain, there are no limits, and one that
// leaves its process group is not found. Protections says each of these.
//
// Spec.Output must not call back into the Sandbox, and a Write that never returns holds up the guest and Stop.
package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Options are what a Driver needs from outside.
type Options struct {
	// Dir is the private runtime folder of one data directory; it is made when missing. Sweep ends what earlier processes with
	// the same folder left.
	Dir string
	// NoCgroups makes the driver do without control groups, as on a machine that has none.
	NoCgroups bool
	// Egress connects isolated guests; without it they reach nothing.
	Egress sandbox.Egress
	// CA is a certificate that isolated guests find at sandbox.CAFile, and Roots all that they are to trust, which they find at
	// sandbox.RootsFile and in place of the system's own. PEM; nil means the system's alone.
	CA, Roots []byte
	// Store is Roots as a PKCS#12 file without a password, which Java finds at sandbox.StoreFile and in place of the stores of the system's Java; nil means none.
	Store []byte
	// Log takes what is worth knowing of guests' networks; nil takes nothing.
	Log *slog.Logger
	// Plain makes the driver run guests as plain processes where it could isolate them.
	Plain bool
	// Ready bounds the memory of Templates of kind Waiting, in bytes: a sixteenth of the machine's when zero; below, none of any kind is held ready.
	Ready int64
	// OneUser makes all Sandboxes the same user outside, one for each Dir, so that what they are given to write can be kept for the next.
	OneUser bool
	// Monitors says that what runs are programs that isolate guests of their own, such as an OCI runtime, and not strangers' code: each keeps
	// the rights that its namespaces give, as their user 0, and no filter of system calls keeps it from making more of them.
	Monitors bool
	// Patience bounds how long Stop waits for killed processes to be gone; 10 s when zero. One that hangs in the kernel
	// for longer is left to Close or the next Sweep.
	Patience time.Duration
}

// Driver creates Sandboxes that are processes of the host. Its methods may be called concurrently.
type Driver struct {
	opts     Options
	key      string // identifies Options.Dir in markers and cgroup names
	run      string // identifies this Driver among those that have used Options.Dir
	null     *os.File
	record   *record
	fences   *fences
	launcher *launcher
	iso      *isolation // nil where guests are plain processes
	why      error      // why they are
	stems    *stems
	walls    *walls    // what confines plain guests nevertheless; nil where nothing does
	buffers  sync.Pool // *[]byte of outputChunk, so that idle Sandboxes hold none

	mu struct {
		sync.Mutex
		closed bool
		next   int
		boxes  map[*box]struct{}
	}
}

var _ sandbox.Driver = (*Driver)(nil)

// Open makes a Driver and announces it in o.Dir. The caller closes it.
func Open(o Options) (*Driver, error) {
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("locate runtime folder %s: %w", o.Dir, err)
	}
	o.Dir = dir
	for _, sub := range []string{runsDir(dir), tmpRoot(dir)} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, fmt.Errorf("make runtime folder: %w", err)
		}
	}
	d := &Driver{opts: o, run: randomName()}
	d.mu.boxes = map[*box]struct{}{}
	d.buffers.New = func() any { b := make([]byte, outputChunk); return &b }
	if d.key, err = folderKey(dir); err != nil {
		return nil, fmt.Errorf("identify runtime folder: %w", err)
	}
	if d.null, err = os.Open(os.DevNull); err != nil {
		return nil, fmt.Errorf("open standard input of guests: %w", err)
	}
	d.fences = openFences(o.NoCgroups)
	if d.record, err = writeRecord(dir, d.run, d.fences.bases()); err != nil {
		d.fences.close()
		_ = d.null.Close()
		return nil, fmt.Errorf("write run record: %w", err)
	}
	d.launcher = startLauncher(d.fences)
	if o.Plain {
		d.why = errors.New("isolation is switched off")
	} else if d.iso, d.why = openIsolation(d); d.why != nil {
		d.iso, d.walls = nil, openWalls(d)
	}
	d.stems = openStems(d)
	return d, nil
}

// Name is "process".
func (d *Driver) Name() string { return "process" }

// Traits say that the protocol decides on concurrency, that Sandboxes can be frozen, and whether they have files of their own.
func (d *Driver) Traits() sandbox.Traits {
	return sandbox.Traits{Freezable: true, Mounts: d.iso != nil}
}

// User is the user and group outside to whom what Sandboxes write has to belong, where that is one for all: with Options.OneUser, and where
// ebb is not root. Else it is -1.
func (d *Driver) User() int {
	if d.iso == nil {
		return -1
	}
	return d.iso.owner()
}

// Prepare makes what a Sandbox needs before its code is known: temp folder, limits, address.
func (d *Driver) Prepare(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("prepare sandbox %s: %w", s.ID, err)
	}
	d.mu.Lock()
	if d.mu.closed {
		d.mu.Unlock()
		return nil, errs.New(errs.Unavailable, "prepare sandbox %s: the process driver is closed", s.ID)
	}
	d.mu.next++
	number := d.mu.next
	d.mu.Unlock()
	b, err := newBox(d, s, number)
	if err != nil {
		return nil, fmt.Errorf("prepare sandbox %s: %w", s.ID, err)
	}
	d.mu.Lock()
	closed := d.mu.closed
	d.mu.boxes[b] = struct{}{}
	d.mu.Unlock()
	if closed { // meanwhile
		b.Stop(0)
		return nil, errs.New(errs.Unavailable, "prepare sandbox %s: the process driver is closed", s.ID)
	}
	return b, nil
}

func (d *Driver) forget(b *box) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.boxes, b)
}

// Close stops what is still there without grace and lets go of everything. Further calls do nothing.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.mu.closed {
		d.mu.Unlock()
		return nil
	}
	d.mu.closed = true
	d.mu.Unlock()
	d.stems.close()
	var all sync.WaitGroup
	for _, b := range d.left() {
		all.Go(func() { b.Stop(0) })
	}
	all.Wait()
	for _, b := range d.left() {
		all.Go(b.again) // what hung in the kernel when it was stopped
	}
	all.Wait()
	if d.iso != nil {
		d.iso.retire()
	}
	d.launcher.close()
	if d.iso != nil {
		d.iso.close()
	}
	if d.walls != nil {
		d.walls.close()
	}
	d.fences.close()
	_ = os.RemoveAll(filepath.Join(tmpRoot(d.opts.Dir), d.run))
	_ = d.null.Close()
	return d.record.close()
}

// left are the Sandboxes of which something is left.
func (d *Driver) left() []*box {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.mu.boxes))
}

func runsDir(dir string) string { return filepath.Join(dir, "runs") }
func tmpRoot(dir string) string { return filepath.Join(dir, "tmp") }

func randomName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

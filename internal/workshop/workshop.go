// Package workshop runs the tools of builds in Sandboxes: package managers with the scripts of what they install, Makefiles, compilers,
// configuration that is a program.
//
// Main type: [Workshop], whose Run is a build.Runner.
//
// Guarantees:
//
//  1. A Job works on a copy of the project, shown at the project's own place. Of what it writes there only the Job's Results come back, and
//     never over or through a link; links that lead out of the project, device files and set-user-id bits do not come with them.
//  2. Nothing else of this machine is shown but the system's programs, those of the Job's own and what it names: no home, no other project, no
//     credentials but those of registries in steps that only fetch.
//  3. What steps that run a project's code keep (caches) is that project's. What projects share is written by steps that only fetch.
//  4. Registries alone are connected to, those of the machine's configuration too, and what the operator adds.
//  5. Processes, memory, disk and time are bounded; at the end of a step, and when the context is cancelled, nothing of it is left running.
//
// It knows nothing of which tool does what: that is package build's.
package workshop

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/build"
	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Options are what a Workshop needs.
type Options struct {
	Driver sandbox.Driver // connects by the Egress of [NewEgress]; its Sandboxes have files of their own
	User   int            // to whom outside what a guest may write has to belong; -1 or this process's own user where that needs no change
	Dir    string         // folder of the project's builds: copies, and caches of its own
	Shared string         // folder of what all projects' fetching steps share
	Env    func(string) (string, bool)
	Limits Limits
}

// Limits bound each step. Zero fields have the defaults.
type Limits struct {
	MemoryBytes int64         // 3/4 of the machine's
	Processes   int           // 1,024, threads included
	DiskBytes   int64         // 8 GiB: what the disk may lose meanwhile
	Time        time.Duration // 20 minutes
}

// Workshop runs Jobs. Its methods may be called concurrently.
type Workshop struct {
	o      Options
	number atomic.Int64
}

// New returns a Workshop.
func New(o Options) *Workshop {
	l := &o.Limits
	if l.MemoryBytes <= 0 {
		l.MemoryBytes = memory() / 4 * 3
	}
	if l.Processes <= 0 {
		l.Processes = 1024
	}
	if l.DiskBytes <= 0 {
		l.DiskBytes = 8 << 30
	}
	if l.Time <= 0 {
		l.Time = 20 * time.Minute
	}
	return &Workshop{o: o}
}

// Where a Sandbox has what is not the project's.
const (
	own   = "/ebb-build" // home, temp folder and caches of the project
	cache = "/ebb-cache" // of all projects
)

// Owners of Sandboxes, by which their egress is told apart.
const (
	online   = "build"
	fetching = "build-fetch"
	offline  = "build-offline"
)

// NewEgress makes what connects Sandboxes of builds: to registries, and to what allow adds, in the words of egress.NewPolicy; "anything" is
// no bound at all.
func NewEgress(env func(string) (string, bool), allow string) (*egress.Egress, error) {
	mode, list := egress.AllowList, Registries(env)
	for _, word := range strings.FieldsFunc(allow, func(r rune) bool { return r == ',' || r == ' ' }) {
		switch word {
		case egress.Anything.String():
			mode = egress.Anything
		case egress.Closed.String():
			return nil, errs.New(errs.Invalid, "setting build-egress: closed leaves no registry").WithHint("Leave it out: registries alone are the default.")
		default:
			list = append(list, word)
		}
	}
	p, err := egress.NewPolicy(mode, list)
	if err != nil {
		return nil, errs.New(errs.Invalid, "setting build-egress: %w", err)
	}
	f, err := egress.NewPolicy(mode, append(list, proxies(env)...))
	if err != nil {
		return nil, errs.New(errs.Invalid, "the proxies of the environment: %w", err)
	}
	return egress.New(egress.Options{Setting: "--build-egress", Policy: func(owner string) egress.Policy {
		switch owner {
		case online:
			return p
		case fetching:
			return f
		}
		return egress.Policy{}
	}}), nil
}

// Run does a Job. An error of a program is its exit status.
func (w *Workshop) Run(ctx context.Context, j build.Job) error {
	b, err := w.openBench(j)
	if err != nil {
		return errs.New(errs.CodeOf(err), "make room for the build: %w", err)
	}
	defer b.close()
	for _, s := range j.Steps {
		if s.If != nil && !s.If(b.at) {
			continue
		}
		if err := w.step(ctx, b, s); err != nil {
			b.settle() // what is in Writes is looked at, and removed, by this machine's user
			return err
		}
	}
	b.settle()
	if err := b.deliver(); err != nil {
		return errs.New(errs.CodeOf(err), "bring the build's results: %w", err)
	}
	return nil
}

// step runs one program to its end.
func (w *Workshop) step(ctx context.Context, b *bench, s build.Step) error {
	home, env, err := b.furnish(s)
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(home) }()
	owner := online
	switch {
	case b.job.Offline:
		owner = offline
	case s.Fetches:
		owner = fetching
	}
	out := b.job.Output
	if out == nil {
		out = io.Discard
	}
	sb, err := w.o.Driver.Prepare(ctx, sandbox.Spec{
		ID: "build-" + strconv.FormatInt(w.number.Add(1), 10), Owner: owner, Output: out,
		Limits: sandbox.Limits{MemoryBytes: w.o.Limits.MemoryBytes, TmpBytes: 256 << 20, Processes: w.o.Limits.Processes},
	})
	if err != nil {
		return err
	}
	defer sb.Stop(0)
	if _, err := sb.Start(ctx, sandbox.Code{Command: append([]string{reached(s.Command[0])}, s.Command[1:]...), Env: env, Dir: b.job.Dir, Mounts: b.mounts(home, s)}); err != nil {
		return err
	}
	if err := w.watch(ctx, sb); err != nil {
		return err
	}
	sb.Stop(0) // with what it left running
	exit := sb.Exit()
	switch {
	case exit.OOM:
		return errs.New(errs.Failed, "%s took more memory than the %d MiB that a build may use", filepath.Base(s.Command[0]), w.o.Limits.MemoryBytes>>20)
	case exit.Code != 0 || exit.Signal != "":
		return errs.New(errs.Failed, "%s", exit)
	}
	return nil
}

// watch waits for the end of a Sandbox's main program, and ends it when it is over a bound that no Driver has.
func (w *Workshop) watch(ctx context.Context, sb sandbox.Sandbox) error {
	late := time.NewTimer(w.o.Limits.Time)
	defer late.Stop()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	before, known := free(w.o.Dir)
	for {
		select {
		case <-sb.Done():
			return nil
		case <-ctx.Done():
			sb.Stop(0)
			return ctx.Err()
		case <-late.C:
			sb.Stop(0)
			return errs.New(errs.Failed, "it was ended after %s", w.o.Limits.Time)
		case <-look.C:
			if now, ok := free(w.o.Dir); known && ok && before-now > w.o.Limits.DiskBytes {
				sb.Stop(0)
				return errs.New(errs.Failed, "it was ended when it had written more than %d MiB", w.o.Limits.DiskBytes>>20)
			}
		}
	}
}

// mounts are what a step sees beside the system. home becomes the folder own.
func (b *bench) mounts(home string, s build.Step) []sandbox.Mount {
	all := []sandbox.Mount{{Source: home, Target: own, Writable: true}}
	if b.job.Root != "" {
		all = append(all, sandbox.Mount{Source: b.files, Target: b.job.Root, Writable: true})
	}
	if s.Fetches {
		all = append(all, sandbox.Mount{Source: b.w.o.Shared, Target: cache, Writable: true})
	} else {
		all = append(all, sandbox.Mount{Source: b.cache, Target: cache, Writable: true})
	}
	for _, dir := range b.job.Writes {
		all = append(all, sandbox.Mount{Source: dir, Target: dir, Writable: true})
	}
	shown := append(slices.Clone(b.modules), b.job.Shows...)
	if s.Fetches {
		if dir := downloads(b.w.o.Env); dir != "" {
			all = append(all, sandbox.Mount{Source: dir, Target: goProxy})
		}
	}
	for _, f := range append(programs(s), trusted(s.Env)...) {
		if b.job.Root == "" || !under(f, b.job.Root) {
			shown = append(shown, f)
		}
	}
	for _, f := range shown {
		if !slices.ContainsFunc(all, func(m sandbox.Mount) bool { return m.Target == f }) {
			all = append(all, sandbox.Mount{Source: f, Target: f})
		}
	}
	return all
}

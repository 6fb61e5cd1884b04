// Package all lists the sandbox drivers.
//
// Main type: [Set], which [Drivers] opens and whoever composes the server passes on by value.
//
// Guarantees:
//
//  1. Either all drivers are open or none is.
//  2. Nothing registers itself: what is in a Set is written in Drivers.
//
// It does not choose a driver for a Unit.
package all

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/oci"
	"github.com/ebb-run/ebb/internal/sandbox/process"
)

// Options are what the drivers need from outside.
type Options struct {
	Dir       string // private runtime folder of one data directory; each driver gets a folder in it
	NoCgroups bool   // do without control groups
	Plain     bool   // run guests as plain processes
	Egress    sandbox.Egress
	Log       *slog.Logger
	Ready     int64  // bytes of Templates that are held ready, as [process.Options] has it
	Runtime   string // path or name of the OCI runtime
	CA, Roots []byte // as [process.Options] has them
	Store     []byte
	Path      string // where programs are looked for, as in the variable PATH
}

// Set holds opened drivers by name. It is immutable.
type Set struct {
	drivers map[string]sandbox.Driver
	process *process.Driver
	strong  *oci.Driver
}

// Drivers opens every driver. The caller closes the Set.
func Drivers(o Options) (Set, error) {
	po := process.Options{Dir: o.Dir, NoCgroups: o.NoCgroups, Plain: o.Plain, Egress: o.Egress, Log: o.Log, Ready: o.Ready, CA: o.CA, Roots: o.Roots, Store: o.Store}
	p, err := process.Open(po)
	if err != nil {
		return Set{}, fmt.Errorf("open process driver: %w", err)
	}
	po.Dir, po.Plain, po.Monitors, po.Ready = filepath.Join(o.Dir, "strong"), false, true, -1
	strong := oci.New(oci.Options{
		Open:    func() (sandbox.Driver, error) { return process.Open(po) },
		Used:    func() bool { _, err := os.Stat(po.Dir); return err == nil },
		Runtime: o.Runtime, Path: o.Path,
	})
	return Set{drivers: map[string]sandbox.Driver{p.Name(): p, strong.Name(): strong}, process: p, strong: strong}, nil
}

// Get returns a driver by name.
func (s Set) Get(name string) (sandbox.Driver, error) {
	if d, ok := s.drivers[name]; ok {
		return d, nil
	}
	return nil, errs.New(errs.NotFound, "no sandbox driver %q", name).WithHint("Drivers are: %s", strings.Join(s.Names(), ", "))
}

// Names lists the drivers, sorted.
func (s Set) Names() []string {
	names := make([]string, 0, len(s.drivers))
	for name := range s.drivers {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Process is the process driver, for its report of what protects this machine.
func (s Set) Process() *process.Driver { return s.process }

// Strong is the driver whose guests have a kernel of their own; its Check says whether it can run any.
func (s Set) Strong() *oci.Driver { return s.strong }

// Sweep ends what earlier processes of this data directory left, and returns how many Sandboxes that were.
func (s Set) Sweep(ctx context.Context) (int, error) {
	var all []error
	sum := 0
	for _, name := range s.Names() {
		n, err := s.drivers[name].Sweep(ctx)
		if err != nil {
			all = append(all, fmt.Errorf("driver %s: %w", name, err))
		}
		sum += n
	}
	return sum, errors.Join(all...)
}

// Close closes all drivers.
func (s Set) Close() error {
	var all []error
	for _, name := range s.Names() {
		all = append(all, s.drivers[name].Close())
	}
	return errors.Join(all...)
}

package process

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Sweep ends what earlier runs with the same Options.Dir left: processes, cgroups, temp folders. What belongs to a run that
// still lives is left alone. Empty cgroups of other folders go when they have been there for long.
func (d *Driver) Sweep(ctx context.Context) (int, error) {
	alive, over, err := runs(d.opts.Dir)
	if err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	alive[d.run] = true
	left := &leftovers{key: d.key, alive: alive, bases: d.fences.bases(), found: map[string]bool{}}
	for _, n := range over {
		left.bases = append(left.bases, n.Cgroups...)
	}
	end := time.Now().Add(d.opts.Patience)
	for pause := time.Millisecond; !left.sweep(); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(end) {
			return len(left.found), fmt.Errorf("sweep: processes of an earlier run did not end within %s", d.opts.Patience)
		}
		select {
		case <-ctx.Done():
			return len(left.found), fmt.Errorf("sweep: %w", ctx.Err())
		case <-time.After(pause):
		}
	}
	removeAbandoned(d.fences.bases(), d.key, time.Now())
	if err := d.sweepFolders(left); err != nil {
		return len(left.found), fmt.Errorf("sweep: %w", err)
	}
	for _, n := range over {
		_ = os.Remove(filepath.Join(runsDir(d.opts.Dir), n.Run+".json")) // last: until here another Sweep could take over
	}
	return len(left.found), nil
}

// sweepFolders removes the temp folders of runs that are over.
func (d *Driver) sweepFolders(left *leftovers) error {
	entries, err := os.ReadDir(tmpRoot(d.opts.Dir))
	if err != nil {
		return fmt.Errorf("list temp folders: %w", err)
	}
	for _, run := range entries {
		if left.alive[run.Name()] {
			continue
		}
		dir := filepath.Join(tmpRoot(d.opts.Dir), run.Name())
		boxes, _ := os.ReadDir(dir)
		for _, b := range boxes {
			left.found[d.key+"-"+run.Name()+"-"+b.Name()] = true
		}
		removeAll(dir)
	}
	return nil
}

// leftovers are the Sandboxes of runs that are over.
type leftovers struct {
	key   string
	alive map[string]bool // runs
	bases []string        // folders with cgroups
	found map[string]bool // Sandboxes, by name
	hunt  *hunt
}

// take reports whether a Sandbox is one, by its name (key-run-number), and if so counts it.
func (l *leftovers) take(name string) bool {
	parts := strings.Split(name, "-")
	if len(parts) != 3 || parts[0] != l.key || l.alive[parts[1]] {
		return false
	}
	l.found[name] = true
	return true
}

//go:build linux

package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// OpenV1 opens a Driver that has version 1 cgroups alone, where this machine has them.
func OpenV1(o Options) (*Driver, error) {
	d, err := Open(o)
	if err != nil {
		return nil, err
	}
	// The launcher waits for orders, so nobody looks at these meanwhile.
	d.fences.goHomeless()
	found := findCgroups()
	delete(found, "unified")
	d.fences.use(found)
	return d, nil
}

// HasV1 reports whether OpenV1 has any.
func HasV1(d *Driver) bool { return d.fences.memory.version == 1 && d.fences.pids.version == 1 }

// HasPids reports whether the number of processes is limited.
func HasPids(d *Driver) bool { return d.fences.pids.usable() }

// CountsCPU reports whether a cgroup counts the processor time of all processes.
func CountsCPU(d *Driver) bool { return d.fences.tree.usable() || d.fences.account.usable() }

// WeightOf is the weight of a Driver's only Sandbox, by version of its cgroup; "" where it has none.
func WeightOf(d *Driver) (v1, v2 string) {
	for _, dir := range CgroupsOf(d) {
		if text, err := os.ReadFile(filepath.Join(dir, "cpu.shares")); err == nil {
			v1 = strings.TrimSpace(string(text))
		}
		if text, err := os.ReadFile(filepath.Join(dir, "cpu.weight")); err == nil {
			v2 = strings.TrimSpace(string(text))
		}
	}
	return v1, v2
}

// CgroupsOf lists the cgroups below a Driver's folders that are its own.
func CgroupsOf(d *Driver) []string {
	var all []string
	for _, base := range d.fences.bases() {
		found, _ := filepath.Glob(filepath.Join(base, "ebb-"+d.key+"-*"))
		all = append(all, found...)
	}
	return all
}

// Again has a Driver's next Sandbox get the number of the last, and with it its user and its names.
func Again(d *Driver) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.next--
}

// BasesOf lists a Driver's folders for cgroups.
func BasesOf(d *Driver) []string { return d.fences.bases() }

// Folder is where a cgroup path shows in a mount.
func Folder(point, root, path string) string {
	return cgroupMount{point: point, root: root}.folder(path)
}

// ImageFD is the descriptor of a Driver's helper.
func ImageFD(d *Driver) uintptr { return d.iso.image.Fd() }

// Landlocked reports whether plain guests are confined to their files.
func Landlocked(d *Driver) bool { return d.walls != nil && d.walls.files() }

// Scoped reports whether guests without namespaces can signal only themselves.
func Scoped(d *Driver) bool { return d.walls != nil && d.walls.scoped() }

// HasMemory reports whether a cgroup counts memory.
func HasMemory(d *Driver) bool { return d.fences.memory.usable() }

// Spoil has all lists for helpers of a Driver changed. No Sandbox is starting.
func Spoil(d *Driver, spoil func(steps []byte)) { d.iso.spoil = spoil }

// AwaitZygote starts a zygote of a Template where there is none, and waits until it is ready.
func AwaitZygote(d *Driver, t sandbox.Template) error {
	z := d.iso.zygotes
	for {
		one := z.take(&t)
		z.mu.Lock()
		changed, failed, closed := z.mu.changed, z.mu.why[keyOf(&t)], z.mu.closed
		booting := z.mu.booting[keyOf(&t)]
		if one != nil {
			one.made--
		}
		z.mu.Unlock()
		switch {
		case one != nil:
			return nil
		case closed:
			return errors.New("closed")
		case !booting && failed != nil:
			return failed
		}
		<-changed
	}
}

// Copies is how many guests of a Driver were made from zygotes.
func Copies(d *Driver) int { return int(d.iso.zygotes.copies.Load()) }

// Zygotes are the processes that are ready.
func Zygotes(d *Driver) []int {
	z := d.iso.zygotes
	z.mu.Lock()
	defer z.mu.Unlock()
	var all []int
	for _, one := range z.mu.ready {
		all = append(all, one.guest.pid)
	}
	return all
}

// AwaitNoZygote waits until there is none.
func AwaitNoZygote(d *Driver) {
	z := d.iso.zygotes
	for {
		z.mu.Lock()
		n, changed := len(z.mu.ready), z.mu.changed
		z.mu.Unlock()
		if n == 0 {
			return
		}
		<-changed
	}
}

// ReadyStem makes a stem for code in a Sandbox, false where it takes none. From then on the Driver makes none by itself.
func ReadyStem(sb sandbox.Sandbox, c sandbox.Code) (bool, error) {
	b := sb.(*box)
	b.mu.Lock()
	unused := b.mu.phase == prepared && !b.mu.stopping
	b.mu.Unlock()
	s, k := b.d.stems, b.seedOf(c)
	if k == nil || !unused {
		return false, nil
	}
	cell, err := b.d.sow(context.Background(), k, nil)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.busy = true
	p := s.mu.pools[k.key]
	if p == nil {
		p = &stemPool{seed: k, asked: []time.Time{time.Now()}}
		s.mu.pools[k.key] = p
	}
	p.ready = append(p.ready, cell)
	s.wg.Go(func() { s.watch(p, cell) })
	return true, nil
}

// FromTemplate reports whether a Sandbox that was started came from a Template.
func FromTemplate(sb sandbox.Sandbox) bool { return sb.(*box).templated }

// StemPids are the helpers of all stems that are ready.
func StemPids(d *Driver) (pids []int) {
	d.stems.mu.Lock()
	defer d.stems.mu.Unlock()
	for _, p := range d.stems.mu.pools {
		for _, c := range p.ready {
			pids = append(pids, c.(*stemCell).guest.pid)
		}
	}
	return pids
}

// DropStems ends all stems. A Driver makes none from then on.
func DropStems(d *Driver) { d.stems.close() }

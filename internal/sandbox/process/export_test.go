//go:build linux

package process

import (
	"os"
	"path/filepath"
	"strings"
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

// Folder is where a cgroup path shows in a mount.
func Folder(point, root, path string) string {
	return cgroupMount{point: point, root: root}.folder(path)
}

// ImageFD is the descriptor of a Driver's helper.
func ImageFD(d *Driver) uintptr { return d.iso.image.Fd() }

// Landlocked reports whether plain guests are confined to their files.
func Landlocked(d *Driver) bool { return d.walls != nil && d.walls.files() && d.walls.scoped() }

// HasMemory reports whether a cgroup counts memory.
func HasMemory(d *Driver) bool { return d.fences.memory.usable() }

// Spoil has all lists for helpers of a Driver changed. No Sandbox is starting.
func Spoil(d *Driver, spoil func(steps []byte)) { d.iso.spoil = spoil }

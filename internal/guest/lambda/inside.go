package lambda

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Where Lambda has things: Lambda guide, "Lambda runtime environment" and "Layers".
const (
	taskRoot   = "/var/task"
	runtimeDir = "/var/runtime"
	layersDir  = "/opt"
	// suppliedDir is ours: Lambda has its SDKs among the runtime's files.
	suppliedDir = "/var/supplied"
)

// inside is a Unit as its guest sees it.
type inside struct {
	guest.Unit
	runtime string // folder of the bootstraps
	mounts  []sandbox.Mount
}

// inside gives the places of a Unit's files in its Sandbox: Lambda's, or the host's own where Sandboxes have no files of their own.
func (p *Protocol) inside(u *guest.Unit) *inside {
	in := &inside{Unit: *u, runtime: p.dir}
	if !u.Mounted {
		return in
	}
	show := func(from, to string) string {
		in.mounts = append(in.mounts, sandbox.Mount{Source: from, Target: to})
		return to
	}
	in.Root, in.runtime, in.Layers = show(u.Root, taskRoot), show(p.dir, runtimeDir), nil
	for i, l := range u.Layers {
		to := layersDir
		if len(u.Layers) > 1 {
			to = "/var/layers/" + strconv.Itoa(i)
		}
		in.Layers = append(in.Layers, show(l, to))
	}
	if u.Supplied != "" {
		in.Supplied = show(u.Supplied, suppliedDir)
	}
	if len(u.Interpreter) > 0 {
		in.mounts = append(in.mounts, installation(u.Interpreter[0])...)
	}
	return in
}

// file is where a file of the host is inside.
func (in *inside) file(name string) string {
	for _, m := range in.mounts {
		if rest, ok := strings.CutPrefix(name, m.Source+"/"); ok {
			return filepath.Join(m.Target, rest)
		}
	}
	return name
}

// installation gives the folders that an interpreter needs: that of its program, and that of the program which this is a link to, as in
// Python's virtual environments. Where a program is in a folder bin, the folder above belongs to it.
func installation(program string) []sandbox.Mount {
	var all []sandbox.Mount
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		real = program
	}
	for _, file := range []string{program, real} {
		dir := filepath.Dir(file)
		if up := filepath.Dir(dir); filepath.Base(dir) == "bin" && up != "/" {
			dir = up
		}
		if len(all) == 0 || all[0].Source != dir {
			all = append(all, sandbox.Mount{Source: dir, Target: dir})
		}
	}
	return all
}

package lambda

import (
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/runtimes"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// Where Lambda has things: Lambda guide, "Lambda runtime environment" and "Packaging your layer content".
const (
	taskDir    = "/var/task"
	runtimeDir = "/var/runtime"
	optDir     = "/opt"
	// compiledDir is ours.
	compiledDir = "/var/compiled"
	// noneDir is an empty folder among the bootstraps.
	noneDir = "none"
	// suppliedDir is ours: Lambda has its SDKs among the runtime's files.
	suppliedDir = "/var/supplied"
)

// mounts are the folders of the Unit that its guest sees elsewhere than the host.
func mounts(u *guest.Unit) []sandbox.Mount {
	if !u.Mounts {
		return nil
	}
	all := []sandbox.Mount{{Source: u.Root, Target: taskDir}}
	if u.Layers != "" {
		all = append(all, sandbox.Mount{Source: u.Layers, Target: optDir})
	}
	if u.Supplied != "" {
		all = append(all, sandbox.Mount{Source: u.Supplied, Target: suppliedDir})
	}
	if hasCompiled(u) {
		all = append(all, sandbox.Mount{Source: u.Compiled, Target: compiledDir})
	}
	return all
}

// inside is the path at which the guest sees a file or folder of the Unit's.
func inside(u *guest.Unit, host string) string {
	for _, m := range mounts(u) {
		if rest, ok := below(host, m.Source); ok {
			return path.Join(m.Target, filepath.ToSlash(rest))
		}
	}
	return host
}

// needs are all mounts of a Unit: its own, the bootstraps and the interpreter. Where the Sandbox has no files of its own, they are where they are.
func (p *Protocol) needs(u *guest.Unit) []sandbox.Mount {
	all := mounts(u)
	if u.Mounts {
		all = append(all, sandbox.Mount{Source: p.dir, Target: runtimeDir})
		if compiledArg(u) == keepArg { // the next ones come from the same kind of Template then
			all = append(all, sandbox.Mount{Source: filepath.Join(p.dir, noneDir), Target: compiledDir})
		}
	} else {
		all = nil
		for _, dir := range []string{u.Root, u.Layers, u.Supplied, u.Compiled, p.dir} {
			if dir != "" {
				all = append(all, sandbox.Mount{Source: dir, Target: dir})
			}
		}
		if c := u.Capture; c != nil {
			for _, file := range []string{c.CA, c.Roots, c.Empty} {
				if file != "" {
					all = append(all, sandbox.Mount{Source: file, Target: file})
				}
			}
		}
	}
	if len(u.Interpreter) > 0 {
		all = append(all, installation(u.Interpreter[0])...)
	}
	return all
}

// bootstrap is the path at which the guest sees a file among the bootstraps, or with "" their folder.
func (p *Protocol) bootstrap(u *guest.Unit, file string) string {
	if u.Mounts {
		return path.Join(runtimeDir, file)
	}
	return filepath.Join(p.dir, file)
}

// installation gives the folders that an interpreter needs: that of its program, and that of the program which this is a link to, as in
// Python's virtual environments. Where a program is in a folder bin, the folder above belongs to it; but not all of it where that is
// somebody's home, or what programs of many kinds keep for a user.
func installation(program string) []sandbox.Mount {
	var all []sandbox.Mount
	show := func(dir string) {
		if m := (sandbox.Mount{Source: dir, Target: dir}); !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	real, err := filepath.EvalSymlinks(program)
	if err != nil {
		real = program
	}
	for _, file := range []string{program, real} {
		dir := filepath.Dir(file)
		up := filepath.Dir(dir)
		switch {
		case filepath.Base(dir) != "bin" || up == "/":
			show(dir)
		case !runtimes.Personal(up):
			show(up)
		default:
			show(dir)
			for _, part := range []string{"lib", "lib64", "pyvenv.cfg"} {
				if _, err := os.Stat(filepath.Join(up, part)); err == nil {
					show(filepath.Join(up, part))
				}
			}
		}
	}
	return all
}

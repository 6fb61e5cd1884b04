//go:build !linux

package process

import "syscall"

// order is one guest to start.
type order struct {
	path  string
	argv  []string
	env   []string
	dir   string
	files []uintptr // become 0, 1, 2, …
	fence *fence
}

// launcher starts guests. There is no parent-death signal here, so any thread will do.
type launcher struct{}

func startLauncher(*fences) *launcher { return &launcher{} }

func (l *launcher) start(o *order) (*guest, error) {
	pid, _, err := syscall.StartProcess(o.path, o.argv, &syscall.ProcAttr{
		Dir: o.dir, Env: o.env, Files: o.files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	o.fence.holds(pid)
	return newGuest(pid, -1), nil
}

func (l *launcher) close() {}

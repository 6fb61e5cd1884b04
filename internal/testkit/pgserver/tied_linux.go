package pgserver

import (
	"os/exec"
	"runtime"
	"syscall"
)

// startTied starts a process that ends when this one does, however it does. The kernel ties it to the thread that started it.
func startTied(cmd *exec.Cmd) error {
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread lives as long as the process
		err := cmd.Start()
		started <- err
		if err == nil {
			select {}
		}
	}()
	return <-started
}

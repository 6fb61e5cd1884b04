package main

import "syscall"

// dieWithParent has the system end a guest whose host was killed.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

//go:build !linux

package pgserver

import "os/exec"

func startTied(cmd *exec.Cmd) error { return cmd.Start() }

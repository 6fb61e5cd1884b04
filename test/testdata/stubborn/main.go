// Command bootstrap is a function that never answers and does what it can to outlive its deadline: it leaves processes in sessions of their
// own behind, which hold its standard output, and ignores SIGTERM in all of them.
package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	switch generation := os.Getenv("GENERATION"); generation {
	case "":
		resp, err := http.Get("http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/next")
		if err != nil {
			os.Exit(1)
		}
		_, _ = io.Copy(io.Discard, resp.Body) // whatever it is
		_ = os.WriteFile("/tmp/left", make([]byte, 64<<10), 0o644)
		fork("child")
	case "child":
		fork("grandchild")
	}
	select {}
}

func fork(generation string) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GENERATION="+generation)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		os.Exit(1)
	}
}

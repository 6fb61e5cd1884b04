package test

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

// awsCLI finds an AWS CLI that has a command; version 2 has more of them than 1.
func awsCLI(t *testing.T, command ...string) string {
	t.Helper()
	var tried []string
	for _, name := range []string{"aws", "/usr/bin/aws", "/usr/local/bin/aws"} {
		path, err := exec.LookPath(name)
		if err != nil || slices.Contains(tried, path) {
			continue
		}
		tried = append(tried, path)
		cmd := exec.CommandContext(t.Context(), path, append(slices.Clone(command), "help")...)
		cmd.Env = append(os.Environ(), "AWS_PAGER=", "PAGER=cat")
		if cmd.Run() == nil {
			return path
		}
	}
	t.Skipf("needs an AWS CLI with %v, as Debian's package awscli has it; found %v", command, tried)
	return ""
}

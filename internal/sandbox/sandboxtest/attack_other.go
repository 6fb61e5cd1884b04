//go:build !linux

package sandboxtest

// attacks are written for Linux.
func attacks() map[string]func(r *report, token string, args []string) { return nil }

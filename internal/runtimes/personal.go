package runtimes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Personal reports whether a folder, named by a clean absolute path, is somebody's home, one above homes, or the ~/.local of one. What an
// interpreter needs is shown to strangers' code by folder, and these hold more than an interpreter. A home that is reached by a link counts
// by both names.
func Personal(dir string) bool {
	homes := []string{"/root"}
	if h, err := os.UserHomeDir(); err == nil {
		homes = append(homes, filepath.Clean(h))
		if real, err := filepath.EvalSymlinks(h); err == nil {
			homes = append(homes, real)
		}
	}
	for _, all := range []string{"/home", "/Users"} {
		if dir == all || filepath.Dir(dir) == all {
			return true
		}
	}
	return filepath.Base(dir) == ".local" || slices.ContainsFunc(homes, func(h string) bool {
		return h == dir || strings.HasPrefix(h, strings.TrimSuffix(dir, "/")+"/")
	})
}

package process

import (
	"os"
	"path/filepath"
	"strings"
)

// sweep kills everything once and removes what is empty. It reports whether nothing was left.
func (l *leftovers) sweep() bool {
	clean := killMarked(l.take, 0) == 0
	for _, base := range l.bases {
		entries, _ := os.ReadDir(base)
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), "ebb-")
			if !ok || !l.take(name) {
				continue
			}
			dir := filepath.Join(base, e.Name())
			if writeFile(filepath.Join(dir, "cgroup.kill"), "1") != nil {
				_ = writeFile(filepath.Join(dir, "pids.max"), "0")
				killListed(dir)
			}
			clean = removeDirs([]string{dir}) && clean
		}
	}
	return clean
}

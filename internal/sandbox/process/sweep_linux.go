package process

import (
	"os"
	"path/filepath"
	"strings"
)

// sweep kills everything once and removes what is empty. It reports whether nothing was left.
func (l *leftovers) sweep() bool {
	if l.hunt == nil {
		l.hunt = &hunt{wanted: l.take}
	}
	clean := l.hunt.pass(0)
	for _, base := range l.bases {
		entries, _ := os.ReadDir(base)
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), "ebb-")
			if !ok || !l.take(name) {
				continue
			}
			dir := []string{filepath.Join(base, e.Name())}
			killCgroups(dir)
			clean = removeDirs(dir) && clean
		}
	}
	return clean
}

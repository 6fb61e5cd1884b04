package process

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// abandonedFor is how old the empty cgroup of another data directory is when nobody will come back for it. A living host's are empty for the
// instant between Prepare and Start.
const abandonedFor = time.Hour

// cgroupName is how Sandboxes' cgroups are called.
var cgroupName = regexp.MustCompile(`^ebb-[0-9a-f]{12}-[0-9a-f]{12}-[0-9]+$`)

// removeAbandoned removes the cgroups that hosts left which were killed, and whose data directories were never opened again or are gone: nobody
// else would. One with a process in it stays, since the kernel removes only empty ones.
func removeAbandoned(bases []string, key string, now time.Time) {
	for _, base := range bases {
		entries, _ := os.ReadDir(base)
		for _, e := range entries {
			if !cgroupName.MatchString(e.Name()) || strings.HasPrefix(e.Name(), "ebb-"+key+"-") {
				continue
			}
			if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > abandonedFor {
				_ = unix.Rmdir(filepath.Join(base, e.Name()))
			}
		}
	}
}

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

package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// removeCgroups removes what a killed ebb has left in /sys/fs/cgroup, as the next one of its data directory would, which tests do not start.
func removeCgroups(data string) {
	records, _ := filepath.Glob(filepath.Join(data, "run", "runs", "*.json"))
	for _, file := range records {
		var record struct{ Cgroups []string }
		text, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(text, &record) != nil {
			continue
		}
		run := strings.TrimSuffix(filepath.Base(file), ".json")
		for end := time.Now().Add(5 * time.Second); !removedAll(record.Cgroups, run) && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond) // guests end by themselves
		}
	}
}

func removedAll(bases []string, run string) bool {
	all := true
	for _, base := range bases {
		dirs, _ := filepath.Glob(filepath.Join(base, "ebb-*-"+run+"-*"))
		for _, dir := range dirs {
			pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for _, word := range strings.Fields(string(pids)) {
				if pid, err := strconv.Atoi(word); err == nil {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			_ = os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0) // version 1: nobody dies frozen
			all = syscall.Rmdir(dir) == nil && all
		}
	}
	return all
}

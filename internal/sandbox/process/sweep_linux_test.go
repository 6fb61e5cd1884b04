package process_test

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/sandbox/process"
)

// Cgroups of hosts that were killed, and whose data directories are gone, go with the next sweep of any.
func TestSweep_RemovesWhatNobodyWillComeBackFor(t *testing.T) {
	t.Parallel()
	d := newDriver(t, process.Options{})
	bases := process.BasesOf(d)
	if len(bases) == 0 {
		t.Skip("this machine gives no cgroups")
	}
	var id [6]byte
	_, _ = rand.Read(id[:])
	foreign := "ebb-" + hex.EncodeToString(id[:]) + "-0123456789ab-"
	old := time.Now().Add(-2 * time.Hour)
	for _, base := range bases {
		for name, c := range map[string]struct {
			age     time.Time
			process bool
			stays   bool
		}{
			foreign + "1":             {age: old},
			foreign + "2":             {age: time.Now(), stays: true},
			foreign + "3":             {age: old, process: true, stays: true},
			foreign + "4-of-somebody": {age: old, stays: true},
		} {
			dir := filepath.Join(base, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Remove(dir) })
			if c.process {
				cmd := exec.Command("sleep", "1000")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
				if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chtimes(dir, c.age, c.age); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(dir); (err == nil) != c.stays {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}

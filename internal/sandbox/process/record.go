package process

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// recordVersion is the version of the record's format; a record of a newer one is left alone.
const recordVersion = 1

// note is what a Driver writes about itself in Dir/runs.
type note struct {
	Version int      `json:"version"`
	Run     string   `json:"run"`
	PID     int      `json:"pid"`     // for people
	Cgroups []string `json:"cgroups"` // folders below which its Sandboxes have theirs
}

// record is the note of a living Driver. It is locked, and the kernel unlocks it when the host dies, however that happens;
// so an unlocked one belongs to a run that is over.
type record struct {
	file *os.File
}

func writeRecord(dir, run string, cgroups []string) (*record, error) {
	text, err := json.Marshal(note{Version: recordVersion, Run: run, PID: os.Getpid(), Cgroups: cgroups})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(runsDir(dir), run+".json")
	// Named .json only when locked: Sweep must never see it unlocked.
	f, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(text)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(path + ".new")
		return nil, err
	}
	return &record{file: f}, nil
}

func (r *record) close() error {
	err := os.Remove(strings.TrimSuffix(r.file.Name(), ".new"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the whole data directory was removed
	}
	return errors.Join(err, r.file.Close())
}

// runs reads all records of a folder: the names of runs that live, and the notes of those that are over.
func runs(dir string) (alive map[string]bool, over []note, err error) {
	entries, err := os.ReadDir(runsDir(dir))
	if err != nil {
		return nil, nil, fmt.Errorf("list run records: %w", err)
	}
	alive = map[string]bool{}
	for _, e := range entries {
		run, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		n, dead, err := readRecord(filepath.Join(runsDir(dir), e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // closed meanwhile
		case err != nil:
			return nil, nil, fmt.Errorf("read run record %s: %w", e.Name(), err)
		case !dead || n.Version > recordVersion:
			alive[run] = true
		default:
			n.Run = run
			over = append(over, n)
		}
	}
	return alive, over, nil
}

func readRecord(path string) (n note, dead bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return n, false, err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return n, false, nil
	}
	// A damaged record says at least, by its name, that there was a run.
	_ = json.NewDecoder(f).Decode(&n)
	return n, true, nil
}

// folderKey identifies a folder by what the file system knows it by: a copy of a data directory is another one, a moved one
// is the same, and two containers that share process numbers but not files do not take each other for themselves.
func folderKey(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("no inode number")
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", st.Dev, st.Ino))
	return hex.EncodeToString(sum[:6]), nil
}

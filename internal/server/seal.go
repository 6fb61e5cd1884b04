package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
)

// sealFile, in a sealed data directory, holds the root key, sealed by the operator's.
const sealFile = "SEAL"

// openSeal opens the data directory's seal by the operator's key, or makes it in one that is empty. The directory is locked.
func (s *Server) openSeal(k *seal.Key) error {
	s.working = s.o.Config.Data
	if k == nil {
		return nil
	}
	var err error
	if s.seal, err = openSeal(s.o.Config.Data, k); err != nil {
		return err
	}
	if s.working, err = scratch(s.o.Config.SealScratch, s.o.Config.Data, s.o.Env); err != nil {
		return err
	}
	s.closing(func() error {
		if mountedBelow(s.working) {
			return nil // what is mounted there is somebody else's; the next start takes the folder up again
		}
		return os.RemoveAll(s.working)
	})
	return nil
}

// readSealKey reads the operator's key; nil where the data directory is not to be sealed.
func (s *Server) readSealKey() (*seal.Key, error) {
	path, data := s.o.Config.SealKeyFile, s.o.Config.Data
	if path == "" {
		return nil, nil
	}
	if s.o.Config.NATS != "" {
		return nil, errs.New(errs.Unsupported, "--seal-key-file seals what this machine keeps, and with --nats that is elsewhere").
			WithHint("Let the NATS servers encrypt what they store (jetstream { key: … } in their configuration), and keep the data directory on an encrypted disk.")
	}
	if inside(path, data) {
		return nil, errs.New(errs.Invalid, "the seal key %s is in the data directory that it seals", path).
			WithHint("Keep it elsewhere, best on another disk or handed in at start: who has the data directory must not have the key.")
	}
	return seal.ReadKey(path)
}

// inside says whether a file is below a folder, links followed.
func inside(path, dir string) bool {
	real := func(p string) string {
		if abs, err := filepath.Abs(p); err == nil {
			p = abs
		}
		if to, err := filepath.EvalSymlinks(p); err == nil {
			return to
		}
		return p
	}
	rel, err := filepath.Rel(real(dir), real(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

func openSeal(dir string, k *seal.Key) (*seal.Sealer, error) {
	path := filepath.Join(dir, sealFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if anyOf(dir, "nats", "tables.db", "objects", "artifacts", "logs", "events") {
			return nil, noSeal(path)
		}
		made := seal.New()
		if err := writeWhole(dir, sealFile, string(made.Marker(k)), 0o600); err != nil {
			return nil, dataDirError(dir, err)
		}
		return made, dataDirError(dir, syncFolder(dir))
	}
	if err != nil {
		return nil, dataDirError(dir, err)
	}
	s, err := seal.Open(k, text)
	if err != nil {
		return nil, errs.New(errs.CodeOf(err), "the data directory %s: %w", dir, err).WithHint("%s Nothing in it was changed.", errs.HintOf(err))
	}
	return s, nil
}

func noSeal(path string) error {
	return errs.New(errs.Failed, "%s is missing, which the data directory is sealed with", path).
		WithHint("Put the file back from a backup: without it the key alone opens nothing. Nothing was changed.")
}

// anyOf says whether one of the names is in a folder.
func anyOf(dir string, names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		_, err := os.Lstat(filepath.Join(dir, n))
		return err == nil
	})
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RotateSeal lets another key open a sealed data directory, and the old one no longer. No Node uses it meanwhile. What is sealed stays as it
// is: only the root key is sealed anew.
func RotateSeal(dir string, old, next *seal.Key) error {
	format, err := os.ReadFile(filepath.Join(dir, "FORMAT"))
	if err != nil || string(format) != sealedFormat+"\n" {
		return errs.New(errs.Invalid, "%s is not a sealed data directory", dir).WithHint("Name it with --data DIR.")
	}
	l, err := lockData(dir)
	if err != nil {
		return err
	}
	defer func() { _ = l.Release() }()
	if !anyOf(dir, sealFile) {
		return noSeal(filepath.Join(dir, sealFile))
	}
	s, err := openSeal(dir, old)
	if err != nil {
		return err
	}
	if err := writeWhole(dir, sealFile, string(s.Marker(next)), 0o600); err != nil {
		return dataDirError(dir, err)
	}
	return dataDirError(dir, syncFolder(dir))
}

// scratch makes the folder of what cannot be sealed while functions run, for their own use: unpacked code, their files in /tmp, what runtimes
// compile. It is in memory where no other is given, and always the same for a data directory.
func scratch(given, data string, env func(string) (string, bool)) (string, error) {
	abs, err := filepath.Abs(data)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(abs))
	name := "ebb-" + hex.EncodeToString(sum[:8])
	if given != "" {
		if inside(given, data) {
			return "", errs.New(errs.Invalid, "--seal-scratch %s is in the data directory", given).WithHint("What is there is in clear: give a folder in memory or on an encrypted disk.")
		}
		dir := filepath.Join(given, name)
		return dir, ownFolder(dir)
	}
	candidates := []string{"/dev/shm"}
	if d, ok := env("XDG_RUNTIME_DIR"); ok && filepath.IsAbs(d) {
		candidates = append(candidates, d)
	}
	for _, parent := range candidates {
		if !inMemory(parent) {
			continue
		}
		if dir := filepath.Join(parent, name); ownFolder(dir) == nil {
			return dir, nil
		}
	}
	return "", errs.New(errs.Unsupported, "there is no folder in memory from which programs may run, for what functions need in clear: code, /tmp").
		WithHint("Give one with --seal-scratch DIR: on a tmpfs, or on an encrypted disk.")
}

// ownFolder makes a folder that is this user's alone; another's that is there already is refused.
func ownFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return errs.New(errs.Invalid, "make folder: %w", err).WithHint("Give another with --seal-scratch DIR.")
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || ok && int(st.Uid) != os.Geteuid() {
		return errs.New(errs.Forbidden, "%s is another's, or open to others", dir).WithHint("Remove it, or give another with --seal-scratch DIR.")
	}
	return nil
}

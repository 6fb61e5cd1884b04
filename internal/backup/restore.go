package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// Restored says where things are after [Restore].
type Restored struct {
	Found
	Aside string `json:"aside,omitempty"` // where what was in the folder is now
}

// Restore reads a stream into dir, which must not exist or be empty; with force what is there is moved aside first. Everything is read and
// checked before dir is there.
func Restore(ctx context.Context, r io.Reader, dir string, force bool, told func(File)) (out Restored, err error) {
	if err := vacant(dir); err != nil && !force {
		return out, err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+".restore-")
	if err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if out.Found, err = Read(ctx, r, func(f File, data io.Reader) error {
		if told != nil {
			told(f)
		}
		return extract(tmp, f, data)
	}); err != nil {
		return out, err
	}
	if err := syncTree(tmp); err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	if out.Aside, err = vacate(dir, force); err != nil {
		return out, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return out, fmt.Errorf("restore: %w", err)
	}
	return out, syncFolder(parent)
}

func extract(dir string, f File, data io.Reader) error {
	to := filepath.Join(dir, filepath.FromSlash(f.Name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("restore %s: %w", f.Name, err)
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode|0o200)
	if err != nil {
		return fmt.Errorf("restore %s: %w", f.Name, err)
	}
	_, err = io.Copy(out, data)
	if err == nil {
		err = out.Chmod(f.Mode)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("restore %s: %w", f.Name, err)
	}
	return nil
}

// vacant returns an error where a folder holds anything.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return errs.New(errs.Invalid, "restore into %s: %w", dir, err).WithHint("Choose a folder that does not exist with --data DIR.")
	}
	return errs.New(errs.Exists, "%s is not empty: it holds %s", dir, entries[0].Name()).
		WithHint("Restore into a folder that does not exist with --data DIR, or move what is there aside with --force.")
}

// vacate makes place for a folder, and tells where what was there is now.
func vacate(dir string, force bool) (aside string, err error) {
	if err := vacant(dir); err == nil {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("restore: %w", err)
		}
		return "", nil
	} else if !force {
		return "", err
	}
	aside = dir + ".before-" + time.Now().UTC().Format("20060102T150405.000Z")
	if _, err := os.Lstat(aside); err == nil {
		return "", errs.New(errs.Exists, "%s is there already", aside)
	}
	if err := os.Rename(dir, aside); err != nil {
		return "", fmt.Errorf("restore: move %s aside: %w", dir, err)
	}
	return aside, nil
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

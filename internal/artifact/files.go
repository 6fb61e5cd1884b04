package artifact

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Files calls each with the files that a copy of the Store needs, by their paths in its folder: what is unpacked is made again from them. A blob
// comes after the Manifests that name it, so that those that are put meanwhile do no harm. The caller keeps Collect away.
func (s *Store) Files(each func(path string) error) error {
	if err := each("FORMAT"); err != nil {
		return err
	}
	for _, folder := range []string{"manifests", "blobs"} {
		err := filepath.WalkDir(filepath.Join(s.dir, folder), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil // one that was still being written
			}
			if err != nil || !d.Type().IsRegular() || !validSHA(strings.TrimSuffix(d.Name(), ".json")) {
				return err
			}
			rel, err := filepath.Rel(s.dir, path)
			if err != nil {
				return err
			}
			return each(rel)
		})
		if err != nil {
			return fmt.Errorf("list artifacts: %w", err)
		}
	}
	return nil
}

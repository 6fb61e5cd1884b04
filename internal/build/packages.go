package build

import (
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/errs"
)

// packageSet is a folder of Node packages that were installed for their own sake.
type packageSet struct {
	dir string // holds node_modules
	err error
}

// packages installs exactly these packages into the cache, once for all projects of the user.
func (b *builder) packages(specs map[string]string) packageSet {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		list = append(list, name+"@"+specs[name])
	}
	key := hash(list...)
	if set, ok := b.sets[key]; ok {
		return set
	}
	set := packageSet{dir: filepath.Join(b.o.Cache, "node", key)}
	if !isFolder(set.dir) {
		if set.err = b.failedLately(key); set.err != nil {
			b.sets[key] = set
			return set
		}
	}
	set.err = b.once(set.dir, func(tmp string) error {
		defer b.step("supply", "", strings.Join(list, " "))()
		text, err := json.Marshal(map[string]any{"name": "supplied", "version": "0.0.0", "private": true, "dependencies": specs})
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tmp, "package.json"), text, 0o644); err != nil {
			return err
		}
		c := b.npmCommand(tmp, []string{"install", "--omit=dev", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund", "--no-progress", "--loglevel=error", "--fetch-retries=1"})
		c.fetches, c.outside = true, true
		out, err := b.run(c)
		if err == nil {
			return nil
		}
		if b.ctx.Err() != nil || missing(err) {
			return noNpm(err)
		}
		return errs.New(errs.Failed, "%s", npmReason(out))
	})
	if set.err != nil {
		b.failed(key, set.err)
	}
	b.sets[key] = set
	return set
}

// once makes a folder of the cache by make, whole or not at all, also among several processes.
func (b *builder) once(dir string, make func(tmp string) error) error {
	if isFolder(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(b.ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if isFolder(dir) { // another process made it meanwhile
		return nil
	}
	tmp, err := os.MkdirTemp(parent, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := make(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

// fixed gives a folder that once made: such a folder never changes, so what it holds is read from its list.
func (b *builder) fixed(dir, sub string, keep func(p string, d fs.DirEntry) bool) (*artifact.Tree, error) {
	list := filepath.Join(dir, ".files.json")
	from := filepath.Join(dir, sub)
	var t artifact.Tree
	if data, err := os.ReadFile(list); err == nil && json.Unmarshal(data, &t.Manifest) == nil && t.Manifest.Format == artifact.Format && t.Manifest.Validate() == nil {
		t.Open = func(e artifact.Entry) (io.ReadCloser, error) {
			return os.Open(filepath.Join(from, filepath.FromSlash(e.Path)))
		}
		return &t, nil
	}
	made, err := artifact.ScanWithin(from, nil, func(p string, d fs.DirEntry) bool { return p != ".files.json" && keep(p, d) }, b.reads(from))
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(made.Manifest)
	if err != nil {
		return nil, err
	}
	return made, writeFile(list, data)
}

// Package fence says which files of this machine a project may have read.
//
// A project is strangers' code. Its tools run in sandboxes; what ebb itself reads for it, with its user's rights, is inside a fence: sources that are
// bundled, folders that are packaged, files that configuration names. Without one, a link or an import would carry a key into a function's code.
//
// Main type: [Fence].
//
// Guarantees:
//
//  1. A file is judged by its real path, all links in it resolved.
//  2. A home, and a folder above homes, never counts as what a project shares with a file; nor does one that everybody may write to, one directly
//     below the file system's root, or the root.
//  3. What is refused is refused with an error that names the file, the reason and the mend.
//  4. A Fence is immutable; its methods may be called concurrently.
//
// It knows nothing of formats, and reads nothing but where things are (package.json for its workspaces).
package fence

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// Options are what a Fence is made from.
type Options struct {
	Root  string                      // the project's folder
	Env   func(string) (string, bool) // the user's environment; nil is none
	Allow []string                    // files and folders that the user adds
	Own   []string                    // folders of ebb's: caches, results of builds
}

// Fence is what one project may have read:
//
//   - what is in the folder that holds it: its repository, the workspace it belongs to, or its own folder, but for the credentials of the repository
//     and what ebb keeps there; in a home that is itself a project, nothing hidden;
//   - installed packages, below a folder node_modules, and what is in Own and in the stores of package managers;
//   - what is beside it, in a folder above both that is nobody's home, without a hidden folder on the way;
//   - a package below a home (a folder with a package.json or the like), without a hidden folder on the way from there: linked packages;
//   - what the user allows.
type Fence struct {
	root, area   string
	homes        []string // of the environment, beside those that runtimes.Personal knows
	allow, owned []string
}

// New returns the Fence of a project. Relative paths are those of this process's folder.
func New(o Options) *Fence {
	root := real(o.Root)
	f := &Fence{root: root, area: Area(root)}
	get := func(name string) string {
		if o.Env == nil {
			return ""
		}
		v, _ := o.Env(name)
		return v
	}
	if home := get("HOME"); filepath.IsAbs(home) {
		f.homes = append(f.homes, filepath.Clean(home), real(home))
		for _, store := range []string{".local/share/pnpm", ".pnpm-store", ".bun/install", ".yarn/berry", ".cache/uv", "go/pkg/mod"} {
			f.owned = append(f.owned, real(filepath.Join(home, filepath.FromSlash(store))))
		}
	}
	for _, name := range []string{"PNPM_HOME", "GOMODCACHE", "UV_CACHE_DIR"} {
		if dir := get(name); filepath.IsAbs(dir) && !f.personal(filepath.Clean(dir)) {
			f.owned = append(f.owned, real(dir))
		}
	}
	for _, dir := range o.Own {
		f.owned = append(f.owned, real(dir))
	}
	return f.Allowing(o.Allow...)
}

// Allowing returns a Fence that has these files and folders inside too.
func (f *Fence) Allowing(paths ...string) *Fence {
	wider := *f
	wider.allow = slices.Clone(f.allow)
	for _, p := range paths {
		wider.allow = append(wider.allow, real(p))
	}
	return &wider
}

// Allowed are the files and folders that are inside because the user, or ebb, has said so.
func (f *Fence) Allowed() []string { return slices.Clone(f.allow) }

// Check is nil where a file or folder is inside the Fence. What is not there is judged by the path it would have.
func (f *Fence) Check(path string) error {
	at := real(path)
	why := f.why(at)
	if why == "" {
		return nil
	}
	name := path
	if at != path {
		name += " (" + at + ")"
	}
	return errs.New(errs.Forbidden, "%s is none of the project's files: %s", name, why).
		WithHint("Allow it with `--allow-files %s` if the project may have what is in there; what a project reads, it may send away.", at)
}

// why is the reason why a real path is outside, or "".
func (f *Fence) why(at string) string {
	if slices.ContainsFunc(f.allow, func(dir string) bool { return within(at, dir) }) || slices.ContainsFunc(f.owned, func(dir string) bool { return within(at, dir) }) {
		return ""
	}
	parts := strings.Split(at, string(filepath.Separator))
	switch {
	case slices.Contains(parts, ".ebb"):
		return "ebb keeps keys and data there"
	case credentials(parts):
		return "it may hold the credentials of a repository"
	case slices.Contains(parts, "node_modules"):
		return ""
	case within(at, f.area) && !f.personal(f.area):
		return ""
	case within(at, f.area):
		if !hidden(f.area, at) {
			return ""
		}
		return "it is hidden in a home"
	}
	shared := common(f.area, at)
	switch {
	case f.shareable(shared) && !hidden(shared, at):
		return ""
	case f.linked(at):
		return ""
	case hidden(shared, at):
		return "it is outside of " + f.area + " and hidden"
	}
	return "it is outside of " + f.area
}

// credentials says whether a path is one of a repository's files that hold tokens.
func credentials(parts []string) bool {
	i := slices.Index(parts, ".git")
	return i >= 0 && i+1 < len(parts) && slices.ContainsFunc(parts[i+1:], func(p string) bool {
		return p == "config" || p == "config.worktree" || strings.HasSuffix(p, "credentials")
	})
}

// shareable says whether what is in a folder belongs together.
func (f *Fence) shareable(dir string) bool {
	return !f.personal(dir) && filepath.Dir(filepath.Dir(dir)) != filepath.Dir(dir) && !everybodys(dir)
}

// linked says whether a path is in a package of its own below a home.
func (f *Fence) linked(at string) bool {
	for dir := at; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if f.personal(dir) {
			return false
		}
		if !slices.ContainsFunc([]string{"package.json", "pyproject.toml", "setup.py", "go.mod"}, func(name string) bool { return isRegular(filepath.Join(dir, name)) }) {
			continue
		}
		for up := filepath.Dir(dir); up != filepath.Dir(up); up = filepath.Dir(up) {
			if f.personal(up) {
				return !hidden(up, at)
			}
		}
		return false
	}
	return false
}

// windowsHome is one that Linux on Windows has mounted.
var windowsHome = regexp.MustCompile(`^/mnt/[a-z](/Users(/[^/]+)?)?$`)

// personal says whether a folder is a home, or one above homes.
func (f *Fence) personal(dir string) bool {
	return runtimes.Personal(dir) || windowsHome.MatchString(dir) || slices.ContainsFunc(f.homes, func(home string) bool { return within(home, dir) })
}

// real is a clean absolute path without links. What is not there keeps its name below what is.
func real(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	rest := ""
	for at := abs; ; at = filepath.Dir(at) {
		if found, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(found, rest)
		}
		if at == filepath.Dir(at) {
			return abs
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}

// common is the deepest folder that two clean absolute paths are in.
func common(a, b string) string {
	for !within(b, a) {
		a = filepath.Dir(a)
	}
	return a
}

// hidden says whether a part of the way from a folder to what is below it begins with a dot.
func hidden(dir, at string) bool {
	rel, err := filepath.Rel(dir, at)
	if err != nil {
		return true
	}
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		if part != "." && strings.HasPrefix(part, ".") {
			return true
		}
	}
	return false
}

// everybodys says whether a folder is one where all users keep files: /tmp.
func everybodys(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Mode()&os.ModeSticky != 0 && info.Mode().Perm()&0o002 != 0
}

// within says whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}

func isRegular(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular()
}

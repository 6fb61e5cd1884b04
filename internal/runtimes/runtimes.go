// Package runtimes maps a runtime identifier ("nodejs18.x") to what is installed on this machine.
//
// Main type: [Finder]. Resolve gives the program to run for an identifier; List gives everything that was found.
//
// Guarantees:
//
//  1. Any version of Node or Python resolves while any is installed: the asked one, else the nearest newer, else the
//     nearest older. Found.Exact is false then, and Found.Note says what was asked, what runs, and how to get the asked one.
//  2. The program is a real interpreter that answered when it was asked for its version, named by an absolute path;
//     never a shim and never one of a virtual environment.
//  3. An interpreter is asked for its version once: answers are kept on disk by path, size and time of modification.
//
// Where it looks, in order: the folders in EBB_RUNTIMES, ebb's cache (<cache>/runtimes), version managers (nvm, fnm,
// volta, nodenv, pyenv, uv, asdf, mise), PATH, /usr/local/bin and /usr/bin. It installs nothing, and does not take
// Python 2, which no current tool speaks to.
package runtimes

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ebb-run/ebb/internal/errs"
)

// The families of runtimes.
const (
	Node     = "node"
	Python   = "python"
	Provided = "provided" // the code brings its own program
)

// Found is what runs a runtime identifier here.
type Found struct {
	Family  string
	Command []string // absolute path first; empty for Provided
	Version string   // "20.20.2"; empty for Provided
	Exact   bool     // the version asked for
	Note    string   // when not Exact: a sentence for people
}

// Finder finds runtimes. Safe for concurrent use.
type Finder struct {
	env   func(string) (string, bool)
	cache string
	// system and brew are the folders to look in beside those the environment names.
	system, brew []string

	scan sync.Mutex // one search at a time; held over I/O, never while mu is held
	mu   struct {
		sync.Mutex
		found map[string][]interpreter // by family
	}
}

type interpreter struct {
	path    string
	version version
}

type version [3]int

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// New returns a Finder that reads the given environment: PATH, HOME, EBB_RUNTIMES, EBB_CACHE and the version managers' own.
func New(env func(string) (string, bool)) *Finder {
	f := &Finder{env: env, cache: CacheDir(env), system: []string{"/usr/local/bin", "/usr/bin", "/opt/homebrew/bin"}, brew: []string{"/opt/homebrew/opt", "/usr/local/opt"}}
	f.mu.found = map[string][]interpreter{}
	return f
}

// CacheDir is ebb's folder for what can be made or fetched again: EBB_CACHE, else the user's cache folder.
func CacheDir(env func(string) (string, bool)) string {
	if d, ok := env("EBB_CACHE"); ok && filepath.IsAbs(d) {
		return d
	}
	if d, ok := env("XDG_CACHE_HOME"); ok && filepath.IsAbs(d) {
		return filepath.Join(d, "ebb")
	}
	home, ok := env("HOME")
	switch {
	case !ok || home == "":
		return filepath.Join(os.TempDir(), "ebb-cache-"+strconv.Itoa(os.Getuid()))
	case runtime.GOOS == "darwin":
		return filepath.Join(home, "Library", "Caches", "ebb")
	}
	return filepath.Join(home, ".cache", "ebb")
}

var (
	nodeID   = regexp.MustCompile(`^node(?:js)?(\d*)(?:\.(?:x|\d+))?(?:-edge)?$`)
	pythonID = regexp.MustCompile(`^python(\d+)(?:\.(\d+))?$`)
)

// Family gives the family of a runtime identifier without looking at the machine, or "" for one that has none here.
func Family(id string) string {
	switch {
	case nodeID.MatchString(id):
		return Node
	case pythonID.MatchString(id):
		return Python
	case id == "go1.x" || id == "provided" || strings.HasPrefix(id, "provided."):
		return Provided
	}
	return ""
}

// Wanted gives the version an identifier asks for; numbers it does not name are -1.
func Wanted(id string) (major, minor int) {
	number := func(s string) int {
		if n, err := strconv.Atoi(s); err == nil {
			return n
		}
		return -1
	}
	if m := nodeID.FindStringSubmatch(id); m != nil {
		return number(m[1]), -1
	}
	if m := pythonID.FindStringSubmatch(id); m != nil {
		return number(m[1]), number(m[2])
	}
	return -1, -1
}

// Resolve returns what runs the identifier here.
func (f *Finder) Resolve(ctx context.Context, id string) (Found, error) {
	family := Family(id)
	switch family {
	case Provided:
		return Found{Family: Provided, Exact: true}, nil
	case "":
		return Found{}, unknown(id)
	}
	list, err := f.interpreters(ctx, family)
	if err != nil {
		return Found{}, fmt.Errorf("find runtime %s: %w", id, err)
	}
	major, minor := Wanted(id)
	if len(list) == 0 {
		return Found{}, errs.New(errs.Unsupported, "%s needs %s, and none is installed here", id, title(family)).
			WithHint("%s", f.install(family, major, minor))
	}
	best, exact := choose(list, major, minor)
	if family == Python && major == 2 { // the newest is as far from Python 2 as any, and the best kept
		best, _ = choose(list, -1, -1)
	}
	found := Found{Family: family, Command: []string{best.path}, Version: best.version.String(), Exact: exact}
	if !exact {
		found.Note = fmt.Sprintf("%s asked for, running on %s %s. %s", id, title(family), found.Version, f.install(family, major, minor))
		if family == Python && major == 2 {
			found.Note = fmt.Sprintf("%s asked for, running on Python %s: code written for Python 2 (print statements, old imports) fails there. Port it to Python 3.", id, found.Version)
		}
	}
	return found, nil
}

// List returns every runtime that was found, by family, the newest first.
func (f *Finder) List(ctx context.Context) ([]Found, error) {
	var all []Found
	for _, family := range []string{Node, Python} {
		list, err := f.interpreters(ctx, family)
		if err != nil {
			return nil, fmt.Errorf("list runtimes: %w", err)
		}
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b interpreter) int { return slices.Compare(b.version[:], a.version[:]) })
		for _, i := range list {
			all = append(all, Found{Family: family, Command: []string{i.path}, Version: i.version.String(), Exact: true})
		}
	}
	return all, nil
}

// choose picks the asked version, else the nearest newer, else the nearest older. Of equal ones the first in the
// list is taken, of several patches the newest.
func choose(list []interpreter, major, minor int) (interpreter, bool) {
	line := func(v version) int { return v[0]*1000 + max(v[1], 0) } // major.minor as one number
	want := major * 1000
	if minor >= 0 {
		want += minor
	} else {
		line = func(v version) int { return v[0] * 1000 }
	}
	if major < 0 { // any version does: the newest
		want = 1 << 30
	}
	rank := func(i interpreter) (class, distance int) {
		switch n := line(i.version); {
		case n == want:
			return 0, 0
		case n > want:
			return 1, n - want
		default:
			return 2, want - n
		}
	}
	best := slices.MinFunc(list, func(a, b interpreter) int {
		ac, ad := rank(a)
		bc, bd := rank(b)
		return cmp.Or(cmp.Compare(ac, bc), cmp.Compare(ad, bd), slices.Compare(b.version[:], a.version[:]))
	})
	class, _ := rank(best)
	return best, class == 0 || major < 0
}

func title(family string) string {
	if family == Node {
		return "Node"
	}
	return "Python"
}

// install says how to get a version.
func (f *Finder) install(family string, major, minor int) string {
	want := ""
	if major >= 0 && !(family == Python && major == 2) {
		want = strconv.Itoa(major)
		if minor >= 0 {
			want += "." + strconv.Itoa(minor)
		}
	}
	if family == Node {
		if want == "" {
			want = "22"
		}
		if isDir(f.home("NVM_DIR", ".nvm")) {
			return "Install it with `nvm install " + want + "`."
		}
		if major >= 0 && major < 14 {
			return "Its line has ended; a newer runtime in the project file is the mend."
		}
		return fmt.Sprintf("Install it with `npm install --prefix %s node@%s`.", filepath.Join(f.cache, "runtimes", "node"+want), want)
	}
	if want == "" {
		want = "3.13"
	}
	if isDir(f.home("PYENV_ROOT", ".pyenv")) {
		return "Install it with `pyenv install " + want + "`."
	}
	return fmt.Sprintf("Install it with `uv python install %s` or the system's package python%s.", want, want)
}

func unknown(id string) error {
	for prefix, mend := range map[string]string{
		"java":   "Java",
		"ruby":   "Ruby",
		"dotnet": ".NET",
	} {
		if strings.HasPrefix(id, prefix) {
			return errs.New(errs.Unsupported, "the runtime %s has no engine here: %s functions do not run on ebb yet", id, mend).
				WithHint("A program that speaks the Lambda Runtime API runs as `provided.al2023`.")
		}
	}
	if id == "" {
		return errs.New(errs.Invalid, "no runtime is named").WithHint("Set one, like `nodejs22.x` or `python3.13`.")
	}
	return errs.New(errs.Unsupported, "the runtime %q is not known", id).
		WithHint("Known are nodejs<N>.x, python3.<N>, provided.*, and go1.x.")
}

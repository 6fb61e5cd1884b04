package fence

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/ebb-run/ebb/internal/runtimes"
)

// Area is the folder that holds all of a project: its repository, else the workspace that it belongs to, else its own. A home is none, whatever is
// kept in it.
func Area(dir string) string {
	dir = real(dir)
	if top := Repository(dir); top != "" {
		return top
	}
	if top := Workspace(dir); top != "" && !everybodys(top) {
		return top
	}
	return dir
}

// Repository is the folder at or above dir, a path without links, that holds a history, or "". It looks no further than a home, or a folder that
// everybody may write to: a history there is not that of the project.
func Repository(dir string) string {
	for at := dir; at != filepath.Dir(at) && !runtimes.Personal(at) && (at == dir || !everybodys(at)); at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return at
		}
	}
	return ""
}

// Workspace returns the folder above dir whose workspaces dir belongs to, or "". Dependencies of a member must be installed
// there: only there a name means the package beside it, and not a stranger's of the same name in the public registry. A home is none.
func Workspace(dir string) string {
	for at := filepath.Dir(dir); at != filepath.Dir(at) && !runtimes.Personal(at); at = filepath.Dir(at) {
		rel, err := filepath.Rel(at, dir)
		if err != nil {
			return ""
		}
		if isRegular(filepath.Join(at, "pnpm-workspace.yaml")) || inSpaces(spaces(at), filepath.ToSlash(rel)) {
			return at
		}
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return "" // another repository's folders say nothing
		}
	}
	return ""
}

// maxPackage is the largest package.json that is looked into, in bytes.
const maxPackage = 4 << 20

// spaces gives the workspaces of the package.json in a folder.
func spaces(dir string) json.RawMessage {
	name := filepath.Join(dir, "package.json")
	if !isRegular(name) { // opening a pipe would wait
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var p struct {
		Spaces json.RawMessage `json:"workspaces"`
	}
	if json.NewDecoder(io.LimitReader(f, maxPackage)).Decode(&p) != nil {
		return nil
	}
	return p.Spaces
}

// inSpaces says whether the workspaces of a package.json, a list or {"packages": list}, include the folder.
func inSpaces(spaces json.RawMessage, rel string) bool {
	var patterns []string
	if json.Unmarshal(spaces, &patterns) != nil {
		var form struct{ Packages []string }
		if json.Unmarshal(spaces, &form) != nil {
			return false
		}
		patterns = form.Packages
	}
	in := false
	for _, p := range patterns {
		no := strings.HasPrefix(p, "!")
		p = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(p, "!"), "./"), "/")
		if ok, err := doublestar.Match(p, rel); err == nil && ok {
			in = !no
		}
	}
	return in
}

package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/ebb-run/ebb/internal/errs"
)

// workspaceRoot returns the folder above dir whose workspaces dir belongs to, or "". Dependencies of a member must be installed
// there: only there a name means the package beside it, and not a stranger's of the same name in the public registry.
func workspaceRoot(dir string) string {
	for at := filepath.Dir(dir); at != filepath.Dir(at); at = filepath.Dir(at) {
		rel, err := filepath.Rel(at, dir)
		if err != nil {
			return ""
		}
		if isRegular(filepath.Join(at, "pnpm-workspace.yaml")) {
			return at
		}
		if p, err := readPackage(at); err == nil && inSpaces(p.Spaces, filepath.ToSlash(rel)) {
			return at
		}
		if _, err := os.Stat(filepath.Join(at, ".git")); err == nil {
			return "" // another repository's folders say nothing
		}
	}
	return ""
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

// installWorkspace installs at the root what a member lacks.
func (b *builder) installWorkspace(root, dir string, p *packageJSON) error {
	if len(b.absent(dir, p)) == 0 {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(root, "package.json"))
	if err != nil {
		return errs.New(errs.Invalid, "read the workspace's package.json: %w", err)
	}
	rp, err := readPackage(root)
	if err != nil {
		return errs.New(errs.Invalid, "the workspace's package.json is not valid JSON: %w", err)
	}
	tool, lock := toolOf(root)
	if isRegular(filepath.Join(root, "pnpm-workspace.yaml")) {
		tool = "pnpm"
	}
	end := b.step("install", "", tool+" install in the workspace "+root)
	err = b.installWith(tool, root, rp, data, lock != "")
	end()
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	left := b.absent(dir, p)
	if len(left) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return errs.New(errs.Failed, "the workspace %s does not install %s", root, strings.Join(left, ", ")).
		WithHint("Run `%s install` in %s and see what it says.", tool, root)
}

// toolOf returns the package manager whose lock file lies in dir, npm where there is none, and that file's text.
func toolOf(dir string) (tool, lock string) {
	for _, l := range locks {
		if text, err := os.ReadFile(filepath.Join(dir, l.file)); err == nil {
			return l.tool, string(text)
		}
	}
	return "npm", ""
}

package build

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
)

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

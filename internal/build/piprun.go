package build

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ebb-run/ebb/internal/runtimes"
)

// plainLine is a requirement by name, or one of what decides nothing but where it comes from.
var plainLine = regexp.MustCompile(`^(#.*|(-i|--index-url|--extra-index-url|--trusted-host|--hash|-r|--requirement|-c|--constraint)\b.*|[A-Za-z0-9][\w.-]*\s*(\[[\w\s,.-]*\])?\s*([=<>!~(;#\\].*)?)?$`)

// archiveName is what pip takes for a file where there is one of that name.
var archiveName = regexp.MustCompile(`(?i)^[^\s#;]*\.(zip|whl|tar|tgz|tbz|txz|tlz|bz2|gz|xz|lz|lzma)\b`)

// allPlain reports whether requirements are all by name: then pip, told to take built packages alone, runs nothing of theirs.
func allPlain(text string) bool {
	for line := range strings.Lines(text) {
		if l := strings.TrimSpace(line); !plainLine.MatchString(l) || archiveName.MatchString(l) || strings.Contains(l, "://") && l[0] != '-' && l[0] != '#' {
			return false
		}
	}
	return true
}

// pipRun runs pip in dir. requirements is the text of what it installs into target. With a Runner, packages that are built are fetched by
// themselves; only where that does not do may anything be built, which is to run code of theirs.
func (b *builder) pipRun(py runtimes.Found, dir, requirements, target string, args ...string) (string, error) {
	args = append(args, "--target", target)
	if b.confined() && allPlain(requirements) {
		if out, err := b.pipOnce(py, dir, target, true, append([]string{"--only-binary", ":all:"}, args...)); err == nil || b.ctx.Err() != nil {
			return out, err
		}
		list, _ := os.ReadDir(target)
		for _, d := range list {
			if d.Name() != "requirements.txt" {
				_ = os.RemoveAll(filepath.Join(target, d.Name()))
			}
		}
	}
	return b.pipOnce(py, dir, target, false, args)
}

func (b *builder) pipOnce(py runtimes.Found, dir, target string, fetches bool, args []string) (string, error) {
	all := append([]string{"-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--quiet",
		"--retries", "1", "--timeout", "15", "--no-warn-script-location"}, args...)
	if fetches { // else Python would take modules of the project's folder for pip's own
		all = append([]string{"-I", "-B"}, all...)
	}
	return b.run(command{dir: dir, name: py.Command[0], args: all, env: []string{"PYTHONDONTWRITEBYTECODE=1"},
		fetches: fetches, outside: within(dir, target), writes: []string{target}})
}

// requirementFiles refuses requirements, and files they refer to, that the project may not have read: their lines become the names that an index is
// asked for.
func (b *builder) requirementFiles(file, text string, depth int) error {
	if err := b.fence.Check(file); err != nil {
		return err
	}
	for _, m := range includeLine.FindAllStringSubmatch(text, 20) {
		name := m[1]
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), name)
		}
		if !isRegular(name) || depth > 5 {
			continue
		}
		if data, err := os.ReadFile(name); err == nil {
			if err := b.requirementFiles(name, string(data), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

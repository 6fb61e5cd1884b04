package build

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/fence"
)

// locks are lock files, and the tool each belongs to.
var locks = []struct{ file, tool string }{
	{"package-lock.json", "npm"}, {"npm-shrinkwrap.json", "npm"}, {"pnpm-lock.yaml", "pnpm"}, {"yarn.lock", "yarn"},
}

// install brings the dependencies of the package.json in dir up to date, when they are not. An error is one the code
// cannot run with.
func (b *builder) install(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		return nil //nolint:nilerr // nothing to install from
	}
	for _, name := range []string{"package.json", ".npmrc"} { // parts of these are written to where scripts see them
		if err := b.inside(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	var p packageJSON
	if err := json.Unmarshal(data, &p); err != nil {
		return errs.New(errs.Invalid, "package.json is not valid JSON: %w", err)
	}
	if len(p.Deps)+len(p.Optional) == 0 && len(p.Spaces) == 0 {
		return nil
	}
	if root := fence.Workspace(dir); root != "" {
		return b.installWorkspace(root, dir, &p)
	}
	tool, lock := toolOf(dir)
	state := hash(depsText(&p), lock)
	key := "install:" + dir
	var done string
	absent := b.absent(dir, &p)
	if b.notes.get(key, &done) && done == state && len(absent) == 0 {
		return nil
	}
	if done == "" && len(absent) == 0 && b.fresh(dir, &p) { // the user installed it
		b.notes.put(key, state)
		return nil
	}
	end := b.step("install", "", fmt.Sprintf("%s install in %s", tool, b.place(dir)))
	err = b.installWith(tool, dir, &p, data, lock != "")
	end()
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	still := b.absent(dir, &p)
	if err != nil && len(still) > 0 {
		return err
	}
	if err != nil { // what the code needs is there all the same
		b.warnf(diag.Pos{File: b.rel(filepath.Join(dir, "package.json"))}, "install-failed", "",
			"dependencies could not be brought up to date, those installed are taken: %v", err)
	}
	b.notes.put(key, state)
	return nil
}

func (b *builder) place(dir string) string {
	if r := b.rel(dir); r != "." {
		return r
	}
	return filepath.Base(b.root)
}

func lockOf(tool string) string {
	for _, l := range locks {
		if l.tool == tool {
			return l.file
		}
	}
	return ""
}

// depsText is what of a package.json decides what is installed.
func depsText(p *packageJSON) string {
	text, err := json.Marshal([]any{p.Deps, p.Optional, p.Spaces})
	if err != nil {
		return ""
	}
	return string(text)
}

// absent gives the runtime dependencies that are not installed. SDKs are not among them: those can be supplied.
func (b *builder) absent(dir string, p *packageJSON) []string {
	var names []string
	for name := range p.Deps {
		if _, optional := p.Optional[name]; optional || isSDK(name) {
			continue
		}
		if _, ok := resolvePackage(dir, name); !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fresh says whether what is installed is what the lock file names, or without one no older than package.json.
func (b *builder) fresh(dir string, p *packageJSON) bool {
	var lock struct {
		Packages map[string]struct {
			Version string `json:"version"`
		} `json:"packages"`
	}
	if data, err := os.ReadFile(filepath.Join(dir, "package-lock.json")); err == nil && json.Unmarshal(data, &lock) == nil && len(lock.Packages) > 0 {
		for name := range p.Deps {
			want := lock.Packages["node_modules/"+name].Version
			at, ok := resolvePackage(dir, name)
			if !ok || want == "" {
				continue // an SDK, a link, a workspace
			}
			if have, err := readPackage(at); err != nil || have.Version != want {
				return false
			}
		}
		return true
	}
	modules := filepath.Join(dir, "node_modules")
	var at os.FileInfo
	for _, mark := range []string{".package-lock.json", ".yarn-integrity", ".yarn-state.yml", ".modules.yaml", ""} {
		if info, err := os.Stat(filepath.Join(modules, mark)); err == nil {
			at = info
			break
		}
	}
	if at == nil {
		return true // all is resolved from a folder above
	}
	for _, name := range []string{"package.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.ModTime().After(at.ModTime()) {
			return false
		}
	}
	return true
}

// installWith runs the tool. Only npm is asked to retry: it is what everybody has.
func (b *builder) installWith(tool, dir string, p *packageJSON, data []byte, locked bool) error {
	have := isFolder(filepath.Join(dir, "node_modules"))
	if tool != "npm" {
		args := []string{"install", "--frozen-lockfile"}
		if tool == "yarn" && isRegular(filepath.Join(dir, ".yarnrc.yml")) { // Yarn 2 and later
			args = []string{"install", "--immutable"}
		} else if !have {
			args = append(args, "--prod")
		}
		out, err := b.run(command{dir: dir, name: tool, args: args, env: []string{"CI=1", "YARN_NODE_LINKER=node-modules"}, pass: b.npmSecrets(dir), modules: true})
		if err == nil {
			return nil
		}
		if !missing(err) {
			b.show(out)
			return errs.New(errs.Failed, "%s cannot install the dependencies: %s", tool, lastLine(out, err)).
				WithHint("Run `%s install` in %s and see what it says.", tool, b.place(dir))
		}
		b.warnf(diag.Pos{File: b.rel(filepath.Join(dir, lockOf(tool)))}, "no-"+tool, fmt.Sprintf("Install it with `npm install -g %s`.", tool),
			"%s is not installed; npm installs the dependencies instead, in versions of its own choice", tool)
		locked = false
	}
	quiet := []string{"--no-audit", "--no-fund", "--no-progress", "--loglevel=error"}
	var first string
	if locked || have || len(p.Spaces) > 0 {
		args := append([]string{"install", "--no-save"}, quiet...)
		switch {
		case locked && !have:
			args = append([]string{"ci", "--omit=dev"}, quiet...)
		case !locked:
			args = append(args, "--no-package-lock")
		}
		out, err := b.npmInstall(dir, p, args, lifecycle)
		if err == nil {
			return nil
		}
		if b.ctx.Err() != nil || missing(err) {
			return noNpm(err)
		}
		first = out
		if have || len(p.Spaces) > 0 {
			b.show(out)
			return npmError(out, dir)
		}
	}
	return b.installStaged(dir, p, data, quiet, first)
}

// installStaged installs in a folder of its own, with a package.json that holds runtime dependencies alone, and moves node_modules
// to its place when it is whole. What the code can do without is dropped when it cannot be installed.
func (b *builder) installStaged(dir string, p *packageJSON, data []byte, quiet []string, first string) error {
	stage := filepath.Join(b.o.Work, "npm-"+hash(dir)[:12])
	defer os.RemoveAll(stage)
	drop := map[string]bool{}
	for {
		if err := b.stagePackage(stage, dir, p, data, drop); err != nil {
			return fmt.Errorf("stage dependencies: %w", err)
		}
		out, err := b.npmInstall(stage, p, append([]string{"install", "--omit=dev", "--no-package-lock"}, quiet...), nil)
		if err == nil {
			break
		}
		if b.ctx.Err() != nil || missing(err) {
			return noNpm(err)
		}
		name := offender(out, p)
		_, optional := p.Optional[name]
		if name == "" || drop[name] || !optional && !isSDK(name) {
			if first == "" {
				first = out
			}
			b.show(out)
			return npmError(out, dir)
		}
		drop[name] = true
		b.warnf(diag.Pos{File: b.rel(filepath.Join(dir, "package.json"))}, "dependency-left-out", "",
			"%s cannot be installed and is left out: %s", name, npmReason(out))
	}
	if err := moveModules(os.Rename, filepath.Join(stage, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		return fmt.Errorf("put node_modules in its place: %w", err)
	}
	if script := p.Scripts["postinstall"]; script != "" {
		if out, err := b.run(b.npmCommand(dir, []string{"run", "--silent", "postinstall"})); err != nil {
			b.show(out)
			b.warnf(diag.Pos{File: b.rel(filepath.Join(dir, "package.json"))}, "postinstall-failed", "", "the postinstall script failed: %s", lastLine(out, err))
		}
	}
	return nil
}

// moveModules moves a node_modules folder, with the links it holds to folders elsewhere. rename is os.Rename.
func moveModules(rename func(from, to string) error, from, to string) error {
	err := rename(from, to)
	if errors.Is(err, syscall.EXDEV) {
		err = copyModules(rename, from, to)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was to be installed
	}
	if err != nil {
		return err
	}
	for _, pattern := range []string{"*", "@*/*"} {
		list, _ := filepath.Glob(filepath.Join(globMeta.ReplaceAllString(to, `\$0`), pattern))
		for _, link := range list {
			target, err := os.Readlink(link)
			if err != nil || filepath.IsAbs(target) {
				continue
			}
			inner, _ := filepath.Rel(to, filepath.Dir(link))
			abs := filepath.Join(from, inner, target)
			if within(abs, from) {
				continue
			}
			short, err := filepath.Rel(filepath.Dir(link), abs)
			if err != nil {
				return err
			}
			if err := os.Remove(link); err != nil {
				return err
			}
			if err := os.Symlink(short, link); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyModules brings a node_modules folder over from another disk: into an .ebb folder beside its place, which is neither watched nor
// packaged, so that it stands whole at its place or not at all.
func copyModules(rename func(from, to string) error, from, to string) error {
	own := filepath.Join(filepath.Dir(to), ".ebb")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	defer os.Remove(own) // goes when it is empty: it was made for this
	tmp, err := os.MkdirTemp(own, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	copied := filepath.Join(tmp, "node_modules")
	if err := os.CopyFS(copied, os.DirFS(from)); err != nil {
		return err
	}
	return rename(copied, to)
}

var globMeta = regexp.MustCompile(`[*?\[\\]`)

// stagePackage writes the package.json to install from.
func (b *builder) stagePackage(stage, dir string, p *packageJSON, data []byte, drop map[string]bool) error {
	if err := os.RemoveAll(stage); err != nil {
		return err
	}
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	only := func(deps stringMap) map[string]string {
		out := map[string]string{}
		for name, spec := range deps {
			if drop[name] {
				continue
			}
			if path, ok := strings.CutPrefix(spec, "file:"); ok && !filepath.IsAbs(path) {
				spec = "file:" + filepath.Join(dir, path)
			}
			out[name] = spec
		}
		return out
	}
	staged := map[string]any{"name": "staged", "version": "0.0.0", "private": true,
		"dependencies": only(p.Deps), "optionalDependencies": only(p.Optional)}
	for _, key := range []string{"overrides", "engines", "config"} {
		if v, ok := all[key]; ok {
			staged[key] = v
		}
	}
	text, err := json.MarshalIndent(staged, "", "  ")
	if err != nil {
		return err
	}
	if rc, err := os.ReadFile(filepath.Join(dir, ".npmrc")); err == nil {
		if err := os.WriteFile(filepath.Join(stage, ".npmrc"), rc, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(stage, "package.json"), text, 0o644)
}

var npmrcVar = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\??\}`)

// npmSecrets are the variables that .npmrc files name: how a private registry is told who asks.
func (b *builder) npmSecrets(dir string) []string {
	files := []string{filepath.Join(dir, ".npmrc"), filepath.Join(b.root, ".npmrc")}
	if home, ok := b.o.Env("HOME"); ok {
		files = append(files, filepath.Join(home, ".npmrc"))
	}
	var names []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, m := range npmrcVar.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

func noNpm(err error) error {
	if missing(err) {
		return errs.New(errs.Unsupported, "the dependencies have to be installed, and npm is not there").
			WithHint("Install Node with npm, or install the dependencies yourself.")
	}
	return err
}

func npmError(out, dir string) error {
	e := errs.New(errs.Failed, "npm cannot install the dependencies: %s", npmReason(out))
	if strings.Contains(out, "ENOTFOUND") || strings.Contains(out, "EAI_AGAIN") || strings.Contains(out, "ECONNREFUSED") || strings.Contains(out, "ETIMEDOUT") {
		return e.WithHint("The registry cannot be reached: check the network, HTTPS_PROXY and npm's registry setting.")
	}
	return e.WithHint("Run `npm install` in %s and see what it says.", dir)
}

var (
	npmPrefix  = regexp.MustCompile(`(?m)^npm (?:error|ERR!) ?`)
	npmNoise   = regexp.MustCompile(`^(code|errno|syscall|path|command|A complete log|\d+ verbose|fetch failed with|This is a|If you are behind|signal|$)`)
	npmMissing = regexp.MustCompile(`No matching version found for (@?[^@\s]+)@|'((?:@[^/'\s]+/)?[^@'\s]+)@[^']*' is not in this registry|404 Not Found - GET \S*?/((?:@[^/\s]+(?:/|%2[fF]))?[^/\s]+) - |Invalid package name "([^"]+)"|notsup Unsupported platform for (@?[^@\s]+)@`)
	npmCause   = regexp.MustCompile(`(?m)^npm (?:error|ERR!) (?:gyp ERR! stack )?((?:\w*Error: |sh: |\S+: not found|.*fatal error: ).*)$`)
	npmPath    = regexp.MustCompile(`(?m)^npm (?:error|ERR!) path \S*?/node_modules/((?:@[^/\s]+/)?[^/\s]+)`)
)

// npmReason gives npm's reason in one line.
func npmReason(out string) string {
	code, reason := "", ""
	for line := range strings.Lines(out) {
		loc := npmPrefix.FindStringIndex(line)
		if loc == nil {
			continue
		}
		text := strings.TrimSpace(line[loc[1]:])
		if c, ok := strings.CutPrefix(text, "code "); ok && code == "" {
			code = c
			continue
		}
		if npmNoise.MatchString(text) {
			continue
		}
		if reason == "" {
			reason = text
		}
	}
	if m := npmPath.FindStringSubmatch(out); m != nil && strings.Contains(out, "command failed") {
		code, reason = "", "the install script of "+m[1]+" fails"
		if cause := npmCause.FindStringSubmatch(out); cause != nil {
			reason += ": " + strings.TrimSpace(cause[1])
		}
	}
	switch {
	case reason == "":
		reason = lastLine(out, nil)
	case code != "" && !strings.Contains(strings.ToLower(reason), strings.ToLower(strings.TrimPrefix(code, "E"))):
		reason = code + ": " + reason
	}
	if reason == "" {
		reason = code
	}
	if len(reason) > 300 {
		reason = reason[:300] + "…"
	}
	return reason
}

// offender names the dependency that npm stumbled over, where it is one of package.json's own.
func offender(out string, p *packageJSON) string {
	var names []string
	for _, m := range npmMissing.FindAllStringSubmatch(out, -1) {
		for _, n := range m[1:] {
			if n != "" {
				names = append(names, strings.NewReplacer("%2f", "/", "%2F", "/").Replace(n))
			}
		}
	}
	for _, m := range npmPath.FindAllStringSubmatch(out, -1) {
		names = append(names, m[1])
	}
	for _, n := range names {
		if _, ok := p.Optional[n]; ok {
			return n
		}
		if _, ok := p.Deps[n]; ok {
			return n
		}
	}
	return ""
}

// lastLine gives the last line that says something.
func lastLine(out string, err error) string {
	lines := strings.Split(out, "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(lines[i]); l != "" {
			if len(l) > 300 {
				l = l[:300] + "…"
			}
			return l
		}
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func isFolder(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.IsDir()
}

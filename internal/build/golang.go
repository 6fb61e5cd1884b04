package build

import (
	"debug/elf"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
)

// goProgram compiles the Go program of a Function and returns where it is.
func (b *builder) goProgram(f *app.Function, base string, src []string, state string) (string, error) {
	pkg, err := b.goMain(f, base, src)
	if err != nil {
		return "", err
	}
	arch := b.goArch(f)
	out := filepath.Join(b.o.Work, "go", hash(base, pkg, arch)[:16], "bootstrap")
	key := "go:" + out
	var done string
	if b.notes.get(key, &done) && done == state && isRegular(out) {
		return out, nil
	}
	defer b.step("compile", f.Key, "go build "+b.rel(filepath.Join(base, pkg)))()
	dir := base
	if !b.hasModule(base) {
		if dir, err = b.legacyModule(base, src, state); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return "", err
	}
	text, err := b.goRun(dir, arch, "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./"+filepath.ToSlash(pkg))
	if err != nil && (strings.Contains(text, "missing go.sum entry") || strings.Contains(text, "updates to go.mod needed") || strings.Contains(text, "go mod tidy")) {
		text, err = b.goRun(dir, arch, "build", "-mod=mod", "-modfile="+b.modCopy(dir), "-trimpath", "-ldflags=-s -w", "-o", out, "./"+filepath.ToSlash(pkg))
	}
	switch {
	case b.ctx.Err() != nil:
		return "", b.ctx.Err()
	case missing(err):
		return "", errs.New(errs.Unsupported, "its Go sources have to be compiled, and go is not installed").
			WithHint("Install Go, or build the program %s yourself.", programPath(f))
	case err != nil:
		if b.goDiagnostics(base, dir, text) {
			return "", errs.New(errs.Failed, "go build failed")
		}
		b.show(text)
		return "", errs.New(errs.Failed, "go build: %s", goReason(text, err))
	}
	b.notes.put(key, state)
	return out, nil
}

func (b *builder) goRun(dir, arch string, args ...string) (string, error) {
	// It compiles, with nothing of the project or its dependencies running: no cgo, no generators.
	c := command{dir: dir, name: "go", args: args, env: []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOWORK=" + b.goWork(dir)}, fetches: true}
	if within(dir, b.o.Work) {
		c.outside, c.writes = true, []string{dir}
	}
	for i, a := range args {
		if file, ok := strings.CutPrefix(a, "-modfile="); ok && within(file, b.o.Work) {
			c.writes = append(c.writes, filepath.Dir(file))
		}
		if a == "-o" {
			c.writes = append(c.writes, filepath.Dir(args[i+1]))
		}
	}
	if b.confined() {
		for _, d := range b.goModules(dir) {
			if !within(d, b.root) {
				c.shows = append(c.shows, d)
			}
		}
	}
	return b.run(c)
}

// goWork keeps a workspace file above the project from deciding how it is built.
func (b *builder) goWork(dir string) string {
	for d := dir; within(d, b.root); d = filepath.Dir(d) {
		if p := filepath.Join(d, "go.work"); isRegular(p) {
			return p
		}
	}
	return "off"
}

// goArch is the processor a program has to be for: that of the place it will run at, whatever the cloud's would be.
func (b *builder) goArch(f *app.Function) string {
	names := map[string]string{"x86_64": "amd64", "amd64": "amd64", "arm64": "arm64", "aarch64": "arm64"}
	arch := names[b.o.Arch]
	if arch == "" {
		arch = runtime.GOARCH
	}
	if asked := names[f.Arch]; asked != "" && asked != arch {
		b.notef(diag.Pos{}, "other-processor", "", "function %q asks for %s; it is compiled for %s, which it runs on here", f.Key, f.Arch, arch)
	}
	return arch
}

// runsOn says whether a program is for the processor; what is no ELF file is a script, which runs anywhere.
func runsOn(file, arch string) bool {
	f, err := elf.Open(file)
	if err != nil {
		return true
	}
	defer f.Close()
	switch f.Machine {
	case elf.EM_X86_64:
		return arch == "amd64"
	case elf.EM_AARCH64:
		return arch == "arm64"
	}
	return true
}

func (b *builder) hasModule(base string) bool {
	for d := base; within(d, b.root); d = filepath.Dir(d) {
		if isRegular(filepath.Join(d, "go.mod")) {
			return true
		}
	}
	return false
}

// modCopy is a copy of go.mod and go.sum that a build may complete, so that the user's stay as they are.
func (b *builder) modCopy(dir string) string {
	for d := dir; within(d, b.root); d = filepath.Dir(d) {
		mod, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err != nil {
			continue
		}
		to := filepath.Join(b.o.Work, "gomod-"+hash(d)[:12])
		sum, _ := os.ReadFile(filepath.Join(d, "go.sum"))
		if writeFile(filepath.Join(to, "go.mod"), mod) != nil || writeFile(filepath.Join(to, "go.sum"), sum) != nil {
			break
		}
		return filepath.Join(to, "go.mod")
	}
	return filepath.Join(dir, "go.mod")
}

var packageMain = regexp.MustCompile(`(?m)^package main\b`)

// goMain finds the main package, or the one file of it, that a handler means: by name, else the only one there is.
func (b *builder) goMain(f *app.Function, base string, src []string) (string, error) {
	want := path.Base(path.Clean(f.Handler))
	dirs := map[string][]string{} // folder → its main files
	for _, p := range src {
		if !strings.HasSuffix(p, ".go") || !within(p, base) {
			continue
		}
		rel, err := filepath.Rel(base, p)
		if err != nil || strings.HasPrefix(rel, "vendor"+string(filepath.Separator)) {
			continue
		}
		text, err := os.ReadFile(p)
		if err == nil && packageMain.Match(text) {
			d := filepath.Dir(rel)
			dirs[d] = append(dirs[d], rel)
		}
	}
	var byDir, byFile, all []string
	for d, files := range dirs {
		all = append(all, d)
		if filepath.Base(d) == want || filepath.ToSlash(d) == path.Clean(f.Handler) {
			byDir = append(byDir, d)
		}
		for _, p := range files {
			if strings.TrimSuffix(filepath.Base(p), ".go") == want && len(files) > 1 {
				byFile = append(byFile, p)
			}
		}
	}
	slices.Sort(all)
	switch {
	case len(byDir) == 1:
		return byDir[0], nil
	case len(byFile) == 1:
		return byFile[0], nil
	case len(all) == 1:
		return all[0], nil
	case len(byDir) > 1:
		slices.SortFunc(byDir, func(a, b string) int { return len(a) - len(b) })
		return byDir[0], nil
	case len(all) == 0:
		return "", errs.New(errs.Invalid, "its Go sources hold no package main")
	}
	if dirs["."] != nil {
		return ".", nil
	}
	return "", errs.New(errs.Invalid, "none of its Go programs is named like the handler %q", f.Handler).
		WithHint("Programs here: %s. Build the right one to %s, or name the handler after it.", strings.Join(all, ", "), programPath(f))
}

// legacyModule makes a module of a project from before modules, in a copy.
func (b *builder) legacyModule(base string, src []string, state string) (string, error) {
	dir := filepath.Join(b.o.Work, "gopath-"+hash(base)[:12])
	key := "gopath:" + base
	var done string
	if b.notes.get(key, &done) && done == state && isFolder(dir) {
		return dir, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	for _, p := range slices.Concat(src, embedded(src)) {
		rel, err := filepath.Rel(base, p)
		if err != nil || !filepath.IsLocal(rel) || goOnly(p) && !strings.HasSuffix(p, ".go") || strings.HasPrefix(rel, "vendor"+string(filepath.Separator)) {
			continue
		}
		if err := b.fence.Check(p); err != nil { // by a link: the copy is a file that go takes
			return "", err
		}
		if err := copyFile(p, filepath.Join(dir, rel)); err != nil {
			return "", err
		}
	}
	if text, err := b.goRun(dir, runtime.GOARCH, "mod", "init", b.moduleName(base, src)); err != nil {
		if missing(err) {
			return "", errs.New(errs.Unsupported, "its Go sources have to be compiled, and go is not installed")
		}
		return "", errs.New(errs.Failed, "go mod init: %s", lastLine(text, err))
	}
	if text, err := b.goRun(dir, runtime.GOARCH, "mod", "tidy", "-e"); err != nil {
		b.show(text)
		return "", errs.New(errs.Failed, "this project is from before Go modules, and go mod tidy cannot find what it needs: %s", goReason(text, err)).
			WithHint("Run `go mod init` and `go mod tidy` in %s.", b.place(base))
	}
	b.notef(diag.Pos{File: b.rel(base)}, "no-go-module", fmt.Sprintf("Run `go mod init` and `go mod tidy` in %s to choose the versions yourself.", b.place(base)),
		"the project has no go.mod; the newest versions of its dependencies are taken")
	b.notes.put(key, state)
	return dir, nil
}

var goImport = regexp.MustCompile(`(?m)^\s*(?:import\s+)?(?:[\w.]+\s+)?"([^"\s]+)"\s*$`)

// moduleName is the path by which the sources import each other, cut off before the folder's own part.
func (b *builder) moduleName(base string, src []string) string {
	dirs := map[string]bool{}
	for _, p := range src {
		if rel, err := filepath.Rel(base, filepath.Dir(p)); err == nil && strings.HasSuffix(p, ".go") && filepath.IsLocal(rel) && rel != "." {
			dirs[filepath.ToSlash(rel)] = true
		}
	}
	votes := map[string]int{}
	for _, p := range src {
		text, err := os.ReadFile(p)
		if err != nil || !strings.HasSuffix(p, ".go") {
			continue
		}
		for _, m := range goImport.FindAllStringSubmatch(string(text), -1) {
			for d := range dirs {
				if module, ok := strings.CutSuffix(m[1], "/"+d); ok {
					votes[module]++
				}
			}
		}
	}
	best := "ebb.local/" + path.Base(filepath.ToSlash(base))
	for _, m := range slices.Sorted(maps.Keys(votes)) {
		if votes[m] > votes[best] || votes[m] == votes[best] && len(m) > len(best) {
			best = m
		}
	}
	return best
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

var goLine = regexp.MustCompile(`(?m)^(?:\./)?([^\s:]+\.go):(\d+)(?::(\d+))?: (.*)$`)

// goDiagnostics turns the compiler's lines into diagnostics, and says whether there were any.
func (b *builder) goDiagnostics(base, dir, out string) bool {
	found := false
	for _, m := range goLine.FindAllStringSubmatch(out, 20) {
		file := m[1]
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		if rel, err := filepath.Rel(dir, file); err == nil && filepath.IsLocal(rel) {
			file = filepath.Join(base, rel) // the copy's lines are the original's
		}
		pos := diag.Pos{File: b.rel(file)}
		fmt.Sscan(m[2], &pos.Line)
		fmt.Sscan(m[3], &pos.Col)
		b.errorf(pos, "compile", "", "%s", strings.TrimSuffix(m[4], "; to add it:"))
		found = true
	}
	return found
}

// goReason gives go's reason in one line: its first that is not a heading or progress.
func goReason(out string, err error) string {
	for line := range strings.Lines(out) {
		l := strings.TrimSpace(line)
		if l != "" && !strings.HasPrefix(l, "#") && !strings.HasPrefix(l, "go: downloading") && !strings.HasPrefix(l, "go: finding") && !strings.HasPrefix(l, "go: found") && !strings.HasPrefix(l, "go: warning") {
			if len(l) > 300 {
				l = l[:300] + "…"
			}
			return l
		}
	}
	return lastLine(out, err)
}

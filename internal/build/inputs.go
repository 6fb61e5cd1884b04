package build

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/runtimes"
)

// largeInput is the size above which a file of no source's kind is told by its size and time: reading it would take longer than
// the build.
const largeInput = 32 << 20

// notInput says whether a folder's files decide no build: what tools keep for themselves.
func notInput(name string) bool {
	switch name {
	case ".git", "node_modules", ".ebb", ".serverless":
		return true
	}
	return false
}

// inputs is all that may decide the outcome of a compiler's or a Makefile's run.
type inputs struct {
	dirs  []string          // the module's folder, and those of the local modules it uses
	files map[string]string // below dirs, with what changes with their content
	state string            // digest of all
}

// goInputs looks at everything below the module that base is in, and below the local modules it is told to use. src are the Go
// sources, which are among these.
func (b *builder) goInputs(base string, src []string) (*inputs, error) {
	sources, err := b.digestOf(src)
	if err != nil {
		return nil, err
	}
	for _, d := range b.allModules(base) {
		if err := b.fence.Check(d); err != nil {
			return nil, errs.New(errs.Forbidden, "a Go module that go.mod or go.work names: %w", err)
		}
	}
	in := &inputs{dirs: b.goModules(base)}
	for _, d := range in.dirs {
		if !within(d, b.root) {
			b.watch[d] = true
		}
	}
	in.files = b.filesBelow(in.dirs)
	parts := []string{sources}
	for _, p := range slices.Sorted(maps.Keys(in.files)) {
		parts = append(parts, p, in.files[p])
	}
	in.state = hash(parts...)
	return in, nil
}

// ran takes note of the files that a Makefile has written in the project: they are no inputs from now on. A file that the user writes
// meanwhile must not be taken for one of these: of files that were there, and of kinds that were there, only what is never a
// source counts.
func (in *inputs) ran(b *builder) {
	clear(b.below)
	kinds := map[string]bool{}
	for p := range in.files {
		kinds[filepath.Ext(p)] = true
	}
	var made []string
	key := "made:" + strings.Join(in.dirs, "\x00")
	b.notes.get(key, &made)
	for p, sum := range b.filesBelow(in.dirs) {
		ext := filepath.Ext(p)
		if old, was := in.files[p]; old != sum && (neverSource(ext) || !was && !kinds[ext]) {
			made = append(made, p)
		}
	}
	slices.Sort(made)
	b.notes.put(key, slices.Compact(made))
	clear(b.below)
}

// neverSource says whether files of a kind are always made by a tool.
func neverSource(ext string) bool {
	return slices.Contains([]string{"", ".a", ".bin", ".d", ".exe", ".gz", ".jar", ".log", ".o", ".rlib", ".so", ".tar", ".tgz", ".wasm", ".zip"}, ext)
}

// outputs are the files that builds of this App make in the project.
func (b *builder) outputs() map[string]bool {
	out := map[string]bool{b.o.Work: true}
	for i := range b.app.Functions {
		f := &b.app.Functions[i]
		if runtimes.Family(f.Runtime) == runtimes.Provided && f.Package.Artifact == "" {
			out[filepath.Join(b.base(f), filepath.FromSlash(programPath(f)))] = true
		}
		if f.Package.Artifact != "" {
			out[b.artifactPath(f)] = true
		}
	}
	return out
}

func (b *builder) artifactPath(f *app.Function) string {
	if path.IsAbs(f.Package.Artifact) {
		return filepath.FromSlash(f.Package.Artifact)
	}
	return filepath.Join(b.root, filepath.FromSlash(f.Package.Artifact))
}

// filesBelow gives what identifies each file below folders, looked at once per run and again after a Makefile's. What cannot be read
// is left out: the tool will say it.
func (b *builder) filesBelow(dirs []string) map[string]string {
	key := strings.Join(dirs, "\x00")
	if files := b.below[key]; files != nil {
		return files
	}
	skip := b.outputs()
	var made []string
	b.notes.get("made:"+key, &made)
	for _, p := range made {
		skip[p] = true
	}
	files := map[string]string{}
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil || skip[p]:
				if d != nil && d.IsDir() {
					return fs.SkipDir
				}
			case d.IsDir():
				if p != dir && (notInput(d.Name()) || d.Name() == "target" && isRegular(filepath.Join(filepath.Dir(p), "Cargo.toml"))) {
					return fs.SkipDir
				}
			case !strings.HasSuffix(d.Name(), "_test.go"):
				if id := b.identity(p); id != "" {
					files[p] = id
				}
			}
			return nil
		})
	}
	b.below[key] = files
	return files
}

// identity changes with a file's content.
func (b *builder) identity(p string) string {
	info, err := os.Stat(p)
	if err != nil || !info.Mode().IsRegular() || b.skipped(info) {
		return ""
	}
	if info.Size() > largeInput {
		return strconv.FormatInt(info.Size(), 36) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 36)
	}
	sum, err := b.files.Sum(p)
	if err != nil {
		return ""
	}
	return sum
}

// skipped says whether a file is one that Options.Skip leaves out.
func (b *builder) skipped(info fs.FileInfo) bool {
	return slices.ContainsFunc(b.o.Skip, func(s fs.FileInfo) bool { return os.SameFile(s, info) })
}

// scan is artifact.Scan inside the fence, without the files that Options.Skip leaves out.
func (b *builder) scan(root string, keep func(p string, d fs.DirEntry) bool) (*artifact.Tree, error) {
	if len(b.o.Skip) == 0 {
		return artifact.ScanWithin(root, b.files, keep, b.reads(root))
	}
	return artifact.ScanWithin(root, b.files, func(p string, d fs.DirEntry) bool {
		if d.Type().IsRegular() {
			if info, err := d.Info(); err == nil && b.skipped(info) {
				return false
			}
		}
		return keep == nil || keep(p, d)
	}, b.reads(root))
}

// inside says whether a file or folder that is there, for all that is known, may be read.
func (b *builder) inside(file string) error {
	if !exists(file) {
		return nil
	}
	return b.fence.Check(file)
}

// reads is for artifact.ScanWithin. Hidden files of a package that is linked from elsewhere are left out, and said to be: each has some that only its
// tools read.
func (b *builder) reads(root string) func(file, path string, met bool) error {
	return func(file, path string, met bool) error {
		err := b.fence.Check(file)
		switch {
		case err == nil:
			return nil
		case met:
			b.notef(diag.Pos{File: b.rel(filepath.Dir(file))}, "hidden-left-out", errs.HintOf(err), "%s is outside of the project and hidden; it is not packaged", filepath.Base(file))
			return fs.SkipDir
		case path == ".":
			return err
		}
		e := errs.New(errs.Forbidden, "%s is a link that leads out: %w", b.rel(filepath.Join(root, filepath.FromSlash(path))), err)
		return e.WithHint("%s Or leave it out with a package pattern.", errs.HintOf(err))
	}
}

// goModules are those of allModules that the project may have read.
func (b *builder) goModules(base string) []string {
	return slices.DeleteFunc(b.allModules(base), func(d string) bool { return b.fence.Check(d) != nil })
}

// allModules gives the folder of the module that base is in, or base, and those of the modules that its go.mod or go.work puts in the
// place of others, none below another.
func (b *builder) allModules(base string) []string {
	dir := base
	for d := base; within(d, b.root); d = filepath.Dir(d) {
		if isRegular(filepath.Join(d, "go.mod")) {
			dir = d
			break
		}
	}
	dirs := append([]string{dir}, localModules(filepath.Join(dir, "go.mod"))...)
	if work := b.goWork(base); work != "off" {
		for _, d := range localModules(work) {
			dirs = append(dirs, d)
			dirs = append(dirs, localModules(filepath.Join(d, "go.mod"))...)
		}
	}
	slices.Sort(dirs)
	var top []string
	for _, d := range slices.Compact(dirs) {
		if isFolder(d) && !slices.ContainsFunc(top, func(t string) bool { return within(d, t) }) {
			top = append(top, d)
		}
	}
	return top
}

// localModules gives the folders that the replace and use lines of a go.mod or go.work name.
func localModules(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var dirs []string
	block := ""
	for line := range bytes.Lines(text) {
		l, _, _ := strings.Cut(string(line), "//")
		words := strings.Fields(l)
		switch {
		case len(words) == 0:
			continue
		case words[0] == ")":
			block = ""
			continue
		case len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case block != "":
			words = append([]string{block}, words...)
		}
		to := ""
		switch i := slices.Index(words, "=>"); {
		case words[0] == "use" && len(words) > 1:
			to = words[1]
		case words[0] == "replace" && i > 0 && i+1 < len(words):
			to = words[i+1]
		}
		if s, err := strconv.Unquote(to); err == nil {
			to = s
		}
		switch {
		case to == "." || to == ".." || strings.HasPrefix(to, "./") || strings.HasPrefix(to, "../"):
			dirs = append(dirs, filepath.Join(filepath.Dir(file), filepath.FromSlash(to)))
		case filepath.IsAbs(to):
			dirs = append(dirs, filepath.Clean(to))
		}
	}
	return dirs
}

// compiledExt says whether Go compiles or links files with the extension beside .go files.
func compiledExt(name string) bool {
	switch filepath.Ext(name) {
	case ".s", ".S", ".sx", ".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".m", ".f", ".F", ".for", ".f90", ".swig", ".swigcxx", ".syso":
		return true
	}
	return false
}

var goEmbed = regexp.MustCompile(`(?m)^[ \t]*//go:embed[ \t]+(.+)$`)

// embedded lists the files that Go sources embed, absolute.
func embedded(src []string) []string {
	var list []string
	for _, p := range src {
		if filepath.Ext(p) != ".go" {
			continue
		}
		text, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		for _, m := range goEmbed.FindAllStringSubmatch(string(text), -1) {
			for _, pattern := range embedPatterns(m[1]) {
				found, _ := filepath.Glob(filepath.Join(globMeta.ReplaceAllString(filepath.Dir(p), `\$0`), filepath.FromSlash(pattern)))
				for _, f := range found {
					list = append(list, filesOf(f)...)
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// embedPatterns splits what stands behind go:embed: names apart by spaces, quoted where they hold some.
func embedPatterns(line string) []string {
	var list []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		one := line
		if q, err := strconv.QuotedPrefix(line); err == nil {
			one = q
		} else if i := strings.IndexAny(line, " \t"); i >= 0 {
			one = line[:i]
		}
		line = line[len(one):]
		if s, err := strconv.Unquote(one); err == nil {
			one = s
		}
		list = append(list, strings.TrimPrefix(one, "all:"))
	}
	return list
}

// filesOf lists the files below a folder, or the file itself.
func filesOf(p string) []string {
	var list []string
	_ = filepath.WalkDir(p, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			list = append(list, p)
		}
		return nil
	})
	return list
}

package build

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/fence"
)

// Job is what tools do for one step of a build: programs, one after the other, on the same files.
type Job struct {
	Root    string // the project with all that belongs to it: its folder or one above; "" where none of it is needed
	Dir     string // where the programs run
	Steps   []Step
	Shows   []string // further files and folders that are read
	Writes  []string // folders, not among Root's own files, in which what is written stays
	Results []string // files and folders of Root that are brought back when all has gone well; what else is written in Root is thrown away
	Modules bool     // all folders node_modules below Dir are Results
	Offline bool     // nothing is connected to
	Git     bool     // the history is read, Root's .git
	Output  io.Writer
}

// Step is one program of a Job. All paths are absolute, and those of this machine.
type Step struct {
	Command []string
	Env     []string // the whole environment
	Keep    []string // names of variables that the operator lets every program see
	// Fetches says that the program only fetches and compiles: nothing of the project or of what it depends on runs in it. It may have
	// the credentials for registries, and the caches that projects share.
	Fetches bool
	// If says whether the step is needed, once those before it are done; nil means that it is. at gives where a path of Root is meanwhile.
	If func(at func(path string) string) bool
}

// Runner runs a Job where it can do no harm. An error that is none of the programs' (exit status) says why it could not.
type Runner func(ctx context.Context, j Job) error

// confined reports whether tools are given to a Runner. It is asked for with the first of them.
func (b *builder) confined() bool {
	if b.o.Runner != nil && !b.asked {
		b.asked = true
		b.runner, b.noRunner = b.o.Runner()
	}
	return b.runner != nil
}

// ToolEnv is what a tool is shown of an environment: what it needs, and the variables that pass names.
func ToolEnv(environ, pass []string) []string { return childEnv(environ, pass) }

// ModulesAbove are the folders node_modules in which Node looks for packages of a project that is a part of a repository, where they are.
func ModulesAbove(root string, f *fence.Fence) []string {
	var all []string
	for at, top := root, repository(root); at != top; {
		at = filepath.Dir(at)
		if dir := filepath.Join(at, "node_modules"); isFolder(dir) && f.Check(dir) == nil {
			all = append(all, dir)
		}
	}
	return all
}

// runJob has the Runner run a tool.
func (b *builder) runJob(ctx context.Context, name string, c command) (string, error) {
	var out tail
	j := Job{
		Root: b.area(c.dir), Dir: c.dir, Shows: c.shows, Writes: c.writes, Results: c.results, Modules: c.modules, Output: &out,
		Steps: append([]Step{{Command: append([]string{name}, c.args...), Env: append(childEnv(b.o.Environ(), append(c.pass, b.o.Pass...)), c.env...), Keep: b.o.Pass, Fetches: c.fetches}}, c.then...),
	}
	if c.outside {
		j.Root = ""
	}
	if j.Root != "" {
		j.Shows = append(j.Shows, ModulesAbove(j.Root, b.fence)...)
	}
	if b.o.Verbose {
		j.Output = io.MultiWriter(&out, b.o.Stdout)
	}
	err := b.runner(ctx, j)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil && !strings.HasPrefix(err.Error(), "exit status"):
		_, _ = io.WriteString(j.Output, "\n"+err.Error()+"\n") // no tool has said it
	}
	return out.String(), err
}

// area is what belongs to a tool's folder: the project; a workspace that the project is a part of; or the whole of their repository, where
// dependencies are folders in other parts of it.
func (b *builder) area(dir string) string {
	root := b.root
	if !within(dir, root) && !within(dir, b.o.Work) && within(root, dir) {
		root = dir
	}
	top := repository(root)
	if top == root {
		return root
	}
	for _, d := range localDependencies(dir) {
		if !within(d, root) && within(d, top) {
			return top
		}
	}
	return root
}

// repository is the folder at or above dir that holds a history, or dir.
func repository(dir string) string {
	if top := fence.Repository(dir); top != "" {
		return top
	}
	return dir
}

// localDependencies are folders that the package.json in dir depends on, and files and folders that its requirements.txt does.
func localDependencies(dir string) []string {
	var all []string
	if p, err := readPackage(dir); err == nil {
		for _, deps := range []stringMap{p.Deps, p.Optional} {
			for _, spec := range deps {
				for _, kind := range []string{"file:", "link:", "portal:"} {
					if path, ok := strings.CutPrefix(spec, kind); ok {
						if path = filepath.FromSlash(path); !filepath.IsAbs(path) {
							path = filepath.Join(dir, path)
						}
						all = append(all, path)
					}
				}
			}
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "requirements.txt")); err == nil {
		all = append(all, localRequirements(dir, string(text))...)
	}
	return all
}

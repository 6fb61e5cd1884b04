package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-run/ebb/internal/build"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/workshop"
)

// buildSettings are those of the settings that concern commands which read and build a project.
var buildSettings = []string{"isolation", "require-isolation", "build-egress", "build-env", "allow-files"}

// tools is what runs a project's own tools, opened with the first of them.
type tools struct {
	once   sync.Once
	dir    string          // of what all projects share
	driver *process.Driver // nil where they are plain programs of this machine
	err    error
}

// open makes the driver, and says aloud where there is no isolation.
func (p *project) open() (*process.Driver, error) {
	t := &p.tools
	t.once.Do(func() {
		out, err := workshop.NewEgress(p.c.Env, p.settings.BuildEgress)
		if err != nil {
			t.err = err
			return
		}
		p.tools.dir = filepath.Join(p.c.cacheDir(), "builds")
		if os.MkdirAll(p.tools.dir, 0o755) != nil { // a home that is read-only
			p.tools.dir = filepath.Join(p.work(), "builds")
		}
		d, err := process.Open(process.Options{
			Dir: filepath.Join(p.tools.dir, "run"), Plain: p.settings.Isolation == "none", Egress: out, OneUser: true,
		})
		if err != nil {
			t.err = err
			return
		}
		ok, why := d.Isolated()
		switch {
		case ok:
			t.driver = d
			_, t.err = d.Sweep(context.Background())
			return
		case p.settings.RequireIsolation:
			t.err = errs.New(errs.Unavailable, "the project's tools cannot be isolated: %w", why).
				WithHint("See ebb doctor for what mends it, or go without --require-isolation.")
		default:
			p.c.say("%s builds are not isolated: install scripts, Makefiles and configuration of this project can do what you can (%v)", p.c.paint(yellow, "warning:"), why)
		}
		_ = d.Close()
	})
	return t.driver, t.err
}

// close ends what the tools left. The project is done with.
func (p *project) close() {
	if p.tools.driver != nil {
		_ = p.tools.driver.Close()
	}
}

// runner gives what runs tools in Sandboxes, with their copies and caches in dir, by itself below what all projects share; nil where there is
// no isolation.
func (p *project) runner(dir string) (build.Runner, error) {
	d, err := p.open()
	if d == nil || err != nil {
		return nil, err
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(p.tools.dir, dir)
	}
	w := workshop.New(workshop.Options{
		Driver: d, User: d.User(), Dir: dir, Shared: filepath.Join(p.tools.dir, "shared"), Env: p.c.Env,
	})
	return w.Run, nil
}

// exec runs a program that reading the project takes, and gives what it prints.
func (p *project) exec(ctx context.Context, name string, args ...string) ([]byte, error) {
	sum := sha256.Sum256([]byte(p.root))
	run, err := p.runner("read-" + hex.EncodeToString(sum[:8]))
	if err != nil {
		return nil, err
	}
	if run == nil || name == "git" && len(args) > 0 && args[0] == "config" { // which reads files and runs nothing
		return p.plainExec(ctx, name, args...)
	}
	program, err := p.c.lookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var out bytes.Buffer
	j := build.Job{Root: p.root, Dir: p.root, Offline: true, Output: &out, Shows: build.ModulesAbove(p.root, p.fence())}
	env := build.ToolEnv(os.Environ(), p.settings.BuildEnv)
	if name == "git" {
		if j, err = p.historyJob(j, args); err != nil {
			return nil, err
		}
		env = append(env, "GIT_DIR="+filepath.Join(j.Dir, ".git"), "GIT_WORK_TREE="+j.Dir, "GIT_OPTIONAL_LOCKS=0")
	}
	j.Steps = []build.Step{{Command: append([]string{program}, args...), Env: env, Keep: p.settings.BuildEnv}}
	err = run(ctx, j)
	if text := strings.TrimSpace(out.String()); err != nil && text != "" {
		err = fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return out.Bytes(), err
}

// historyJob is one that looks at the repository that the project is in: its history and, where git compares them, its files.
func (p *project) historyJob(j build.Job, args []string) (build.Job, error) {
	for at := p.root; ; at = filepath.Dir(at) {
		if info, err := os.Lstat(filepath.Join(at, ".git")); err == nil && info.IsDir() {
			j.Root, j.Dir, j.Shows = "", at, []string{filepath.Join(at, ".git")}
			if args[0] == "status" {
				j.Root, j.Shows, j.Git = at, nil, true
			}
			return j, nil
		}
		if at == filepath.Dir(at) || slices.Contains([]string{"/home", "/root"}, at) {
			return j, errs.New(errs.NotFound, "%s is in no repository", p.root)
		}
	}
}

// made is where programs of a project that make files put them.
var made = filepath.Join(".ebb", "build", "made") // never written

// makes runs a program of the project that makes files.
func (p *project) makes(ctx context.Context, t frontend.Tool) (string, error) {
	rel := filepath.Join(made, t.Out)
	out := filepath.Join(p.root, rel)
	if err := os.RemoveAll(out); err != nil {
		return "", fmt.Errorf("empty %s: %w", rel, err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", rel, err)
	}
	program, err := p.c.lookPath(t.Name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", t.Name, err)
	}
	fill := func(list []string) []string {
		filled := make([]string, len(list))
		for i, s := range list {
			filled[i] = strings.ReplaceAll(s, frontend.OutDir, out)
		}
		return filled
	}
	sum := sha256.Sum256([]byte(p.root))
	run, err := p.runner("read-" + hex.EncodeToString(sum[:8]))
	if err != nil {
		return "", err
	}
	var said bytes.Buffer
	env := build.ToolEnv(os.Environ(), p.settings.BuildEnv)
	if run == nil {
		if env, err = p.plainEnv(); err != nil {
			return "", err
		}
	}
	env = append(env, fill(t.Env)...)
	if run == nil {
		cmd := exec.CommandContext(ctx, program, fill(t.Args)...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p.root, env, &said, &said, time.Second
		err = cmd.Run()
	} else {
		err = run(ctx, build.Job{Root: p.root, Dir: p.root, Writes: []string{out}, Output: &said, Shows: build.ModulesAbove(p.root, p.fence()),
			Steps: []build.Step{{Command: append([]string{program}, fill(t.Args)...), Env: env, Keep: p.settings.BuildEnv}}})
	}
	if text := strings.TrimSpace(said.String()); err != nil && text != "" {
		err = fmt.Errorf("%s: %w: %s", t.Name, err, text)
	}
	return filepath.ToSlash(rel), err
}

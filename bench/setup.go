package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// setUp builds and installs everything that is measured, and deploys the apps.
func (b *bench) setUp(ctx context.Context) error {
	b.say("build ebb, the floor, the bare server and the Go handler")
	b.ebb = b.o.ebb
	builds := []struct{ dir, out, pkg string }{
		{b.root, "floor", "./bench/floor"}, {b.root, "bare", "./bench/bare"},
		{filepath.Join(b.root, "bench", "apps", "go"), "go-handler/bootstrap", "."},
	}
	if b.ebb == "" {
		b.ebb = filepath.Join(b.work, "ebb")
		builds = append(builds, struct{ dir, out, pkg string }{b.root, "ebb", "./cmd/ebb"})
	}
	for _, g := range builds {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(b.work, g.out), g.pkg)
		cmd.Dir, cmd.Env = g.dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", g.pkg, err, out)
		}
	}
	b.floor, b.bare = filepath.Join(b.work, "floor"), filepath.Join(b.work, "bare")
	b.gofunc = filepath.Join(b.work, "go-handler", "bootstrap")
	for _, p := range peers() {
		if !b.wanted(p.name) {
			continue
		}
		if err := b.install(ctx, p); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.absent[p.name] = err.Error()
		}
	}
	for _, kind := range []string{"node", "python", "go"} {
		if err := b.copyApp(kind); err != nil {
			return fmt.Errorf("copy the %s app: %w", kind, err)
		}
		if kind != "node" && !b.wanted("ebb-"+kind) && !b.wanted("floor-"+kind) {
			continue
		}
		if err := b.deploy(ctx, kind); err != nil {
			return fmt.Errorf("deploy the %s app: %w", kind, err)
		}
	}
	return nil
}

// copyApp puts an app where ebb may write beside it, the Go one with its binary.
func (b *bench) copyApp(kind string) error {
	dst := b.app(kind)
	if err := os.CopyFS(dst, os.DirFS(filepath.Join(b.root, "bench", "apps", kind))); err != nil {
		return err
	}
	if kind != "go" {
		return nil
	}
	bin, err := os.ReadFile(b.gofunc)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dst, "bootstrap"), bin, 0o755)
}

// deploy fills a data directory and finds out which interpreter ebb runs.
func (b *bench) deploy(ctx context.Context, kind string) error {
	s, err := b.serve(ctx, b.data(kind))
	if err != nil {
		return err
	}
	defer s.stop()
	began := time.Now()
	if err := b.command(ctx, "deploy", b.app(kind), "--data", b.data(kind)); err != nil {
		return err
	}
	if err := s.answers(ctx, soon); err != nil {
		return err
	}
	b.report.Deploy = append(b.report.Deploy, Deploy{Kind: kind, First: time.Since(began).Seconds()})
	for _, pid := range descendants(s.cmd.Process.Pid) {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		switch {
		case err != nil:
		case kind == "node" && strings.HasPrefix(filepath.Base(exe), "node"):
			b.node = exe
		case kind == "python" && strings.HasPrefix(filepath.Base(exe), "python"):
			b.python = exe
		}
	}
	if kind == "node" && b.node == "" || kind == "python" && b.python == "" {
		return errors.New("no guest of ebb's was found")
	}
	return nil
}

// command runs ebb to its end.
func (b *bench) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, b.ebb, args...)
	cmd.Dir = b.work
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ebb %s: %w: %.1000s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// peer is a contender from npm, in pinned versions.
type peer struct {
	name     string
	packages []string
}

func peers() []peer {
	return []peer{
		{"functions-framework", []string{"@google-cloud/functions-framework@5.0.5"}},
		{"serverless-offline", []string{"serverless@3.40.0", "serverless-offline@13.9.0"}},
		{"workerd", []string{"workerd@1.20261117.1"}},
	}
}

// folder is where a peer is installed: named by its versions, so that a new pin is a new folder.
func (b *bench) folder(name string) string {
	for _, p := range append(peers(), bundle, dynalite) {
		if p.name == name {
			last := p.packages[len(p.packages)-1]
			return filepath.Join(b.cache, p.name+"-"+last[strings.LastIndexByte(last, '@')+1:])
		}
	}
	return ""
}

// install brings a peer into the cache, whole or not at all.
func (b *bench) install(ctx context.Context, p peer) error {
	dir := b.folder(p.name)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return err
	}
	b.say("install %s into %s", strings.Join(p.packages, ", "), b.cache)
	tmp, err := os.MkdirTemp(b.cache, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, "package.json"), []byte("{\"private\":true}\n"), 0o644); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, npm, append([]string{"install", "--no-audit", "--no-fund", "--loglevel=error"}, p.packages...)...)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("npm install: %w: %s", err, lines[len(lines)-1])
	}
	return os.Rename(tmp, dir)
}

func startFramework(ctx context.Context, b *bench) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.work, "functions-framework")
	if err := b.peerApp("functions-framework", dir, "index.js"); err != nil {
		return nil, err
	}
	s, err := b.launch(dir, []string{"NODE_ENV=production"}, false, b.nodeOr(), filepath.Join(b.folder("functions-framework"), "node_modules", "@google-cloud", "functions-framework", "build", "src", "main.js"),
		"--target=hello", "--port="+port)
	if err != nil {
		return nil, err
	}
	s.addr = "127.0.0.1:" + port
	return s, nil
}

func startOffline(ctx context.Context, b *bench) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	other, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.work, "serverless-offline")
	if err := b.peerApp("serverless-offline", dir); err != nil {
		return nil, err
	}
	for _, name := range []string{"handler.js", "serverless.yml"} {
		text, err := os.ReadFile(filepath.Join(b.root, "bench", "apps", "node", name))
		if err != nil {
			return nil, err
		}
		if name == "serverless.yml" {
			// A runtime it knows and this machine's Node can run, and the plugin.
			text = []byte(strings.Replace(string(text), "nodejs22.x", "nodejs20.x", 1) + "\nplugins:\n  - serverless-offline\n")
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return nil, err
		}
	}
	s, err := b.launch(dir, []string{"SLS_TELEMETRY_DISABLED=1", "SLS_NOTIFICATIONS_MODE=off", "CI=1"}, false, b.nodeOr(),
		filepath.Join(dir, "node_modules", "serverless", "bin", "serverless.js"), "offline", "start",
		"--host", "127.0.0.1", "--httpPort", port, "--lambdaPort", other, "--noPrependStageInUrl")
	if err != nil {
		return nil, err
	}
	s.addr, s.path = "127.0.0.1:"+port, "/hello"
	return s, nil
}

func startWorkerd(ctx context.Context, b *bench) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	program, err := b.workerd()
	if err != nil {
		return nil, err
	}
	s, err := b.launch(filepath.Join(b.root, "bench", "apps", "workerd"), nil, false, program, "serve", "config.capnp",
		"--socket-addr", "http=127.0.0.1:"+port)
	if err != nil {
		return nil, err
	}
	s.addr = "127.0.0.1:" + port
	return s, nil
}

// workerd finds the engine's binary: its package is a script around one package for each processor.
func (b *bench) workerd() (string, error) {
	found, _ := filepath.Glob(filepath.Join(b.folder("workerd"), "node_modules", "@cloudflare", "workerd-*", "bin", "workerd"))
	if len(found) != 1 {
		return "", fmt.Errorf("%d binaries of workerd for this processor", len(found))
	}
	return found[0], nil
}

// nodeOr is the interpreter that ebb chose, for all contenders alike.
func (b *bench) nodeOr() string {
	if b.node != "" {
		return b.node
	}
	return "node"
}

// peerApp makes a folder with the peer's packages in reach and copies of its files.
func (b *bench) peerApp(name, dir string, files ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	link := filepath.Join(dir, "node_modules")
	if err := os.Symlink(filepath.Join(b.folder(name), "node_modules"), link); err != nil && !os.IsExist(err) {
		return err
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(b.root, "bench", "apps", name, f))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, f), text, 0o644); err != nil {
			return err
		}
	}
	doc, err := json.Marshal(map[string]any{"private": true, "name": "bench", "main": "index.js"})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "package.json"), doc, 0o644)
}

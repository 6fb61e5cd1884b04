package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// probeTimeout is long, for a first start from a slow disk.
const probeTimeout = 20 * time.Second

// probe is what an interpreter said of itself.
type probe struct {
	ModTime int64  `json:"mtime"` // nanoseconds
	Size    int64  `json:"size"`
	Version string `json:"version"` // empty: it does not work
	Path    string `json:"path"`    // the program itself
}

// asks makes an interpreter print its version and its own path. One in a virtual environment gives the one below it.
var asks = map[string][]string{
	Node: {"-e", `process.stdout.write(process.versions.node + "\n" + process.execPath)`},
	Python: {"-I", "-c", `import sys
sys.stdout.write("%d.%d.%d\n" % sys.version_info[:3] + (sys.executable if sys.prefix == getattr(sys, "base_prefix", sys.prefix) else getattr(sys, "_base_executable", "") or ""))`},
}

// probeAll keeps those of the files that work, in their order, each program once.
func (f *Finder) probeAll(ctx context.Context, family string, files []string) ([]interpreter, error) {
	file := filepath.Join(f.cache, "runtimes.json")
	known := readProbes(file)
	probes := make([]probe, len(files))
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := map[string]probe{}
	limit := make(chan struct{}, 4)
	for i, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		if k, ok := known[name]; ok && k.ModTime == info.ModTime().UnixNano() && k.Size == info.Size() {
			probes[i] = k
			continue
		}
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			p, sure := ask(ctx, family, name)
			p.ModTime, p.Size = info.ModTime().UnixNano(), info.Size()
			probes[i] = p
			if sure {
				mu.Lock()
				fresh[name] = p
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(fresh) > 0 {
		writeProbes(file, fresh)
	}
	var list []interpreter
	seen := map[string]bool{}
	for _, p := range probes {
		v, ok := parseVersion(p.Version)
		if !ok || seen[p.Path] || family == Python && v[0] < 3 {
			continue
		}
		seen[p.Path] = true
		list = append(list, interpreter{path: p.Path, version: v})
	}
	return list, nil
}

// ask runs the interpreter. sure is false when it did not get to answer, so that it is asked again another time.
func ask(ctx context.Context, family, file string) (p probe, sure bool) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, asks[family]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/"}
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		return probe{}, errors.As(err, &exit) && ctx.Err() == nil
	}
	text, path, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if _, ok := parseVersion(text); !ok || !filepath.IsAbs(path) {
		return probe{}, true
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return probe{Version: text, Path: path}, true
}

func parseVersion(s string) (v version, ok bool) {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) != 3 {
		return v, false
	}
	for i, p := range parts {
		digits := p
		if end := strings.IndexFunc(p, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = p[:end]
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

func readProbes(file string) map[string]probe {
	known := map[string]probe{}
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &known) != nil {
		return map[string]probe{}
	}
	return known
}

// writeProbes adds to the file. That it cannot be written costs only the next search its time.
func writeProbes(file string, fresh map[string]probe) {
	all := readProbes(file)
	for name := range all {
		if _, err := os.Stat(name); err != nil {
			delete(all, name)
		}
	}
	for name, p := range fresh {
		all[name] = p
	}
	data, err := json.MarshalIndent(all, "", "\t")
	if err != nil || os.MkdirAll(filepath.Dir(file), 0o755) != nil {
		return
	}
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if os.WriteFile(tmp, data, 0o644) != nil || os.Rename(tmp, file) != nil {
		os.Remove(tmp)
	}
}

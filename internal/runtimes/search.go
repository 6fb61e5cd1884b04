package runtimes

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// interpreters returns the working interpreters of a family in the order of preference, searched for once.
func (f *Finder) interpreters(ctx context.Context, family string) ([]interpreter, error) {
	f.scan.Lock()
	defer f.scan.Unlock()
	f.mu.Lock()
	list, ok := f.mu.found[family]
	f.mu.Unlock()
	if ok {
		return list, nil
	}
	list, err := f.probeAll(ctx, family, f.candidates(family))
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.mu.found[family] = list
	f.mu.Unlock()
	return list, nil
}

// candidates lists files that may be interpreters, in the order of preference.
func (f *Finder) candidates(family string) []string {
	names := []string{"node", "nodejs"}
	if family == Python {
		names = []string{"python3", "python3.[0-9]*", "python"}
	}
	var patterns []string
	add := func(dir string, rest ...string) {
		if !filepath.IsAbs(dir) {
			return
		}
		for _, n := range names {
			patterns = append(patterns, filepath.Join(append([]string{escape(dir)}, append(rest, n)...)...))
		}
	}
	folders := []string{}
	if dirs, ok := f.env("EBB_RUNTIMES"); ok {
		folders = filepath.SplitList(dirs)
	}
	for _, dir := range append(folders, filepath.Join(f.cache, "runtimes")) {
		add(dir)
		add(dir, "bin")
		add(dir, "*", "bin")
		if family == Node { // the layout of the npm package "node"
			add(dir, "node_modules", "node", "bin")
			add(dir, "*", "node_modules", "node", "bin")
		}
	}
	share := f.home("XDG_DATA_HOME", ".local", "share")
	if family == Node {
		add(f.home("NVM_DIR", ".nvm"), "versions", "node", "*", "bin")
		add(f.home("FNM_DIR", ".local", "share", "fnm"), "node-versions", "*", "installation", "bin")
		add(f.home("VOLTA_HOME", ".volta"), "tools", "image", "node", "*", "bin")
		add(f.home("NODENV_ROOT", ".nodenv"), "versions", "*", "bin")
		add(f.home("ASDF_DATA_DIR", ".asdf"), "installs", "nodejs", "*", "bin")
		add(share, "mise", "installs", "node", "*", "bin")
	} else {
		add(f.home("PYENV_ROOT", ".pyenv"), "versions", "*", "bin")
		add(share, "uv", "python", "*", "bin")
		add(f.home("ASDF_DATA_DIR", ".asdf"), "installs", "python", "*", "bin")
		add(share, "mise", "installs", "python", "*", "bin")
	}
	for _, dir := range f.brew {
		add(dir, family+"@*", "bin")
	}
	path, _ := f.env("PATH")
	for _, dir := range append(filepath.SplitList(path), f.system...) {
		add(dir)
	}
	return existing(patterns)
}

// existing expands patterns to programs, each real file once.
func existing(patterns []string) []string {
	var files []string
	seen := map[string]bool{}
	for _, p := range patterns {
		found := []string{unescape(p)}
		if strings.ContainsAny(p, "*") {
			found, _ = filepath.Glob(p)
		}
		for _, file := range found {
			if strings.HasSuffix(file, "-config") || strings.HasSuffix(file, "-dbg") || strings.Contains(file, "/shims/") {
				continue
			}
			real, err := filepath.EvalSymlinks(file)
			if err != nil || seen[real] || strings.Contains(real, "/shims/") {
				continue
			}
			seen[real] = true
			if info, err := os.Stat(real); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				files = append(files, file)
			}
		}
	}
	return files
}

// home is the folder that the variable names, or one below the home folder; "" when neither is known.
func (f *Finder) home(variable string, below ...string) string {
	if d, ok := f.env(variable); ok && d != "" {
		return d
	}
	home, _ := f.env("HOME")
	if home == "" {
		return ""
	}
	return filepath.Join(append([]string{home}, below...)...)
}

func isDir(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.IsDir()
}

var (
	globEscape   = strings.NewReplacer("*", "\\*", "?", "\\?", "[", "\\[", "\\", "\\\\")
	globUnescape = strings.NewReplacer("\\*", "*", "\\?", "?", "\\[", "[", "\\\\", "\\")
)

// escape keeps a folder's own name from being read as a pattern.
func escape(dir string) string { return globEscape.Replace(dir) }

func unescape(p string) string { return globUnescape.Replace(p) }

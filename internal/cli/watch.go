package cli

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watcher tells of changed files of a project, in bundles.
type watcher struct {
	root    string
	outputs []fs.FileInfo     // what ebb itself writes to
	fs      *fsnotify.Watcher // nil when nothing is watched
	changes chan []string
	done    chan struct{}
	mu      struct {
		sync.Mutex
		also map[string]bool // files and folders outside the root that a build has read
	}
}

// quiet is how long the files must rest before a bundle is told: an editor writes in several steps.
const quiet = 30 * time.Millisecond

// unwatched are folders whose changes never mean a redeploy.
var unwatched = map[string]bool{".git": true, ".ebb": true, ".serverless": true, ".aws-sam": true, "cdk.out": true, "node_modules": true, "__pycache__": true, ".venv": true, "venv": true, ".idea": true, ".vscode": true, ".build": true}

func (u *upRun) startWatch() (*watcher, error) {
	w := &watcher{root: u.p.root, outputs: u.c.outputs, changes: make(chan []string), done: make(chan struct{})}
	w.mu.also = map[string]bool{}
	if !u.watch {
		close(w.done)
		return w, nil
	}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		return nil, fmt.Errorf("watch %s: %w", u.p.root, err)
	}
	if err := w.add(u.p.root); err != nil {
		_ = w.fs.Close()
		return nil, fmt.Errorf("watch %s: %w", u.p.root, err)
	}
	go w.run()
	return w, nil
}

// outputFiles are the files that standard output and standard error lead to, if these are files. In a project they are no part of
// it: each line written would mean a redeploy, whose line would mean the next.
func outputFiles(streams ...io.Writer) []fs.FileInfo {
	var list []fs.FileInfo
	for _, w := range streams {
		if f, ok := w.(*os.File); ok {
			if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
				list = append(list, info)
			}
		}
	}
	return list
}

// Changes gives bundles of changed paths, relative to the project.
func (w *watcher) Changes() <-chan []string { return w.changes }

// Also watches further files or folders that a build has read.
func (w *watcher) Also(paths []string) {
	if w.fs == nil {
		return
	}
	for _, p := range paths {
		if !within(w.root, p) {
			w.mu.Lock()
			known := w.mu.also[p]
			w.mu.also[p] = true
			w.mu.Unlock()
			if known {
				continue
			}
			// What cannot be watched is only not watched.
			if info, err := os.Stat(p); err == nil && info.IsDir() {
				_ = w.add(p)
			} else {
				_ = w.fs.Add(filepath.Dir(p)) // an editor replaces the file itself
			}
		}
	}
}

// Close stops watching.
func (w *watcher) Close() {
	if w.fs != nil {
		_ = w.fs.Close()
	}
	<-w.done
}

// add watches the folder and all below it.
func (w *watcher) add(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil // it went meanwhile
		}
		if !d.IsDir() {
			return nil
		}
		if path != dir && unwatched[d.Name()] {
			return filepath.SkipDir
		}
		return w.fs.Add(path)
	})
}

func (w *watcher) run() {
	defer close(w.done)
	var pending []string
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var out chan []string
	for {
		select {
		case e, ok := <-w.fs.Events:
			if !ok {
				return
			}
			if e.Op == fsnotify.Chmod || !w.matters(e.Name) {
				continue
			}
			if e.Has(fsnotify.Create) {
				if info, err := os.Stat(e.Name); err == nil && info.IsDir() {
					_ = w.add(e.Name)
				}
			}
			rel, err := filepath.Rel(w.root, e.Name)
			if err != nil {
				rel = e.Name
			}
			if !slices.Contains(pending, rel) {
				pending = append(pending, rel)
			}
			timer.Reset(quiet)
		case _, ok := <-w.fs.Errors:
			if !ok {
				return
			}
			// Events were lost: the next look at the files must find what changed.
			pending = append(pending, "(many)")
			timer.Reset(quiet)
		case <-timer.C:
			out = w.changes
		case out <- pending:
			pending, out = nil, nil
		}
	}
}

// outside says whether a path outside the root was asked for, itself or a folder above it.
func (w *watcher) outside(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if w.mu.also[path] {
			return true
		}
		above := filepath.Dir(path)
		if above == path || unwatched[filepath.Base(path)] {
			return false
		}
		path = above
	}
}

// matters leaves out what editors and tools write beside the sources.
func (w *watcher) matters(path string) bool {
	rel, err := filepath.Rel(w.root, path)
	if err != nil {
		return true
	}
	if !within(w.root, path) {
		return w.outside(path)
	}
	for _, part := range strings.Split(filepath.ToSlash(rel), "/") {
		if unwatched[part] {
			return false
		}
	}
	if len(w.outputs) > 0 {
		if info, err := os.Stat(path); err == nil && slices.ContainsFunc(w.outputs, func(o fs.FileInfo) bool { return os.SameFile(o, info) }) {
			return false
		}
	}
	base := filepath.Base(path)
	return !strings.HasSuffix(base, "~") && !strings.HasSuffix(base, ".swp") && !strings.HasSuffix(base, ".swx") && !strings.HasPrefix(base, ".#") && base != "4913" && base != ".DS_Store"
}

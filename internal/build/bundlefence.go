package build

import (
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/fence"
)

// sourceFence holds a bundler to what a project may have read. check is of one file, and for several goroutines.
type sourceFence struct {
	fence *fence.Fence
	mu    struct {
		sync.Mutex
		told map[string]error // by folder: of the tsconfig.json in force there
	}
}

func newSourceFence(f *fence.Fence) *sourceFence {
	s := &sourceFence{fence: f}
	s.mu.told = map[string]error{}
	return s
}

// plugin refuses files as they are loaded: whatever named them, an import, a path of tsconfig.json, the main of a package.json, a link.
func (s *sourceFence) plugin() api.Plugin {
	return api.Plugin{Name: "fence", Setup: func(pb api.PluginBuild) {
		pb.OnLoad(api.OnLoadOptions{Filter: `.*`, Namespace: "file"}, func(a api.OnLoadArgs) (api.OnLoadResult, error) {
			return refusal(s.check(a.Path)), nil
		})
	}}
}

// refusal gives an error to the bundler, which adds the place of the import.
func refusal(err error) api.OnLoadResult {
	if err == nil {
		return api.OnLoadResult{}
	}
	return api.OnLoadResult{Errors: []api.Message{{Text: err.Error(), Detail: err}}}
}

// refused gives the error behind a bundler's message, if it is a refusal.
func refused(m api.Message) (*errs.Error, bool) {
	err, _ := m.Detail.(error)
	var e *errs.Error
	ok := errors.As(err, &e)
	return e, ok
}

// check judges a source file and the settings in force for it, which the bundler reads by itself.
func (s *sourceFence) check(file string) error {
	if err := s.fence.Check(file); err != nil {
		return err
	}
	if underModules(filepath.ToSlash(file)) {
		return nil // no tsconfig.json counts there
	}
	return s.settings(filepath.Dir(file))
}

// settings judges the tsconfig.json of a folder, that of the nearest above it which has one, and all that these extend.
func (s *sourceFence) settings(dir string) error {
	s.mu.Lock()
	err, known := s.mu.told[dir]
	s.mu.Unlock()
	if known {
		return err
	}
	switch {
	case s.fence.Check(dir) != nil: // above the project: what is found there is the user's own, and nothing that the project names
	case exists(filepath.Join(dir, "tsconfig.json")):
		err = s.extended(filepath.Join(dir, "tsconfig.json"), 0)
	case exists(filepath.Join(dir, "jsconfig.json")):
		err = s.extended(filepath.Join(dir, "jsconfig.json"), 0)
	case dir != filepath.Dir(dir):
		err = s.settings(filepath.Dir(dir))
	}
	s.mu.Lock()
	s.mu.told[dir] = err
	s.mu.Unlock()
	return err
}

// mostExtended ends a chain of files that extend each other.
const mostExtended = 32

func (s *sourceFence) extended(file string, depth int) error {
	if depth > mostExtended || !isRegular(file) {
		return nil
	}
	if err := s.fence.Check(file); err != nil {
		return err
	}
	var ts struct{ Extends any }
	if readJSONC(file, &ts) != nil {
		return nil // nor can the bundler
	}
	list, ok := ts.Extends.([]any)
	if !ok {
		list = []any{ts.Extends}
	}
	for _, one := range list {
		name, _ := one.(string)
		for _, at := range extensions(filepath.Dir(file), name) {
			err := s.extended(at, depth+1)
			if errs.HintOf(err) != "" && depth == 0 {
				return errs.New(errs.Forbidden, "%s, by what it extends: %w", file, err).WithHint("%s", errs.HintOf(err))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// extensions are the files that the extends of a tsconfig.json in dir may mean.
func extensions(dir, name string) []string {
	if name == "" {
		return nil
	}
	var at []string
	slash := filepath.FromSlash(name)
	switch {
	case filepath.IsAbs(slash):
		at = []string{slash}
	case strings.HasPrefix(name, "."):
		at = []string{filepath.Join(dir, slash)}
	default: // a package's
		for up := dir; ; up = filepath.Dir(up) {
			at = append(at, filepath.Join(up, "node_modules", slash))
			if up == filepath.Dir(up) {
				break
			}
		}
	}
	var all []string
	for _, p := range at {
		all = append(all, p, p+".json", filepath.Join(p, "tsconfig.json"))
	}
	return all
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// withSources gives a source map of a bundle the text of those of its sources that the bundler was let load. The bundler itself must not: the source
// map that a file brings may name any file of this machine as its source.
func withSources(text []byte, dir string, loaded map[string]string) []byte {
	var m struct {
		Version        int             `json:"version"`
		Sources        []string        `json:"sources"`
		SourcesContent []*string       `json:"sourcesContent,omitempty"`
		Mappings       json.RawMessage `json:"mappings"`
		Names          json.RawMessage `json:"names"`
	}
	if json.Unmarshal(text, &m) != nil {
		return text
	}
	m.SourcesContent = make([]*string, len(m.Sources))
	for i, name := range m.Sources {
		at := filepath.Join(dir, filepath.FromSlash(name))
		if u, err := url.Parse(name); err == nil && u.Scheme == "file" {
			at = filepath.FromSlash(u.Path)
		}
		if loaded[at] == "" {
			continue
		}
		if content, err := os.ReadFile(at); err == nil {
			s := string(content)
			m.SourcesContent[i] = &s
		}
	}
	if full, err := json.Marshal(m); err == nil {
		return append(full, '\n')
	}
	return text
}

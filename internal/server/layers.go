package server

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/artifact"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
)

// A Function's Layers are one Artifact, in which a later Layer covers an earlier one: it is made at deploy, belongs to the Deployment and
// goes with it.

// overlay gives that Artifact, or "" for a Unit without Layers.
func (s *Server) overlay(u state.Unit) (string, error) {
	if len(u.Layers) == 0 {
		return "", nil
	}
	if len(u.Layers) > app.MaxLayers {
		return "", errs.New(errs.Invalid, "%d layers; %d are allowed", len(u.Layers), app.MaxLayers)
	}
	var size int64
	for _, digest := range append([]string{u.Code}, u.Layers...) {
		m, err := s.artifacts.Manifest(digest)
		if err != nil {
			return "", err
		}
		size += m.Size()
	}
	if most := s.artifacts.Limits.Bytes; size > most {
		return "", errs.New(errs.TooLarge, "code and layers are %d MB together; %d MB are allowed", size>>20, most>>20)
	}
	return s.artifacts.Overlay(u.Layers...)
}

// opt is overlay for a Unit of the store, where an older ebb may have left it to be made.
func (s *Server) opt(u state.Unit) (string, error) {
	if u.Opt != "" || len(u.Layers) == 0 {
		return u.Opt, nil
	}
	return s.artifacts.Overlay(u.Layers...)
}

// overlayOld makes what an older ebb has not, so that it is not taken for something that nothing needs. What cannot be made is said
// when an Instance starts.
func (s *Server) overlayOld(d *state.Deployment) {
	for i, u := range d.Units {
		d.Units[i].Opt, _ = s.opt(u)
	}
}

// unreachable warns of Functions that name a file of their Layers by its place below /opt where Layers are not shown there.
func (s *Server) unreachable(d *state.Deployment) []string {
	if s.driver.Traits().Mounts {
		return nil
	}
	var warnings []string
	found := map[[2]string]string{} // by digests of code and Layers
	for _, u := range d.Units {
		if u.Opt == "" {
			continue
		}
		opt, err := s.artifacts.Manifest(u.Opt)
		if err != nil {
			continue // it is said when an Instance starts
		}
		if name := extensionIn(opt); name != "" {
			warnings = append(warnings, fmt.Sprintf("function %s: the extension /opt/extensions/%s of its layers is not started: sandboxes of this machine do not show "+
				"layers at /opt (`ebb doctor` says why)", u.Key, name))
		}
		key := [2]string{u.Code, u.Opt}
		what, ok := found[key]
		if !ok {
			what = s.optInCode(u.Code, opt)
			found[key] = what
		}
		if f := d.App.Function(u.Key); what == "" && f != nil {
			env, _ := s.resolver(d).env(f)
			what = optInEnv(env, opt)
		}
		if what != "" {
			warnings = append(warnings, fmt.Sprintf("function %s: %s, which is in a layer. Sandboxes of this machine do not show layers at /opt; "+
				"what is found by PATH, LD_LIBRARY_PATH, NODE_PATH or Python's sys.path works", u.Key, what))
		}
	}
	return warnings
}

// extensionIn names a program that the Layers bring to run beside the function, or "".
func extensionIn(opt *artifact.Manifest) string {
	for _, e := range opt.Entries {
		if name, ok := strings.CutPrefix(e.Path, "extensions/"); ok && !strings.Contains(name, "/") {
			return name
		}
	}
	return ""
}

// optPath finds an absolute path below /opt, not the middle of another.
var optPath = regexp.MustCompile(`(?:^|[^\w./}-])(/opt/[\w.@/-]*)`)

// namesOpt gives the first path in text that leads to something of the Layers, and where it begins.
func namesOpt(text []byte, opt *artifact.Manifest) (name string, at int) {
	for _, m := range optPath.FindAllSubmatchIndex(text, -1) {
		full := string(text[m[2]:m[3]])
		p := strings.Trim(strings.TrimPrefix(full, "/opt/"), "/")
		if p == "" || slices.ContainsFunc(opt.Entries, func(e artifact.Entry) bool { return e.Path == p || strings.HasPrefix(e.Path, p+"/") }) {
			return full, m[2]
		}
	}
	return "", 0
}

func optInEnv(env []string, opt *artifact.Manifest) string {
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		if p, _ := namesOpt([]byte(value), opt); p != "" && name != "AWS_LAMBDA_EXEC_WRAPPER" { // which is refused with a reason of its own
			return fmt.Sprintf("its variable %s names %s", name, p)
		}
	}
	return ""
}

// A deploy reads no more of the code than this to find such paths.
const (
	maxRead    = 4 << 20  // of one file, bytes
	maxReadAll = 32 << 20 // together
)

func (s *Server) optInCode(digest string, opt *artifact.Manifest) string {
	m, err := s.artifacts.Manifest(digest)
	if err != nil {
		return ""
	}
	room := int64(maxReadAll)
	for _, e := range m.Entries {
		if e.Link != "" || e.Size > maxRead || e.Size > room || !ownSource(e.Path) {
			continue
		}
		room -= e.Size
		text, err := s.blob(e)
		if err != nil {
			continue
		}
		if p, at := namesOpt(text, opt); p != "" {
			return fmt.Sprintf("line %d of %s names %s", 1+bytes.Count(text[:at], []byte("\n")), e.Path, p)
		}
	}
	return ""
}

func (s *Server) blob(e artifact.Entry) ([]byte, error) {
	r, err := s.artifacts.Open(e.SHA256)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(r)
}

// ownSource says whether a file is a script, and not a package's: those name many paths that nothing asks for.
func ownSource(p string) bool {
	dirs := strings.Split(path.Dir(p), "/")
	if slices.Contains(dirs, "node_modules") || slices.Contains(dirs, "site-packages") {
		return false
	}
	switch path.Ext(p) {
	case ".js", ".mjs", ".cjs", ".py", ".sh", "":
		return true
	}
	return false
}

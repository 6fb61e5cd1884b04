package build

import (
	"io/fs"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// defaultExcludes are what Serverless leaves out before the user's patterns are looked at, and the like of other tools.
var defaultExcludes = []string{
	"**/.git/**", ".gitignore", "**/.DS_Store", "npm-debug.log", "yarn-*.log", "node_modules/.bin/**", "node_modules/.cache/**", "node_modules/.package-lock.json",
	"serverless.yml", "serverless.yaml", "serverless.json", "serverless.js", "serverless.ts", "serverless.template.yml", ".serverless/**", ".serverless_plugins/**",
	".env*", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "npm-shrinkwrap.json", "bun.lock", "bun.lockb", ".aws-sam/**", "samconfig.toml", ".venv/**", "**/__pycache__/**",
}

// rule is one pattern, with the common forms told apart: matching them is most of a scan's work.
type rule struct {
	exclude bool
	glob    string
	kind    ruleKind
	prefix  string // of the glob, before any special character
}

type ruleKind uint8

const (
	globRule ruleKind = iota
	exactRule
	belowRule // prefix + "/**"
	allRule
)

func newRule(pattern string) rule {
	r := rule{glob: pattern}
	if rest, ok := strings.CutPrefix(pattern, "!"); ok {
		r.exclude, r.glob = true, rest
	}
	r.glob = strings.TrimPrefix(r.glob, "./")
	if i := strings.IndexAny(r.glob, "*?[{\\"); i >= 0 {
		r.prefix = r.glob[:i]
	} else {
		r.prefix, r.kind = r.glob, exactRule
	}
	switch {
	case r.glob == "**" || r.glob == "**/*":
		r.kind = allRule
	case r.glob == r.prefix+"**" && strings.HasSuffix(r.prefix, "/"), r.glob == r.prefix+"**/*" && strings.HasSuffix(r.prefix, "/"):
		r.kind = belowRule
	}
	return r
}

func (r rule) matches(p string) bool {
	switch r.kind {
	case exactRule:
		return p == r.glob
	case belowRule:
		return strings.HasPrefix(p, r.prefix)
	case allRule:
		return true
	}
	return strings.HasPrefix(p, r.prefix) && doublestar.MatchUnvalidated(r.glob, p)
}

// mayReach says whether the rule could match something below the folder.
func (r rule) mayReach(dir string) bool {
	return r.kind == allRule || strings.HasPrefix(r.prefix, dir+"/") || strings.HasPrefix(dir+"/", r.prefix)
}

// packageRules say which files of a folder are in a package: Serverless's semantics, the last match wins.
type packageRules struct {
	only     bool
	defaults []rule
	user     []rule
	modules  func(p string, d fs.DirEntry) bool // for what is below a node_modules folder: in the production closure?
}

func newRules(patterns []string, only bool) *packageRules {
	r := &packageRules{only: only}
	for _, p := range defaultExcludes {
		r.defaults = append(r.defaults, newRule("!"+p))
	}
	for _, p := range patterns {
		if p != "" {
			r.user = append(r.user, newRule(p))
		}
	}
	return r
}

// keep is for artifact.Scan.
func (r *packageRules) keep(p string, d fs.DirEntry) bool {
	if p == ".ebb" || strings.HasPrefix(p, ".ebb/") {
		return false
	}
	if d.IsDir() {
		return r.enter(p, d)
	}
	in := !r.only
	for _, x := range r.defaults {
		if in && x.matches(p) {
			in = false
		}
	}
	if r.modules != nil && underModules(p) {
		in = in && r.modules(p, d)
	}
	for _, x := range r.user {
		if x.exclude != in {
			continue // would change nothing
		}
		if x.matches(p) && (x.exclude || r.mayAdd(x, p)) {
			in = !x.exclude
		}
	}
	return in
}

// mayAdd keeps a broad pattern ("**") from bringing back what only tools need: a development dependency or the
// repository's own data has to be named.
func (r *packageRules) mayAdd(x rule, p string) bool {
	if r.modules != nil && underModules(p) {
		return strings.Contains(x.prefix, "node_modules/") && len(x.prefix) > len("node_modules/") || r.modules(p, nil)
	}
	for _, dir := range []string{".git/", ".serverless/", ".aws-sam/"} {
		if strings.HasPrefix(p, dir) {
			return strings.HasPrefix(x.prefix, dir)
		}
	}
	return true
}

// enter says whether anything below a folder can be in.
func (r *packageRules) enter(dir string, d fs.DirEntry) bool {
	named := false // a pattern that adds names this folder or something in it
	for _, x := range r.user {
		if !x.exclude && strings.HasPrefix(x.prefix, dir+"/") {
			named = true
		}
	}
	if named {
		return true
	}
	probe := dir + "/\x00"
	out := r.only
	for _, x := range r.defaults {
		out = out || x.kind != exactRule && (x.kind == belowRule || strings.HasSuffix(x.glob, "/**")) && x.matches(probe)
	}
	if r.modules != nil && underModules(probe) && path.Base(dir) != "node_modules" && !r.modules(dir, d) {
		return false
	}
	for _, x := range r.user {
		switch {
		case x.exclude && (x.kind == belowRule || x.kind == allRule) && x.matches(probe):
			out = true
		case !x.exclude && x.mayReach(dir):
			out = out && !(r.modules != nil && underModules(probe) || r.mayAdd(x, probe))
		}
	}
	return !out
}

func underModules(p string) bool {
	return strings.HasPrefix(p, "node_modules/") || strings.Contains(p, "/node_modules/")
}

package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lifecycle are the scripts of a project that `npm install` and `npm ci` run in its folder; npm-scripts, "Life Cycle Operation Order".
var lifecycle = []string{"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"}

// npmCommand is a run of npm in a folder.
func (b *builder) npmCommand(dir string, args []string) command {
	c := command{
		dir: dir, name: "npm", args: args, pass: b.npmSecrets(dir), modules: true,
		env: []string{"npm_config_update_notifier=false", "npm_config_yes=true"},
	}
	if within(dir, b.o.Work) || within(dir, b.o.Cache) {
		c.modules, c.writes = false, []string{dir}
	}
	return c
}

// npmInstall runs an install. With a Runner in two parts: what fetches runs no scripts, and may have the credentials for registries; the
// scripts of packages and those of the project's own that are named then run without.
func (b *builder) npmInstall(dir string, p *packageJSON, args, own []string) (string, error) {
	c := b.npmCommand(dir, args)
	if !b.confined() {
		return b.run(c)
	}
	npm, err := b.lookPath(c.name)
	if err != nil {
		return "", err
	}
	c.args = append(slices.Clone(args), "--ignore-scripts", "--git=git")
	c.fetches = !b.fromHistories(dir, p)
	env := append(childEnv(b.o.Environ(), b.o.Pass), c.env...)
	c.then = []Step{{
		Command: []string{npm, "rebuild", "--no-audit", "--no-fund", "--no-progress", "--loglevel=error"}, Env: env, Keep: b.o.Pass,
		If: func(at func(string) string) bool { return hasScripts(at(filepath.Join(dir, "node_modules"))) },
	}}
	for _, name := range own {
		if p.Scripts[name] != "" {
			c.then = append(c.then, Step{Command: []string{npm, "run", "--silent", name}, Env: env, Keep: b.o.Pass})
		}
	}
	return b.run(c)
}

// fromHistories reports whether dependencies come out of version control: npm builds those with scripts of theirs while it fetches.
func (b *builder) fromHistories(dir string, p *packageJSON) bool {
	_, lock := toolOf(dir)
	if strings.Contains(lock, `"git+`) || strings.Contains(lock, `"git:`) {
		return true
	}
	for _, deps := range []stringMap{p.Deps, p.Optional} {
		for _, spec := range deps {
			if strings.HasPrefix(spec, "git") || strings.HasSuffix(spec, ".git") || strings.Contains(spec, "/") && !strings.Contains(spec, ":") {
				return true
			}
		}
	}
	return false
}

// hasScripts reports whether something that npm has put in a node_modules folder has scripts to run at its installation. npm notes it of
// packages of a registry; of folders that are linked it does not.
func hasScripts(modules string) bool {
	data, err := os.ReadFile(filepath.Join(modules, ".package-lock.json"))
	if err != nil {
		return isFolder(modules)
	}
	var lock struct {
		Packages map[string]struct {
			HasInstallScript bool `json:"hasInstallScript"`
			Link             bool `json:"link"`
		} `json:"packages"`
	}
	if json.Unmarshal(data, &lock) != nil {
		return true
	}
	for path, p := range lock.Packages {
		if p.HasInstallScript || p.Link || isRegular(filepath.Join(filepath.Dir(modules), path, "binding.gyp")) {
			return true
		}
	}
	return false
}

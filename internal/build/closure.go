package build

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/artifact"
)

// external is an import of a package from a file of the project.
type external struct {
	Name string `json:"name"` // of the package
	Dir  string `json:"dir"`  // of the importing file
}

// closure is what a package needs of node_modules at run time: the dependencies of the project, optional and peer ones
// included where they are installed, and theirs, by the way Node resolves them.
type closure struct {
	b        *builder
	base     string
	projects int
	dirs     map[string]string // real folder of a package → its name
	from     map[string]string // real folder → real folder of who needed it first, "" for the project
	passes   map[string]bool   // real folders above those
	peers    []external        // SDK packages that members want and nobody provides
	answers  map[string]bool   // of holds, by package folder in the tree
}

func (b *builder) newClosure(base string) *closure {
	return &closure{b: b, base: base, dirs: map[string]string{}, from: map[string]string{}, passes: map[string]bool{}, answers: map[string]bool{}}
}

// addProject adds the dependencies of the package.json in dir.
func (c *closure) addProject(dir string) {
	p, err := readPackage(dir)
	if err != nil {
		return
	}
	c.projects++
	c.addDeps(dir, "", p)
}

// addImport adds a package that code imports, whatever the package.json says of it.
func (c *closure) addImport(x external) { c.add(x.Dir, "", x.Name) }

func (c *closure) addDeps(dir, who string, p *packageJSON) {
	for _, deps := range []stringMap{p.Deps, p.Optional, p.Peer} {
		for _, name := range slices.Sorted(maps.Keys(deps)) {
			if !c.add(dir, who, name) && isSDK(name) && !p.PeerMeta[name].Optional {
				c.peers = append(c.peers, external{Name: name, Dir: dir})
			}
		}
	}
}

// add resolves a package from dir and adds it with all it needs. It says whether it is installed.
func (c *closure) add(dir, who, name string) bool {
	at, ok := resolvePackage(dir, name)
	if !ok {
		return false
	}
	real, err := filepath.EvalSymlinks(at)
	if err != nil {
		return false
	}
	if _, known := c.dirs[real]; known {
		return true
	}
	c.dirs[real], c.from[real] = name, who
	for d := filepath.Dir(real); !c.passes[d] && d != filepath.Dir(d); d = filepath.Dir(d) {
		c.passes[d] = true
	}
	if p, err := readPackage(real); err == nil {
		c.addDeps(real, real, p)
	}
	return true
}

// holds says whether what is below a node_modules folder of the tree is needed. Folders above needed packages are.
func (c *closure) holds(p string, d fs.DirEntry) bool {
	if d != nil && (d.IsDir() || d.Type()&fs.ModeSymlink != 0) {
		if base := path.Base(p); base == ".bin" || base == ".cache" {
			return false
		}
		real, err := filepath.EvalSymlinks(filepath.Join(c.base, filepath.FromSlash(p)))
		if err != nil {
			return false
		}
		if c.passes[real] || c.dirs[real] != "" {
			return true
		}
	}
	dir, name := owner(p)
	switch {
	case name == "" || name == ".bin" || name == ".cache" || name == ".pnpm":
		return false
	case name == ".prisma":
		return true // the client that prisma generates
	case strings.HasPrefix(name, "."):
		return false
	}
	if in, known := c.answers[dir]; known {
		return in
	}
	real, err := filepath.EvalSymlinks(filepath.Join(c.base, filepath.FromSlash(dir)))
	in := err == nil && c.dirs[real] != ""
	c.answers[dir] = in
	return in
}

// owner gives the innermost package folder of a path below node_modules, and the package's name.
func owner(p string) (dir, name string) {
	i := strings.LastIndex("/"+p, "/node_modules/")
	if i < 0 {
		return "", ""
	}
	head, rest := p[:i+len("node_modules/")], p[i+len("node_modules/"):]
	parts := strings.SplitN(rest, "/", 3)
	if strings.HasPrefix(rest, "@") {
		if len(parts) < 2 {
			return "", ""
		}
		return head + parts[0] + "/" + parts[1], parts[0] + "/" + parts[1]
	}
	return head + parts[0], parts[0]
}

// outside gives the needed packages that are installed above the package's folder or elsewhere, as node_modules of the tree.
// A second version of one goes below the package that needs it.
func (c *closure) outside() ([]*artifact.Tree, error) {
	var trees []*artifact.Tree
	taken := map[string]bool{}
	place := map[string]string{}
	for _, real := range slices.Sorted(maps.Keys(c.dirs)) {
		if within(real, c.base) {
			if rel, err := filepath.Rel(c.base, real); err == nil {
				place[real] = filepath.ToSlash(rel)
				taken[place[real]] = true
			}
		}
	}
	for _, real := range slices.Sorted(maps.Keys(c.dirs)) {
		if place[real] != "" {
			continue
		}
		at := "node_modules/" + c.dirs[real]
		if linked, err := filepath.EvalSymlinks(filepath.Join(c.base, filepath.FromSlash(at))); err == nil {
			if linked == real {
				continue // a link in the tree leads there, which the scan follows
			}
			taken[at] = true
		}
		if taken[at] {
			above := place[c.from[real]]
			if above == "" {
				continue
			}
			at = above + "/" + at
		}
		taken[at], place[real] = true, at
		t, err := c.b.scan(real, func(p string, _ fs.DirEntry) bool {
			return p != "node_modules" && p != ".git"
		})
		if err != nil {
			if os.IsNotExist(err) {
				continue
			}
			return nil, err
		}
		trees = append(trees, t.Under(at))
	}
	return trees, nil
}

// unresolved gives the SDK packages that code or its dependencies import and that are not installed.
func (b *builder) unresolved(imports []external, c *closure) []string {
	need := map[string]bool{}
	for _, x := range slices.Concat(imports, c.peers) {
		if isSDK(x.Name) {
			if _, ok := resolvePackage(x.Dir, x.Name); !ok {
				need[x.Name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(need))
}

package cloudformation

import (
	"path"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/frontend"
)

// ReadDoc reads a YAML or JSON file of the project; the Node is nil when it could not, with the reason said.
func ReadDoc(p frontend.Project, file string) (*Node, diag.List) {
	var l diag.List
	full := filepath.Join(p.Root, filepath.FromSlash(file))
	data, err := readFile(full)
	if err == nil {
		if err := p.MayRead(full); err != nil {
			l.Errorf(diag.Pos{File: file}, "outside", errs.HintOf(err), "%v", err)
			return nil, l
		}
	}
	switch {
	case err != nil:
		l.Errorf(diag.Pos{File: file}, "unreadable", "", "the file cannot be read: %s", pathless(err))
		return nil, l
	case len(data) > maxTemplate:
		l.Errorf(diag.Pos{File: file}, "too-large", "", "the template has more than %d bytes", maxTemplate)
		return nil, l
	}
	return ParseTemplate(filepath.ToSlash(file), data)
}

// Says reports whether a file of the project holds a text. It is for those that cannot be read as documents.
func Says(p frontend.Project, file, text string) bool {
	data, err := readFile(filepath.Join(p.Root, filepath.FromSlash(file)))
	return err == nil && strings.Contains(string(data), text)
}

// AppName makes an App's name out of the project's folder.
func AppName(root string) string { return appName(root) }

// includer puts the files that AWS::Include names in the place of its calls.
type includer struct {
	p     frontend.Project
	l     *diag.List
	depth int
}

// Include resolves the transform AWS::Include where it names a file of the project. One in S3 stays as it is.
func Include(p frontend.Project, root *Node, l *diag.List) *Node {
	if !mentions(root, "Fn::Transform", 0) {
		return root
	}
	return (&includer{p: p, l: l}).node(root)
}

func mentions(n *Node, key string, depth int) bool {
	if n == nil || depth > maxDepth {
		return false
	}
	for _, it := range n.Items {
		if mentions(it, key, depth+1) {
			return true
		}
	}
	for _, en := range n.Entries {
		if en.Key == key || mentions(en.Value, key, depth+1) {
			return true
		}
	}
	return false
}

func (i *includer) node(n *Node) *Node {
	if n == nil || n.Kind != List && n.Kind != Map {
		return n
	}
	if n.Kind == List {
		out := NewList(n.Pos)
		for _, it := range n.Items {
			out.Items = append(out.Items, i.node(it))
		}
		return out
	}
	out := NewMap(n.Pos)
	var included *Node
	for _, en := range n.Entries {
		if en.Key == "Fn::Transform" {
			if doc := i.file(en); doc != nil {
				included = doc
				continue
			}
		}
		out.Entries = append(out.Entries, Entry{Key: en.Key, Pos: en.Pos, Value: i.node(en.Value)})
	}
	if included == nil {
		return out
	}
	if included.Kind != Map {
		return included
	}
	for _, en := range included.Entries {
		if out.Get(en.Key) == nil {
			out.Entries = append(out.Entries, en)
		}
	}
	return out
}

// file is what a call of AWS::Include stands for, or nil.
func (i *includer) file(en Entry) *Node {
	name, _ := en.Value.Get("Name").Text()
	file, ok := en.Value.At("Parameters", "Location").Text()
	if name != "AWS::Include" || !ok || strings.Contains(file, "://") || path.IsAbs(file) {
		return nil
	}
	if i.depth > 8 {
		i.l.Errorf(en.Pos, "cycle", "", "%s includes itself", file)
		return nil
	}
	doc, l := ReadDoc(i.p, path.Join(path.Dir(en.Pos.File), file))
	*i.l = append(*i.l, l...)
	if doc == nil {
		return nil
	}
	i.depth++
	defer func() { i.depth-- }()
	return i.node(doc)
}

package shape

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// node is an element of a request.
type node struct {
	name string
	attr []xml.Attr
	text string
	kids []*node
}

// maxNodes bounds the elements of a request.
const maxNodes = 200_000

// parseXML reads a request's elements; nil where there is none.
func parseXML(data []byte) (*node, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	var root *node
	var open []*node
	for count := 0; ; {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			if len(open) > 0 {
				return nil, malformed("The XML you provided was not well-formed: <%s> has no end", clip(open[len(open)-1].name))
			}
			return root, nil
		}
		if err != nil {
			return nil, malformed("The XML you provided was not well-formed: %v", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if count++; count > maxNodes || len(open) >= maxDepth {
				return nil, malformed("The XML you provided has too many elements")
			}
			n := &node{name: t.Name.Local, attr: slices.Clone(t.Attr)}
			switch {
			case len(open) > 0:
				up := open[len(open)-1]
				up.kids = append(up.kids, n)
			case root != nil:
				return nil, malformed("The XML you provided was not well-formed: it has two roots")
			default:
				root = n
			}
			open = append(open, n)
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1].name != t.Name.Local {
				return nil, malformed("The XML you provided was not well-formed: </%s> ends nothing", clip(t.Name.Local))
			}
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text += string(t)
			}
		}
	}
}

func (n *node) children(name string) (list []*node) {
	for _, k := range n.kids {
		if k.name == name {
			list = append(list, k)
		}
	}
	return list
}

// xmlReader reads rest-xml bodies.
type xmlReader struct{ c *checks }

func (r *xmlReader) object(p *plan, v reflect.Value, n *node, at *trail) error {
	var seen seenSet
	if p.typ == looseMapType {
		v.Set(reflect.MakeMap(p.typ))
	}
	for name, ref := range p.shape.Members {
		if ref.Location != "" {
			continue
		}
		if ref.XMLAttribute {
			seen.mark(p.shape, name)
			if err := r.attribute(p, v, n, name, ref, at); err != nil {
				return err
			}
			continue
		}
		own := ref.name(name)
		if ref.flat() && ref.Shape.Type == "list" && ref.Shape.Member.LocationName != "" && ref.LocationName == "" {
			own = ref.Shape.Member.LocationName
		}
		list := n.children(own)
		if len(list) == 0 {
			continue
		}
		seen.mark(p.shape, name)
		fd := p.byName[name]
		if fd == nil {
			continue
		}
		err := fd.into(v, func(one reflect.Value) error { return r.value(fd.plan, one, list, ref, &trail{up: at, name: name}) })
		if err != nil {
			return err
		}
	}
	r.c.missing(p.shape, at, seen.of(p.shape))
	return nil
}

func (r *xmlReader) attribute(p *plan, v reflect.Value, n *node, name string, ref *Ref, at *trail) error {
	fd := p.byName[name]
	_, local, _ := strings.Cut(ref.name(name), ":")
	for _, a := range n.attr {
		if fd != nil && a.Name.Local == local {
			return fd.into(v, func(one reflect.Value) error {
				return scalar(fd.plan, one, a.Value, &trail{up: at, name: name}, r.c, false)
			})
		}
	}
	return nil
}

// value reads what elements of one name say: several of a flattened list or map, else the first.
func (r *xmlReader) value(p *plan, v reflect.Value, list []*node, ref *Ref, at *trail) error {
	if p.kind == kAny {
		one := reflect.New(p.loose.typ).Elem()
		if err := r.value(p.loose, one, list, ref, at); err != nil {
			return err
		}
		v.Set(one)
		return nil
	}
	switch p.kind {
	case kStruct:
		return r.object(p, v, list[0], at)
	case kList:
		if !ref.flat() {
			name := p.shape.Member.LocationName
			if name == "" {
				name = "member"
			}
			list = list[0].children(name)
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, len(list)))
		for i, n := range list {
			one := reflect.New(v.Type().Elem()).Elem()
			if err := r.value(p.elem, settle(one), []*node{n}, p.shape.Member, &trail{up: at, n: i + 1, item: true}); err != nil {
				return err
			}
			v.Set(reflect.Append(v, one))
		}
		r.c.length(p.shape, at, v.Len(), "")
		return nil
	case kMap:
		if !ref.flat() {
			list = list[0].children("entry")
		}
		v.Set(reflect.MakeMap(v.Type()))
		for _, n := range list {
			key, value := n.children(p.shape.Key.name("key")), n.children(p.shape.Value.name("value"))
			if len(key) == 0 || len(value) == 0 {
				continue
			}
			one := reflect.New(v.Type().Elem()).Elem()
			if err := r.value(p.elem, settle(one), value, p.shape.Value, &trail{up: at, name: key[0].text, item: true}); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(key[0].text).Convert(v.Type().Key()), one)
		}
		return nil
	case kString:
		return scalar(p, v, list[0].text, at, r.c, false)
	}
	return scalar(p, v, strings.TrimSpace(list[0].text), at, r.c, false)
}

// xmlWriter writes answers of the query and rest-xml protocols.
type xmlWriter struct {
	b     []byte
	query bool
}

func (x *xmlWriter) open(name, attributes string) {
	x.b = append(append(x.b, '<'), name...)
	if attributes != "" {
		x.b = append(append(x.b, ' '), attributes...)
	}
	x.b = append(x.b, '>')
}

func (x *xmlWriter) close(name string) { x.b = append(append(append(x.b, '<', '/'), name...), '>') }

func (x *xmlWriter) leaf(name, text string) {
	x.open(name, "")
	x.b = appendEscaped(x.b, text)
	x.close(name)
}

func (x *xmlWriter) name(ref *Ref, member string) string {
	if x.query {
		return ref.queryName(member)
	}
	return ref.name(member)
}

// members writes those of a structure that stand in the body.
func (x *xmlWriter) members(p *plan, v reflect.Value) {
	for i := range p.fields {
		fd := &p.fields[i]
		one, ok := fd.from(v)
		if !ok || fd.ref.Location != "" || fd.ref.XMLAttribute {
			continue
		}
		x.value(fd.plan, one, x.name(fd.ref, fd.name), fd.ref)
	}
}

// attributes are those of a structure's own element.
func (x *xmlWriter) attributes(p *plan, v reflect.Value, ref *Ref) string {
	var b []byte
	for _, ns := range []*Namespace{ref.XMLNamespace, p.shape.XMLNamespace} {
		if ns == nil || x.query {
			continue
		}
		b = append(b, ` xmlns`...)
		if ns.Prefix != "" {
			b = append(append(b, ':'), ns.Prefix...)
		}
		b = append(append(append(b, `="`...), ns.URI...), '"')
		break
	}
	for i := range p.fields {
		fd := &p.fields[i]
		if one, ok := fd.from(v); ok && fd.ref.XMLAttribute {
			b = append(append(append(b, ' '), fd.ref.name(fd.name)...), `="`...)
			b = append(appendEscaped(b, textOf(fd.plan, one, isoForm)), '"')
		}
	}
	return strings.TrimPrefix(string(b), " ")
}

// value writes a value with its element, or several of a flattened list or map.
func (x *xmlWriter) value(p *plan, v reflect.Value, name string, ref *Ref) {
	switch p.kind {
	case kAny:
		x.value(p.loose, v.Elem(), name, ref)
	case kStruct:
		x.open(name, x.attributes(p, v, ref))
		x.members(p, v)
		x.close(name)
	case kList:
		inner := x.name(p.shape.Member, "")
		if ref.flat() {
			if inner == "" || !x.query && ref.LocationName != "" {
				inner = name
			}
		} else {
			if inner == "" {
				inner = "member"
			}
			x.open(name, "")
		}
		for i := range v.Len() {
			x.value(p.elem, reflect.Indirect(v.Index(i)), inner, p.shape.Member)
		}
		if !ref.flat() {
			x.close(name)
		}
	case kMap:
		x.entries(p, v, name, ref)
	default:
		x.leaf(name, textOf(p, v, isoForm))
	}
}

func (x *xmlWriter) entries(p *plan, v reflect.Value, name string, ref *Ref) {
	entry := name
	if !ref.flat() {
		x.open(name, "")
		entry = "entry"
	}
	for _, k := range sortedKeys(v) {
		x.open(entry, "")
		x.leaf(x.name(p.shape.Key, "key"), k.String())
		x.value(p.elem, reflect.Indirect(v.MapIndex(k)), x.name(p.shape.Value, "value"), p.shape.Value)
		x.close(entry)
	}
	if !ref.flat() {
		x.close(name)
	}
}

func sortedKeys(v reflect.Value) []reflect.Value {
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

// appendEscaped writes text of an element; characters that XML cannot have are written as references, as AWS does.
func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
				b = append(b, "\uFFFD"...)
			} else {
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		switch {
		case c == '&':
			b = append(b, "&amp;"...)
		case c == '<':
			b = append(b, "&lt;"...)
		case c == '>':
			b = append(b, "&gt;"...)
		case c == '"':
			b = append(b, "&quot;"...)
		case c == '\r':
			b = append(b, "&#13;"...)
		case c < ' ' && c != '\n' && c != '\t':
			b = append(b, '&', '#', 'x', hexDigits[c>>4], hexDigits[c&15], ';')
		default:
			b = append(b, c)
		}
		i++
	}
	return b
}

// XMLText escapes text for an element of an error. Characters that XML cannot have are replaced: a client whose reader refuses them would not see the code.
func XMLText(s string) string { return string(appendEscaped(nil, Readable(s))) }

// Readable replaces the characters that XML cannot have, whichever way they are written.
func Readable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return utf8.RuneError
		}
		return r
	}, s)
}

// Quoted is a JSON string.
func Quoted(s string) string { return string(appendQuoted(nil, s)) }

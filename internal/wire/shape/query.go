package shape

import (
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// queryReader reads the query protocol's parameters: "Entry.1.Id=a".
type queryReader struct {
	keys   []string // sorted
	values url.Values
	c      *checks
}

func newQueryReader(v url.Values, c *checks) *queryReader {
	r := &queryReader{values: v, c: c}
	for k := range v {
		r.keys = append(r.keys, k)
	}
	slices.Sort(r.keys)
	return r
}

// below says whether there is a parameter with the name or one below it.
func (r *queryReader) below(name string) bool {
	if _, ok := r.values[name]; ok {
		return true
	}
	i, _ := slices.BinarySearch(r.keys, name+".")
	return i < len(r.keys) && strings.HasPrefix(r.keys[i], name+".")
}

// numbers are those below a name that has parameters, rising.
func (r *queryReader) numbers(name string) (list []int) {
	i, _ := slices.BinarySearch(r.keys, name+".")
	for ; i < len(r.keys) && strings.HasPrefix(r.keys[i], name+"."); i++ {
		head, _, _ := strings.Cut(r.keys[i][len(name)+1:], ".")
		if n, err := strconv.Atoi(head); err == nil && n > 0 {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

func (r *queryReader) object(p *plan, v reflect.Value, prefix string, at *trail) error {
	var seen seenSet
	if p.typ == looseMapType {
		v.Set(reflect.MakeMap(p.typ))
	}
	for name, ref := range p.shape.Members {
		full := r.path(prefix, name, ref)
		if !r.below(full) {
			// An empty list has the member's own name: "Entries=".
			if full = join(prefix, ref.queryName(name)); ref.Shape.Type != "list" || !r.values.Has(full) {
				continue
			}
		}
		seen.mark(p.shape, name)
		fd := p.byName[name]
		if fd == nil {
			continue
		}
		err := fd.into(v, func(one reflect.Value) error { return r.value(fd.plan, one, full, ref, &trail{up: at, name: name}) })
		if err != nil {
			return err
		}
	}
	r.c.missing(p.shape, at, seen.of(p.shape))
	return nil
}

// path is the parameter of a member. That of a flattened list has the name of its elements.
func (r *queryReader) path(prefix, name string, ref *Ref) string {
	own := ref.queryName(name)
	if ref.Shape.Type == "list" && ref.flat() {
		if n := ref.Shape.Member.queryName(""); n != "" {
			own = n
		}
	}
	return join(prefix, own)
}

func (r *queryReader) value(p *plan, v reflect.Value, name string, ref *Ref, at *trail) error {
	if p.kind == kAny {
		one := reflect.New(p.loose.typ).Elem()
		if err := r.value(p.loose, one, name, ref, at); err != nil {
			return err
		}
		v.Set(one)
		return nil
	}
	switch p.kind {
	case kStruct:
		return r.object(p, v, name, at)
	case kList:
		if !ref.flat() {
			if inner := join(name, "member"); r.below(inner) {
				name = inner
			} else if n := p.shape.Member.queryName(""); n != "" && r.below(join(name, n)) {
				name = join(name, n)
			}
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		for i, n := range r.numbers(name) {
			one := reflect.New(v.Type().Elem()).Elem()
			if err := r.value(p.elem, settle(one), join(name, strconv.Itoa(n)), p.shape.Member, &trail{up: at, n: i + 1, item: true}); err != nil {
				return err
			}
			v.Set(reflect.Append(v, one))
		}
		r.c.length(p.shape, at, v.Len(), "")
		return nil
	case kMap:
		if !ref.flat() && r.below(join(name, "entry")) {
			name = join(name, "entry")
		}
		v.Set(reflect.MakeMap(v.Type()))
		for _, n := range r.numbers(name) {
			entry := join(name, strconv.Itoa(n))
			key := r.values.Get(join(entry, p.shape.Key.queryName("key")))
			one := reflect.New(v.Type().Elem()).Elem()
			if err := r.value(p.elem, settle(one), join(entry, p.shape.Value.queryName("value")), p.shape.Value, &trail{up: at, name: key, item: true}); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), one)
		}
		return nil
	case kBlob:
		text := strings.ReplaceAll(r.values.Get(name), " ", "+") // a plus that was not escaped
		data, err := unbase64(text)
		if err != nil {
			return mismatch("%s: no base64", at)
		}
		v.SetBytes(data)
		return nil
	}
	return scalar(p, v, r.values.Get(name), at, r.c, false)
}

// appendQueryAnswer writes the query protocol's answer.
func appendQueryAnswer(b []byte, t *Table, o *Operation, p *plan, v reflect.Value, request string) []byte {
	x := &xmlWriter{b: b, query: true}
	x.open(o.Name+"Response", `xmlns="`+t.Namespace()+`"`)
	if p != nil {
		wrapper := o.Output.ResultWrapper
		if wrapper == "" {
			wrapper = o.Name + "Result"
		}
		x.open(wrapper, "")
		x.members(p, v)
		x.close(wrapper)
	}
	x.open("ResponseMetadata", "")
	x.leaf("RequestId", request)
	x.close("ResponseMetadata")
	x.close(o.Name + "Response")
	return x.b
}

// Namespace is that of the query protocol's answers.
func (t *Table) Namespace() string {
	if t.Metadata.XMLNamespace != "" {
		return t.Metadata.XMLNamespace
	}
	if t.Name == "sqs" {
		return "http://queue.amazonaws.com/doc/" + t.Metadata.APIVersion + "/"
	}
	return "http://" + t.Metadata.EndpointPrefix + ".amazonaws.com/doc/" + t.Metadata.APIVersion + "/"
}

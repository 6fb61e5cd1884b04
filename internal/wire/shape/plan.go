package shape

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

type kind uint8

const (
	kString kind = iota
	kInt
	kFloat
	kBool
	kTime
	kBlob
	kStream
	kList
	kMap
	kStruct
	kAny    // an interface: the shape decides
	kCustom // reads and writes itself
)

// plan is how a Go type holds a shape. It is not changed after it was made.
type plan struct {
	shape  *Shape
	typ    reflect.Type // no pointer
	kind   kind
	elem   *plan // of a list, of a map's values
	fields []field
	byName map[string]*field // by the member's name
	root   string            // of a structure: the name of its XML element
	loose  *plan             // of kAny: how the value inside is held
}

type field struct {
	name   string
	ref    *Ref
	index  int // of the Go field; -1 in a map[string]any
	plan   *plan
	always bool
}

var (
	anyType      = reflect.TypeFor[any]()
	timeType     = reflect.TypeFor[time.Time]()
	bytesType    = reflect.TypeFor[[]byte]()
	readerType   = reflect.TypeFor[io.Reader]()
	rawType      = reflect.TypeFor[json.RawMessage]()
	unmarshaler  = reflect.TypeFor[json.Unmarshaler]()
	marshaler    = reflect.TypeFor[json.Marshaler]()
	looseMapType = reflect.TypeFor[map[string]any]()
)

type planKey struct {
	shape *Shape
	typ   reflect.Type
}

// planner makes plans, each once.
type planner struct {
	mu   sync.Mutex
	made map[planKey]*plan
}

var plans = planner{made: map[planKey]*plan{}}

func planFor(s *Shape, t reflect.Type, path string) (*plan, error) {
	plans.mu.Lock()
	defer plans.mu.Unlock()
	return plans.plan(s, t, path)
}

func (ps *planner) plan(s *Shape, t reflect.Type, path string) (*plan, error) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	key := planKey{s, t}
	if p := ps.made[key]; p != nil {
		return p, nil
	}
	p := &plan{shape: s, typ: t}
	ps.made[key] = p // before its parts: shapes contain themselves
	if err := ps.fill(p, path); err != nil {
		delete(ps.made, key)
		return nil, err
	}
	return p, nil
}

func (ps *planner) fill(p *plan, path string) (err error) {
	s, t := p.shape, p.typ
	wrong := func() error { return fmt.Errorf("%s: a %s does not fit into %s", path, s.Type, t) }
	if t != timeType && t != rawType && (reflect.PointerTo(t).Implements(unmarshaler) || t.Implements(marshaler)) || t == rawType {
		p.kind = kCustom
		return nil
	}
	if t == anyType {
		p.kind = kAny
		if p.loose, err = ps.plan(s, looseType(s), path); err != nil {
			return err
		}
		return nil
	}
	kinds, ok := goKinds[s.Type]
	switch {
	case s.Type == "blob" && t.Implements(readerType):
		p.kind = kStream
	case s.Type == "blob" && t == bytesType:
		p.kind = kBlob
	case s.Type == "timestamp" && t == timeType:
		p.kind = kTime
	case s.Type == "list" && t.Kind() == reflect.Slice:
		p.kind = kList
		p.elem, err = ps.plan(s.Member.Shape, t.Elem(), path+"[]")
	case s.Type == "map" && t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		p.kind = kMap
		p.elem, err = ps.plan(s.Value.Shape, t.Elem(), path+"{}")
	case s.Type == "structure" && t == looseMapType:
		p.kind = kStruct
		err = ps.looseFields(p, path)
	case s.Type == "structure" && t.Kind() == reflect.Struct:
		p.kind = kStruct
		err = ps.structFields(p, path)
	case ok && slices.Contains(kinds.go_, t.Kind()):
		p.kind = kinds.kind
	default:
		return wrong()
	}
	return err
}

var goKinds = map[string]struct {
	kind kind
	go_  []reflect.Kind
}{
	"string":    {kString, []reflect.Kind{reflect.String}},
	"character": {kString, []reflect.Kind{reflect.String}},
	"integer":   {kInt, []reflect.Kind{reflect.Int, reflect.Int32, reflect.Int64}},
	"long":      {kInt, []reflect.Kind{reflect.Int, reflect.Int64}},
	"float":     {kFloat, []reflect.Kind{reflect.Float64}},
	"double":    {kFloat, []reflect.Kind{reflect.Float64}},
	"boolean":   {kBool, []reflect.Kind{reflect.Bool}},
}

// looseType is what an any holds of a shape.
func looseType(s *Shape) reflect.Type {
	switch s.Type {
	case "list":
		return reflect.TypeFor[[]any]()
	case "map", "structure":
		return looseMapType
	case "integer", "long":
		return reflect.TypeFor[int64]()
	case "float", "double":
		return reflect.TypeFor[float64]()
	case "boolean":
		return reflect.TypeFor[bool]()
	case "timestamp":
		return timeType
	case "blob":
		return bytesType
	}
	return reflect.TypeFor[string]()
}

func (ps *planner) looseFields(p *plan, path string) error {
	for name, ref := range p.shape.Members {
		sub, err := ps.plan(ref.Shape, anyType, path+"."+name)
		if err != nil {
			return err
		}
		p.fields = append(p.fields, field{name: name, ref: ref, index: -1, plan: sub})
	}
	slices.SortFunc(p.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	p.indexFields()
	return nil
}

func (ps *planner) structFields(p *plan, path string) error {
	members := map[string]string{}
	for name := range p.shape.Members {
		members[exported(name)] = name
	}
	for i := range p.typ.NumField() {
		f := p.typ.Field(i)
		tag, option, _ := strings.Cut(f.Tag.Get("wire"), ",")
		if f.Name == "_" {
			p.root = strings.TrimPrefix(option, "root=")
			continue
		}
		if tag == "-" || !f.IsExported() {
			continue
		}
		name := tag
		if name == "" {
			name = members[f.Name]
		}
		ref := p.shape.Members[name]
		if ref == nil {
			return fmt.Errorf("%s: %s has no member for the field %s", path, p.shape.Name, f.Name)
		}
		sub, err := ps.plan(ref.Shape, f.Type, path+"."+name)
		if err != nil {
			return err
		}
		p.fields = append(p.fields, field{name: name, ref: ref, index: i, plan: sub, always: option == "always"})
	}
	p.indexFields()
	return nil
}

func (p *plan) indexFields() {
	p.byName = make(map[string]*field, len(p.fields))
	for i := range p.fields {
		p.byName[p.fields[i].name] = &p.fields[i]
	}
}

// settle gives the value that v points to, made where there is none.
func settle(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return v.Elem()
	}
	return v
}

// into lets f fill the field of the structure v.
func (fd *field) into(v reflect.Value, f func(reflect.Value) error) error {
	if fd.index >= 0 {
		return f(settle(v.Field(fd.index)))
	}
	one := reflect.New(anyType).Elem()
	if err := f(one); err != nil {
		return err
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	v.SetMapIndex(reflect.ValueOf(fd.name), one)
	return nil
}

// from gives the value of the field in the structure v, and whether an answer has it.
func (fd *field) from(v reflect.Value) (reflect.Value, bool) {
	if fd.index < 0 {
		one := v.MapIndex(reflect.ValueOf(fd.name))
		return one, one.IsValid() && !(one.Kind() == reflect.Interface && one.IsNil())
	}
	one := v.Field(fd.index)
	switch one.Kind() {
	case reflect.Pointer:
		return one.Elem(), !one.IsNil()
	case reflect.Interface, reflect.Slice, reflect.Map:
		return one, !one.IsNil()
	}
	return one, fd.always || !one.IsZero()
}

// has says whether the field was given in a request; for those that no pointer tells of, that they are not zero.
func (fd *field) has(v reflect.Value) bool {
	_, ok := fd.from(v)
	return ok
}

package shape

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
)

// Codec is one operation bound to the Go types of its input and output. It may be used concurrently.
type Codec struct {
	Table     *Table
	Operation *Operation
	in, out   *plan // nil where there is none
}

// Bind makes the Codec of an operation. in and out are structs, map[string]any, or struct{} where nothing is used.
func (t *Table) Bind(operation string, in, out reflect.Type) (*Codec, error) {
	o := t.Operations[operation]
	if o == nil {
		return nil, fmt.Errorf("%s has no operation %s", t.Name, operation)
	}
	if o.HTTP.Method == "" {
		return nil, fmt.Errorf("the table of %s has no shapes of %s; name it in services.txt", t.Name, operation)
	}
	c := &Codec{Table: t, Operation: o}
	for _, side := range []struct {
		ref *Ref
		typ reflect.Type
		to  **plan
	}{{o.Input, in, &c.in}, {o.Output, out, &c.out}} {
		if side.ref == nil {
			if side.typ != nil && (side.typ.Kind() != reflect.Struct || side.typ.NumField() > 0) {
				return nil, fmt.Errorf("%s.%s has nothing to put into %s", t.Name, operation, side.typ)
			}
			continue
		}
		if side.typ == nil {
			side.typ = reflect.TypeFor[struct{}]()
		}
		p, err := planFor(side.ref.Shape, side.typ, t.Name+"."+operation)
		if err != nil {
			return nil, err
		}
		*side.to = p
	}
	return c, nil
}

// Request is what a Codec reads.
type Request struct {
	Protocol Protocol          // JSON or Query where a service has both; else the table's
	Labels   map[string]string // from Route
	Query    url.Values        // of Query: with the body's
	Header   http.Header
	Body     []byte
	Stream   io.Reader // in place of Body where Streams
	Strict   bool      // check enums and bounds too
}

// Streams says whether the operation's request body is to be read by the operation itself.
func (c *Codec) Streams() bool {
	fd := c.payload(c.in)
	return fd != nil && fd.plan.kind == kStream
}

// payload is the field that is the whole body.
func (c *Codec) payload(p *plan) *field {
	if p == nil || p.shape.Payload == "" {
		return nil
	}
	return p.byName[p.shape.Payload]
}

// Read fills into, a pointer to the type of the input. Its error is a *Fault.
func (c *Codec) Read(r *Request, into any) error {
	if c.in == nil {
		return nil
	}
	v := reflect.ValueOf(into).Elem()
	check := &checks{values: r.Strict}
	var err error
	switch r.Protocol {
	case JSON:
		err = (&jsonReader{data: r.Body, c: check}).document(c.in, v)
	case Query:
		err = newQueryReader(r.Query, check).object(c.in, v, "", nil)
	default:
		err = c.readRest(r, v, check)
	}
	if err != nil {
		return err
	}
	return check.fault()
}

func (c *Codec) readRest(r *Request, v reflect.Value, check *checks) error {
	p := c.in
	if p.typ == looseMapType {
		v.Set(reflect.MakeMap(p.typ))
	}
	for i := range p.fields {
		fd := &p.fields[i]
		if err := c.readLocated(r, fd, v, check); err != nil {
			return err
		}
	}
	if err := c.readBody(r, v, check); err != nil {
		return err
	}
	for _, name := range p.shape.Required {
		if fd := p.byName[name]; fd != nil && !fd.has(v) && (fd.ref.Location != "" || p.shape.Payload == "" && c.Table.Metadata.Protocol == RESTJSON || p.shape.Payload == name) && fd.index >= 0 && fd.plan.kind != kStream {
			if k := v.Field(fd.index).Kind(); k == reflect.String || k == reflect.Pointer || k == reflect.Slice || k == reflect.Map {
				check.add(&trail{name: name}, name, Problem{Missing: true, Constraint: "Member must not be null"})
			}
		}
	}
	return nil
}

// readLocated reads a member that stands in the path, the query string or a header.
func (c *Codec) readLocated(r *Request, fd *field, v reflect.Value, check *checks) error {
	at := &trail{name: fd.name}
	set := func(text string, header bool) error {
		return fd.into(v, func(one reflect.Value) error { return scalar(fd.plan, one, text, at, check, header) })
	}
	name := fd.ref.name(fd.name)
	switch fd.ref.Location {
	case "uri":
		if text, ok := r.Labels[name]; ok {
			return set(text, false)
		}
	case "querystring":
		switch list, ok := r.Query[name]; {
		case fd.plan.kind == kMap:
			return fd.into(v, func(one reflect.Value) error {
				m := map[string]string{}
				for k := range r.Query {
					m[k] = r.Query.Get(k)
				}
				one.Set(reflect.ValueOf(m).Convert(one.Type()))
				return nil
			})
		case !ok:
		case fd.plan.kind == kList:
			return fd.into(v, func(one reflect.Value) error { return readTexts(fd.plan, one, list, at, check) })
		case list[0] != "" || fd.plan.kind == kString:
			return set(list[0], false)
		}
	case "header":
		list := r.Header.Values(name)
		if len(list) == 0 {
			return nil
		}
		if fd.plan.kind == kList {
			var parts []string
			for part := range strings.SplitSeq(strings.Join(list, ","), ",") {
				parts = append(parts, strings.TrimSpace(part))
			}
			return fd.into(v, func(one reflect.Value) error { return readTexts(fd.plan, one, parts, at, check) })
		}
		return set(strings.TrimSpace(list[0]), true)
	case "headers":
		m := map[string]string{}
		for k, list := range r.Header {
			if len(k) > len(name) && strings.EqualFold(k[:len(name)], name) {
				m[strings.ToLower(k[len(name):])] = strings.Join(list, ",")
			}
		}
		if len(m) > 0 {
			return fd.into(v, func(one reflect.Value) error {
				if one.Kind() == reflect.Interface {
					one.Set(reflect.ValueOf(m))
				} else {
					one.Set(reflect.ValueOf(m).Convert(one.Type()))
				}
				return nil
			})
		}
	}
	return nil
}

func readTexts(p *plan, v reflect.Value, list []string, at *trail, check *checks) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, len(list)))
	for _, text := range list {
		one := reflect.New(v.Type().Elem()).Elem()
		if err := scalar(p.elem, settle(one), text, at, check, true); err != nil {
			return err
		}
		v.Set(reflect.Append(v, one))
	}
	return nil
}

func (c *Codec) readBody(r *Request, v reflect.Value, check *checks) error {
	p := c.in
	if p.shape.Payload != "" {
		fd := p.byName[p.shape.Payload]
		if fd == nil {
			return nil
		}
		return c.readPayload(r, fd, v, check)
	}
	if c.Table.Metadata.Protocol == RESTXML {
		n, err := parseXML(r.Body)
		if err != nil || n == nil {
			return err
		}
		return (&xmlReader{check}).object(p, v, n, nil)
	}
	if len(r.Body) == 0 {
		return nil
	}
	return (&jsonReader{data: r.Body, c: check, rest: true}).document(p, v)
}

func (c *Codec) readPayload(r *Request, fd *field, v reflect.Value, check *checks) error {
	switch {
	case fd.plan.kind == kStream:
		if r.Stream != nil {
			v.Field(fd.index).Set(reflect.ValueOf(r.Stream))
		}
		return nil
	case fd.plan.kind == kBlob && len(r.Body) > 0:
		return fd.into(v, func(one reflect.Value) error { one.SetBytes(r.Body); return nil })
	case fd.plan.kind == kString && len(r.Body) > 0:
		return fd.into(v, func(one reflect.Value) error { one.SetString(string(r.Body)); return nil })
	case len(r.Body) == 0:
		return nil
	case c.Table.Metadata.Protocol == RESTXML:
		n, err := parseXML(r.Body)
		if err != nil {
			return err
		}
		if n == nil {
			return malformed("The XML you provided has no root")
		}
		return fd.into(v, func(one reflect.Value) error {
			return (&xmlReader{check}).value(fd.plan, one, []*node{n}, fd.ref, &trail{name: fd.name})
		})
	}
	return fd.into(v, func(one reflect.Value) error {
		return (&jsonReader{data: r.Body, c: check, rest: true}).document(fd.plan, one)
	})
}

// Answer is what a Codec writes.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Stream io.Reader // in place of Body, where it is not nil; closed by whoever sends it when it is an io.Closer
}

// Write makes the answer of an output, a pointer to the type of the output or nil.
func (c *Codec) Write(protocol Protocol, out any, request string) (*Answer, error) {
	a := &Answer{Status: http.StatusOK, Header: http.Header{}}
	v := reflect.ValueOf(out)
	if v.IsValid() && v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if c.out != nil && !v.IsValid() {
		v = reflect.New(c.out.typ).Elem()
	}
	var err error
	switch protocol {
	case JSON:
		a.Header.Set("Content-Type", "application/x-amz-json-"+c.Table.Metadata.JSONVersion)
		if c.out == nil {
			a.Body = []byte("{}")
			if c.Table.Metadata.Protocol == JSON && c.Table.Name == "kinesis" { // says nothing at all
				a.Body = nil
			}
			return a, nil
		}
		a.Body, err = appendJSON(nil, c.out, v, false)
	case Query:
		a.Header.Set("Content-Type", "text/xml")
		a.Body = appendQueryAnswer([]byte(xmlHead), c.Table, c.Operation, c.out, v, request)
	default:
		err = c.writeRest(a, v)
	}
	return a, err
}

const xmlHead = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

func (c *Codec) writeRest(a *Answer, v reflect.Value) error {
	if c.Operation.HTTP.Status != 0 {
		a.Status = c.Operation.HTTP.Status
	}
	if c.out == nil {
		return nil
	}
	body := false
	for i := range c.out.fields {
		fd := &c.out.fields[i]
		one, ok := fd.from(v)
		if !ok {
			continue
		}
		name := fd.ref.name(fd.name)
		switch fd.ref.Location {
		case "header":
			a.Header.Set(name, textOf(fd.plan, one, rfcForm))
		case "headers":
			for _, k := range sortedKeys(one) {
				a.Header.Set(name+k.String(), fmt.Sprint(one.MapIndex(k)))
			}
		case "statusCode":
			if n, err := strconv.Atoi(textOf(fd.plan, one, "")); err == nil && n > 0 {
				a.Status = n
			}
		default:
			body = true
		}
	}
	return c.writeBody(a, v, body)
}

func (c *Codec) writeBody(a *Answer, v reflect.Value, body bool) (err error) {
	p := c.out
	isXML := c.Table.Metadata.Protocol == RESTXML
	if p.shape.Payload == "" {
		members := 0
		for _, ref := range p.shape.Members {
			if ref.Location == "" {
				members++
			}
		}
		switch {
		case members == 0 || a.Status == http.StatusNoContent:
		case isXML:
			a.Header.Set("Content-Type", "application/xml")
			x := &xmlWriter{b: []byte(xmlHead)}
			root := p.rootName(c.Operation.Output)
			x.open(root, `xmlns="`+c.Table.namespaceOf()+`"`)
			x.members(p, v)
			x.close(root)
			a.Body = x.b
		default:
			a.Header.Set("Content-Type", "application/json")
			a.Body, err = appendJSON(nil, p, v, true)
		}
		return err
	}
	fd := p.byName[p.shape.Payload]
	if fd == nil {
		return nil
	}
	one, ok := fd.from(v)
	if !ok {
		return nil
	}
	switch {
	case fd.plan.kind == kStream:
		a.Stream = one.Interface().(io.Reader)
	case fd.plan.kind == kBlob:
		a.Body = one.Bytes()
	case fd.plan.kind == kString:
		a.Body = []byte(one.String())
	case isXML:
		a.Header.Set("Content-Type", "application/xml")
		x := &xmlWriter{b: []byte(xmlHead)}
		root := fd.plan.rootName(fd.ref)
		x.open(root, `xmlns="`+c.Table.namespaceOf()+`"`)
		x.members(fd.plan, one)
		x.close(root)
		a.Body = x.b
	default:
		a.Header.Set("Content-Type", "application/json")
		a.Body, err = appendJSON(nil, fd.plan, one, true)
	}
	return err
}

// rootName is the name of the element around an answer.
func (p *plan) rootName(ref *Ref) string {
	switch {
	case p.root != "":
		return p.root
	case ref.LocationName != "":
		return ref.LocationName
	case p.shape.LocationName != "":
		return p.shape.LocationName
	}
	return strings.TrimSuffix(p.shape.Name, "Output") + map[bool]string{true: "Result"}[strings.HasSuffix(p.shape.Name, "Output")]
}

// namespaceOf is that of rest-xml answers.
func (t *Table) namespaceOf() string {
	if t.Name == "s3" {
		return "http://s3.amazonaws.com/doc/" + t.Metadata.APIVersion + "/"
	}
	return t.Namespace()
}

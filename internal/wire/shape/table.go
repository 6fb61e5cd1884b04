package shape

import (
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Protocol is how a service's requests and answers are written.
type Protocol string

// The protocols.
const (
	JSON     Protocol = "json"
	Query    Protocol = "query"
	RESTJSON Protocol = "rest-json"
	RESTXML  Protocol = "rest-xml"
)

// Table is a service's operations and shapes. It is not changed after Load.
type Table struct {
	Name     string `json:"-"`
	Metadata struct {
		APIVersion     string   `json:"apiVersion"`
		EndpointPrefix string   `json:"endpointPrefix"`
		JSONVersion    string   `json:"jsonVersion"`
		Protocol       Protocol `json:"protocol"`
		ServiceID      string   `json:"serviceId"`
		SigningName    string   `json:"signingName"`
		TargetPrefix   string   `json:"targetPrefix"`
		XMLNamespace   string   `json:"xmlNamespace"`
	} `json:"metadata"`
	Operations map[string]*Operation `json:"operations"`
	Shapes     map[string]*Shape     `json:"shapes"`

	routes []route
}

// Operation is one operation. One that is known by name alone has no HTTP.
type Operation struct {
	Name string `json:"-"`
	HTTP struct {
		Method string `json:"method"`
		URI    string `json:"requestUri"`
		Status int    `json:"responseCode"`
	} `json:"http"`
	Input  *Ref `json:"input"`
	Output *Ref `json:"output"`
}

// Ref is a use of a Shape.
type Ref struct {
	ShapeName     string     `json:"shape"`
	Location      string     `json:"location"` // uri, querystring, header, headers, statusCode; else in the body
	LocationName  string     `json:"locationName"`
	QueryName     string     `json:"queryName"`
	ResultWrapper string     `json:"resultWrapper"`
	Flattened     bool       `json:"flattened"`
	Streaming     bool       `json:"streaming"`
	XMLAttribute  bool       `json:"xmlAttribute"`
	XMLNamespace  *Namespace `json:"xmlNamespace"`

	Shape *Shape `json:"-"`
}

// Namespace is that of an XML element.
type Namespace struct {
	URI    string `json:"uri"`
	Prefix string `json:"prefix"`
}

// Shape is a type.
type Shape struct {
	Name         string          `json:"-"`
	Type         string          `json:"type"`
	Members      map[string]*Ref `json:"members"`
	Required     []string        `json:"required"`
	Member       *Ref            `json:"member"` // of a list
	Key          *Ref            `json:"key"`    // of a map
	Value        *Ref            `json:"value"`
	Enum         []string        `json:"enum"`
	Min          *float64        `json:"min"`
	Max          *float64        `json:"max"`
	Payload      string          `json:"payload"`
	Flattened    bool            `json:"flattened"`
	Streaming    bool            `json:"streaming"`
	EventStream  bool            `json:"eventstream"`
	Timestamp    string          `json:"timestampFormat"`
	LocationName string          `json:"locationName"`
	XMLNamespace *Namespace      `json:"xmlNamespace"`
}

//go:embed tables/*.json
var files embed.FS

var loaded sync.Map // name → func() (*Table, error)

// Load gives a service's table, which is read once.
func Load(name string) (*Table, error) {
	f, _ := loaded.LoadOrStore(name, sync.OnceValues(func() (*Table, error) { return load(name) }))
	return f.(func() (*Table, error))()
}

func load(name string) (*Table, error) {
	data, err := files.ReadFile("tables/" + name + ".json")
	if err != nil {
		return nil, fmt.Errorf("there is no table of the service %s", name)
	}
	t := &Table{Name: name}
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("table of %s: %w", name, err)
	}
	if t.Metadata.SigningName == "" {
		t.Metadata.SigningName = t.Metadata.EndpointPrefix
	}
	link := func(r *Ref) {
		if r == nil {
			return
		}
		if r.Shape = t.Shapes[r.ShapeName]; r.Shape == nil {
			err = fmt.Errorf("table of %s: there is no shape %s", name, r.ShapeName)
		}
	}
	for n, s := range t.Shapes {
		s.Name = n
		for _, r := range s.Members {
			link(r)
		}
		link(s.Member)
		link(s.Key)
		link(s.Value)
	}
	for n, o := range t.Operations {
		o.Name = n
		link(o.Input)
		link(o.Output)
	}
	if err == nil {
		t.routes = routesOf(t)
	}
	return t, err
}

// flat says whether a list or map has no element of its own around it.
func (r *Ref) flat() bool { return r.Flattened || r.Shape.Flattened }

// name is what a member is called in rest bodies and headers.
func (r *Ref) name(member string) string {
	if r.LocationName != "" {
		return r.LocationName
	}
	return member
}

// queryName is what a member is called in the query protocol and its answers.
func (r *Ref) queryName(member string) string {
	if r.QueryName != "" {
		return r.QueryName
	}
	return r.name(member)
}

// required says whether a member must be there.
func (s *Shape) required(member string) bool { return slices.Contains(s.Required, member) }

// exported is the name of the Go field for a member.
func exported(member string) string { return strings.ToUpper(member[:1]) + member[1:] }

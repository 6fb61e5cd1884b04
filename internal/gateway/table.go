package gateway

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// The longest an API waits for a function: API Gateway quotas, "Integration timeout" and "Maximum integration timeout".
// A function URL waits as long as the function may run.
const (
	restTimeout = 29 * time.Second
	httpTimeout = 30 * time.Second
)

// site is the compiled form of a Mount. It does not change.
type site struct {
	tenant, app, stage string
	fronts             []*front          // REST and HTTP APIs in the order of their declaration
	urls               map[string]*front // function URLs by key
	root               *front            // the function URL that serves "/", where it is the only thing to serve
	infos              []RouteInfo
}

// front is one API.
type front struct {
	site   *site
	kind   app.APIKind
	prefix string // "/dev", or empty where the stage has none
	tree   node
	def    *route // $default
	cors   *cors
}

// route is one Route, ready to serve.
type route struct {
	front    *front
	route    invocation.Route // what every Request of it shares; Params is nil
	function string           // full name
	label    string           // "GET /users/{id}"
	params   []string         // names, in the order of the pattern
	shape    string           // one digit a segment: 3 static, 2 parameter, 1 greedy
	timeout  time.Duration    // 0 means none
	inactive string           // why it answers 501
	mock     *app.Mock
	preflit  *app.CORS // REST: this is an OPTIONS mock
	custom   bool      // the function gets the body, not an event
	stream   bool
}

// class orders matches of different fronts: text only, parameters, greedy, $default.
func (r *route) class() int {
	switch {
	case r == r.front.def:
		return 0
	case strings.Contains(r.shape, "1"):
		return 1
	case strings.Contains(r.shape, "2"):
		return 2
	}
	return 3
}

// compile builds a site. open serves what is not protected yet.
func compile(m Mount, open bool) (*site, error) {
	a := m.App
	s := &site{tenant: m.Tenant, app: a.Name, stage: a.Stage, urls: map[string]*front{}}
	if m.Region == "" {
		m.Region = "us-east-1"
	}
	byID := map[string]*front{}
	shared := map[string]invocation.Route{}
	for i := range a.APIs {
		api := &a.APIs[i]
		f := &front{site: s, kind: api.Kind}
		if api.Stage != "" && api.Stage != "$default" {
			f.prefix = "/" + api.Stage
		}
		if api.Kind == app.HTTP {
			f.cors = newCORS(api.CORS)
		}
		vars, err := stageVars(m, api)
		if err != nil {
			return nil, err
		}
		id := APIID(m.Tenant, a.Name, a.Stage, api.ID)
		stage := api.Stage
		if stage == "" {
			stage = "$default"
		}
		shared[api.ID] = invocation.Route{APIKind: string(api.Kind), APIID: id, Domain: id + ".execute-api." + m.Region + ".amazonaws.com",
			Account: m.Account, Stage: stage, StageVars: vars, Binary: api.Binary}
		byID[api.ID] = f
		if api.Kind == app.REST || api.Kind == app.HTTP {
			s.fronts = append(s.fronts, f)
		}
	}
	for i := range a.Routes {
		d := &a.Routes[i]
		f := byID[d.API]
		if f == nil {
			return nil, errs.New(errs.Invalid, "mount %s: the route %s %s belongs to no API", a.Name, d.Method, d.Path)
		}
		r, err := newRoute(a, d, f, shared[d.API], open)
		if err != nil {
			return nil, err
		}
		s.infos = append(s.infos, info(a, d, r))
		if f.kind == app.WebSocket {
			continue // its routes are message names, not paths
		}
		f.put(r)
	}
	for i := range a.Routes {
		if d := &a.Routes[i]; d.CORS != nil && byID[d.API].kind == app.REST {
			f := byID[d.API]
			f.put(&route{front: f, label: "OPTIONS " + d.Path, preflit: d.CORS, route: withPattern(shared[d.API], "OPTIONS", d.Path)})
		}
	}
	s.addURLs(m, open)
	return s, nil
}

// put adds a route to the tree, or as the catch-all.
func (f *front) put(r *route) {
	if r.route.Pattern == "$default" {
		if f.def == nil {
			f.def = r
		}
		return
	}
	f.tree.insert(r)
}

func stageVars(m Mount, api *app.API) (map[string]string, error) {
	vars := make(map[string]string, len(api.StageVars))
	for name, v := range api.StageVars {
		text, ok := v.Literal()
		if !ok {
			var err error
			if m.StageVars == nil {
				return nil, errs.New(errs.Invalid, "mount %s: nothing resolves the stage variable %q of the API %q", m.App.Name, name, api.ID)
			}
			if text, err = m.StageVars(v); err != nil {
				return nil, fmt.Errorf("mount %s: stage variable %q of the API %q: %w", m.App.Name, name, api.ID, err)
			}
		}
		vars[name] = text
	}
	return vars, nil
}

func withPattern(r invocation.Route, method, pattern string) invocation.Route {
	r.Method, r.Pattern = method, pattern
	r.ResourceID = stableID(6, r.APIID, pattern)
	return r
}

func newRoute(a *app.App, d *app.Route, f *front, shared invocation.Route, open bool) (*route, error) {
	r := &route{front: f, route: withPattern(shared, d.Method, d.Path), mock: d.Mock, custom: d.Custom, label: d.Method + " " + d.Path}
	if d.Path == "$default" {
		r.label = "$default"
	}
	r.route.Format = d.Format
	switch {
	case f.kind == app.REST:
		r.route.Format, r.timeout = "1.0", restTimeout
	case f.kind == app.HTTP:
		r.timeout = httpTimeout
		if r.route.Format == "" {
			r.route.Format = "2.0"
		}
	}
	r.stream, r.route.Stream = d.Stream && f.kind == app.REST, d.Stream && f.kind == app.REST // HTTP APIs buffer
	if d.TimeoutMS > 0 {
		r.timeout = time.Duration(d.TimeoutMS) * time.Millisecond
	}
	if d.Function != "" {
		fn := a.Function(d.Function)
		if fn == nil {
			return nil, errs.New(errs.Invalid, "mount %s: the route %s leads to no function %q", a.Name, r.label, d.Function)
		}
		r.function = fn.Name
	}
	r.inactive = inactive(d, a.API(d.API), open)
	return r, nil
}

// inactive says why a Route is declared, but not served. Protection that is not enforced can be opened; the rest cannot.
func inactive(d *app.Route, api *app.API, open bool) string {
	switch {
	case api.Kind == app.WebSocket:
		return "WebSocket APIs are declared, not yet active."
	case d.Proxy != "":
		return "HTTP integrations are declared, not yet active: this route leads to " + d.Proxy + "."
	case d.Async:
		return "Asynchronous routes are declared, not yet active."
	case d.Custom && len(d.Templates) > 0:
		return "Request templates of a non-proxy integration are declared, not yet active."
	case open:
		return ""
	case d.Authorizer != nil:
		name := ""
		if d.Authorizer.Name != "" {
			name = " " + fmt.Sprintf("%q", d.Authorizer.Name)
		}
		return "The " + d.Authorizer.Kind + " authorizer" + name + " of this route is declared, not yet active, and the route is not served without it."
	case d.APIKey:
		return "The API key of this route is declared, not yet active, and the route is not served without it."
	case api.Policy:
		return "The resource policy of this API is declared, not yet active, and the API is not served without it."
	}
	return ""
}

func info(a *app.App, d *app.Route, r *route) RouteInfo {
	i := RouteInfo{Method: d.Method, Path: d.Path, Function: r.function, API: r.front.kind, URL: d.Path, Inactive: r.inactive}
	if fn := a.Function(d.Function); fn != nil {
		i.Key = fn.Key
	}
	if d.Path == "$default" && r.front.kind == app.HTTP {
		i.Method, i.Path, i.URL = "ANY", "*", "/"
	}
	return i
}

// addURLs adds the function URLs. One that is all there is to serve is also at the root.
func (s *site) addURLs(m Mount, open bool) {
	a := m.App
	for i := range a.Functions {
		fn := &a.Functions[i]
		if fn.URL == nil {
			continue
		}
		f := &front{site: s, kind: app.FuncURL, cors: newCORS(fn.URL.CORS)}
		id := stableID(32, m.Tenant, a.Name, a.Stage, fn.Key)
		f.def = &route{front: f, function: fn.Name, label: "$default", stream: fn.URL.Stream, route: invocation.Route{
			APIKind: string(app.FuncURL), APIID: id, Domain: id + ".lambda-url." + m.Region + ".on.aws", Account: m.Account, Stage: "$default",
			Method: "ANY", Pattern: "$default", ResourceID: "$default", Format: "2.0", Stream: fn.URL.Stream}}
		if strings.EqualFold(fn.URL.Auth, "iam") && !open {
			f.def.inactive = "IAM authorization of this function URL is declared, not yet active, and the function is not served without it."
		}
		s.urls[fn.Key] = f
		s.infos = append(s.infos, RouteInfo{Method: "ANY", Path: "*", Function: fn.Name, Key: fn.Key, API: app.FuncURL,
			URL: urlPrefix + fn.Key + "/", Inactive: f.def.inactive})
	}
	served := func(r app.Route) bool { k := a.API(r.API).Kind; return k == app.REST || k == app.HTTP }
	if len(s.urls) == 1 && !slices.ContainsFunc(a.Routes, served) {
		for _, f := range s.urls {
			s.root = f
		}
		s.infos[len(s.infos)-1].URL = "/"
	}
}

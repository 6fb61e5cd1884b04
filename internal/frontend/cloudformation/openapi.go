package cloudformation

import (
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

const integrationKey = "x-amazon-apigateway-integration"

// openAPI is the document that an API is made from: Swagger 2.0 or OpenAPI 3, with API Gateway's extensions.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-swagger-extensions.html
type openAPI struct {
	l   *loader
	r   *resource
	api int // index in App.APIs
	doc object
}

// document reads the Body of an API into routes. They come after the functions, when the API's own properties are read.
func (l *loader) document(r *resource) {
	i := slices.IndexFunc(l.app.APIs, func(a app.API) bool { return a.ID == r.id })
	body := r.props.Get("Body")
	if i < 0 || body.IsNull() || isFaulty(body) {
		return
	}
	if isPending(body) {
		l.diags.Warnf(body.Pos, "openapi", "Write the document into the template.", "the OpenAPI document of %q is known only to a deploy; its routes are not read", r.id)
		return
	}
	if body.Kind != Map {
		l.object(r.props).bad("Body", "a map")
		return
	}
	d := &openAPI{l: l, r: r, api: i, doc: l.object(body)}
	d.settings()
	paths := d.doc.obj("paths")
	for _, p := range mapEntries(paths.n) {
		item := paths.obj(p.Key)
		for _, m := range mapEntries(item.n) {
			method, ok := openMethod(m.Key)
			if !ok || m.Value.IsNull() {
				continue
			}
			op := item.obj(m.Key)
			if op.n == nil {
				continue
			}
			d.operation(&resource{id: r.id, typ: r.typ, pos: m.Pos, decl: r.decl, props: r.props}, method, p.Key, op)
		}
	}
	if len(d.doc.obj("x-amazon-apigateway-gateway-responses").keys()) > 0 {
		l.diags.Notef(d.doc.pos("x-amazon-apigateway-gateway-responses"), "no-effect", "", "the gateway responses of %q have no effect here: errors have the standard answers", r.id)
	}
}

func (o object) keys() []Entry { return mapEntries(o.n) }

// openMethod is the method of a key of a path; false for what else may stand there.
func openMethod(key string) (string, bool) {
	switch key {
	case "get", "put", "post", "delete", "options", "head", "patch":
		return strings.ToUpper(key), true
	case "x-amazon-apigateway-any-method":
		return "ANY", true
	}
	return "", false
}

// settings reads what the document says of the whole API. The resource's own properties go first.
func (d *openAPI) settings() {
	api := &d.l.app.APIs[d.api]
	if api.Name == "" {
		api.Name = d.doc.obj("info").val("title").String()
	}
	if len(api.Binary) == 0 {
		api.Binary = d.doc.strs("x-amazon-apigateway-binary-media-types")
	}
	for i, b := range api.Binary {
		api.Binary[i] = strings.ReplaceAll(b, "~1", "/")
	}
	if declared(d.doc.n.Get("x-amazon-apigateway-policy")) {
		api.Policy = true
	}
	if api.MinCompress == 0 {
		api.MinCompress = d.doc.num("x-amazon-apigateway-minimum-compression-size", 0)
	}
	if c := d.doc.obj("x-amazon-apigateway-cors"); api.CORS == nil && c.n != nil && api.Kind == app.HTTP {
		api.CORS = &app.CORS{Origins: c.strs("allowOrigins"), Methods: c.strs("allowMethods"), Headers: c.strs("allowHeaders"),
			Expose: c.strs("exposeHeaders"), MaxAgeSec: c.num("maxAge", 0), Credentials: c.flag("allowCredentials", false)}
	}
}

// operation reads one method of one path.
func (d *openAPI) operation(r *resource, method, path string, op object) {
	api := d.l.app.APIs[d.api]
	route := app.Route{API: api.ID, Method: method, Path: path}
	if api.Kind == app.HTTP && (path == "/$default" || path == "$default" || op.flag("isDefaultRoute", false)) {
		route.Path = "$default"
	}
	in := op.obj(integrationKey)
	if named, ok := strings.CutPrefix(in.str("$ref"), "#/components/x-amazon-apigateway-integrations/"); ok {
		in = d.doc.obj("components").obj("x-amazon-apigateway-integrations").obj(named)
	}
	if in.n == nil {
		d.l.diags.Warnf(r.pos, "no-integration", "Add "+integrationKey+".", "the route %s %s of the OpenAPI document has no integration", method, path)
		return
	}
	d.security(&route, op)
	if v := op.str("x-amazon-apigateway-request-validator"); v != "" || d.doc.has("x-amazon-apigateway-request-validator") {
		route.Schemas = true
	}
	if in.has("timeoutInMillis") {
		route.TimeoutMS = in.num("timeoutInMillis", 0)
	}
	if api.Kind == app.HTTP {
		route.Format = "1.0"
		if s := in.str("payloadFormatVersion"); s != "" {
			route.Format = s
		}
	} else {
		route.Format = "1.0"
	}
	if d.integrate(r, &route, in) {
		d.l.addRoute(r, route)
	}
}

// integrate reads where a route leads to. False where that is nowhere here, with the reason said.
func (d *openAPI) integrate(r *resource, route *app.Route, in object) bool {
	switch typ := strings.ToUpper(in.str("type")); typ {
	case "AWS_PROXY", "AWS":
		if s := in.str("subtype") + in.str("integrationSubtype"); s != "" {
			d.l.diags.Warnf(in.pos("type"), "no-integration", "", "the route %s %s leads to a service, not a function: %s", route.Method, route.Path, s)
			return false
		}
		if route.Function = d.l.named(in.val("uri")); route.Function == "" {
			d.l.diags.Warnf(in.pos("uri"), "not-here", "", "the route %s %s leads to no function of this template: %s", route.Method, route.Path, in.val("uri"))
			return false
		}
		route.Stream = typ == "AWS_PROXY" && strings.EqualFold(in.str("responseTransferMode"), "STREAM")
		if v := in.obj("requestParameters").val("integration.request.header.X-Amz-Invocation-Type"); v.String() == "'Event'" {
			route.Async = true
		}
		if typ == "AWS" {
			route.Custom, route.Templates = true, in.strMap("requestTemplates")
			route.Passthrough, route.Answers = strings.ToUpper(in.str("passthroughBehavior")), openAnswers(in)
		}
	case "HTTP_PROXY", "HTTP":
		route.Proxy, route.Templates = in.val("uri").String(), in.strMap("requestTemplates")
		if route.Proxy == "" {
			in.bad("uri", "the address of an HTTP integration")
			return false
		}
	case "MOCK":
		d.mock(r, route, in)
		return false // it is a route already, or waits for those beside it
	default:
		d.l.diags.Warnf(in.pos("type"), "no-integration", "", "the route %s %s has no integration that is known: %q", route.Method, route.Path, typ)
		return false
	}
	return true
}

// openAnswers reads the responses of a Custom integration; the default comes last.
func openAnswers(in object) []app.Answer {
	var out, last []app.Answer
	responses := in.obj("responses")
	for _, en := range responses.keys() {
		o := responses.obj(en.Key)
		a := app.Answer{Status: o.num("statusCode", 200), Templates: o.strMap("responseTemplates")}
		for k, v := range o.strMap("responseParameters") {
			if name, ok := strings.CutPrefix(k, "method.response.header."); ok {
				if a.Header == nil {
					a.Header = map[string]string{}
				}
				a.Header[name] = v
			}
		}
		if en.Key == "default" {
			last = append(last, a)
			continue
		}
		a.Pattern = en.Key
		out = append(out, a)
	}
	return append(out, last...)
}

// mock reads an answer without a function, in the form in which a template has one.
func (d *openAPI) mock(r *resource, route *app.Route, in object) {
	route.Format = ""
	var answers []*Node
	responses := in.obj("responses")
	for _, en := range responses.keys() {
		o := responses.obj(en.Key)
		answers = append(answers, NewMap(en.Pos, Entry{Key: "StatusCode", Pos: en.Pos, Value: or(o.n.Get("statusCode"), Str(en.Pos, "200"))},
			Entry{Key: "ResponseParameters", Pos: en.Pos, Value: quoted(or(o.n.Get("responseParameters"), NewMap(en.Pos)))},
			Entry{Key: "ResponseTemplates", Pos: en.Pos, Value: or(o.n.Get("responseTemplates"), NewMap(en.Pos))}))
	}
	same := NewMap(in.at, Entry{Key: "RequestTemplates", Pos: in.at, Value: or(in.n.Get("requestTemplates"), NewMap(in.at))},
		Entry{Key: "IntegrationResponses", Pos: in.at, Value: NewList(in.at, answers...)})
	if d.l.rest[route.API] == nil { // an HTTP API has none
		d.l.diags.Warnf(in.pos("type"), "no-integration", "", "the route %s %s is a mock, which an HTTP API has not", route.Method, route.Path)
		return
	}
	d.l.restMock(r, route.API, *route, d.l.object(same))
}

// quoted gives numbers, which need no quotes, those of a text.
func quoted(n *Node) *Node {
	out := NewMap(n.Place())
	for _, en := range mapEntries(n) {
		if s, ok := asLiteral(en.Value); ok && s != "" && strings.Trim(s, "0123456789") == "" {
			en.Value = Str(en.Value.Pos, "'"+s+"'")
		}
		out.Entries = append(out.Entries, en)
	}
	return out
}

func or(ns ...*Node) *Node {
	for _, n := range ns {
		if !n.IsNull() {
			return n
		}
	}
	return nil
}

// security reads who may use a route: of several alternatives the first that decides, and a key beside it.
func (d *openAPI) security(route *app.Route, op object) {
	if auth := op.obj("x-amazon-apigateway-auth"); strings.EqualFold(auth.str("type"), "AWS_IAM") {
		route.Authorizer = &app.Authorizer{Kind: "iam"}
	}
	from := op
	if !op.has("security") {
		if op.n.Get("security") != nil {
			return
		}
		from = d.doc
	}
	for _, s := range from.objs("security") {
		for _, en := range s.keys() {
			scheme := d.doc.obj("securityDefinitions").obj(en.Key)
			if scheme.n == nil {
				scheme = d.doc.obj("components").obj("securitySchemes").obj(en.Key)
			}
			if scheme.n == nil && en.Key == "NONE" { // what SAM leaves where a default is not meant
				continue
			}
			if scheme.n == nil {
				d.l.diags.Warnf(en.Pos, "unknown-ref", "", "the OpenAPI document defines no security scheme %q", en.Key)
				if route.Authorizer == nil { // the route is not meant for everybody
					route.Authorizer = &app.Authorizer{Kind: "request", Name: en.Key}
				}
				continue
			}
			d.scheme(route, en.Key, scheme, s.strs(en.Key))
		}
	}
}

func (d *openAPI) scheme(route *app.Route, name string, scheme object, scopes []string) {
	inner := scheme.obj("x-amazon-apigateway-authorizer")
	authtype := strings.ToLower(scheme.str("x-amazon-apigateway-authtype"))
	switch {
	case route.Authorizer != nil && !strings.EqualFold(scheme.str("name"), "x-api-key"):
	case authtype == "awssigv4":
		route.Authorizer = &app.Authorizer{Kind: "iam"}
	case inner.n != nil:
		route.Authorizer = d.authorizer(name, scheme, inner, scopes)
	case strings.EqualFold(scheme.str("name"), "x-api-key"):
		route.APIKey = true
	case scheme.str("type") == "openIdConnect":
		route.Authorizer = &app.Authorizer{Kind: "jwt", Name: name, Source: scheme.val("openIdConnectUrl"), Scopes: scopes}
	}
}

func (d *openAPI) authorizer(name string, scheme, in object, scopes []string) *app.Authorizer {
	rest := d.l.app.APIs[d.api].Kind == app.REST
	a := &app.Authorizer{Name: name, Scopes: scopes}
	if rest {
		a.TTLSec = in.num("authorizerResultTtlInSeconds", 300)
	} else {
		a.TTLSec = in.num("authorizerResultTtlInSeconds", 0)
	}
	header := scheme.str("name")
	switch typ := strings.ToLower(in.str("type")); typ {
	case "cognito_user_pools":
		a.Kind, a.Identity = "cognito", []string{"method.request.header." + header}
		if arns := in.vals("providerARNs"); len(arns) > 0 {
			a.Source = arns[0]
		}
		return a
	case "jwt":
		jwt := in.obj("jwtConfiguration")
		a.Kind, a.Source, a.Audience, a.Identity = "jwt", jwt.val("issuer"), jwt.vals("audience"), in.strs("identitySource")
		return a
	case "token":
		a.Kind, a.Identity = "token", []string{"method.request.header." + header}
	case "request":
		a.Kind = "request"
		for _, s := range in.strs("identitySource") {
			for _, part := range strings.Split(s, ",") {
				a.Identity = append(a.Identity, strings.TrimSpace(part))
			}
		}
		if !rest {
			a.Simple, a.Format = in.flag("enableSimpleResponses", false), in.str("authorizerPayloadFormatVersion")
		}
	default:
		in.bad("type", "token, request, jwt or cognito_user_pools")
		return nil
	}
	uri := in.val("authorizerUri")
	if a.Function = d.l.named(uri); a.Function == "" {
		a.Source = uri
		d.l.diags.Warnf(in.pos("authorizerUri"), "not-here", "", "the authorizer %q leads to no function of this template: %s", name, uri)
	}
	return a
}

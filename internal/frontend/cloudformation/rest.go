package cloudformation

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

// restAPI is what the resources of one API Gateway REST API say together.
type restAPI struct {
	paths map[string]string      // logical ID of an ApiGateway::Resource → path
	cors  map[string]*app.CORS   // path → CORS of its OPTIONS mock
	mocks map[string]restPending // path → the mock itself, for a path without other routes
}

type restPending struct {
	r     *resource
	route app.Route
}

// frontOf is the logical ID of the API of a resource that must be in the template.
func (l *loader) frontOf(r *resource, o object, key, typ string) string {
	v := o.val(key)
	if id, _, ok := v.Attribute(); ok && l.byID[id] != nil && l.byID[id].typ == typ {
		return id
	}
	l.diags.Warnf(o.pos(key), "not-here", "", "%s %q belongs to an API outside this template: %s", shortType(r.typ), r.id, v)
	return ""
}

// restAPI reads AWS::ApiGateway::RestApi.
func (l *loader) restAPI(r *resource) {
	r.modeled = true
	o := l.object(r.props)
	api := app.API{ID: r.id, Kind: app.REST, Name: o.val("Name").String(), Binary: o.strs("BinaryMediaTypes"), Policy: declared(r.props.Get("Policy")),
		MinCompress: o.num("MinimumCompressionSize", 0)}
	if types := o.obj("EndpointConfiguration").strs("Types"); len(types) > 0 {
		api.Endpoint = strings.ToLower(types[0])
	}
	l.remoteBody(r, o)
	l.rest[r.id] = &restAPI{paths: map[string]string{}, cors: map[string]*app.CORS{}, mocks: map[string]restPending{}}
	l.app.APIs = append(l.app.APIs, api)
}

// remoteBody says that an API's routes are in a document which is not here.
func (l *loader) remoteBody(r *resource, o object) {
	if o.has("BodyS3Location") {
		l.diags.Warnf(o.pos("BodyS3Location"), "openapi", "Write the document into the template, as Body.", "routes in the OpenAPI document of %q are not read", r.id)
		r.modeled = false
	}
}

// declared says whether a document is there: Serverless writes an empty text where there is no policy.
func declared(n *Node) bool {
	if s, ok := asLiteral(n); ok {
		return s != ""
	}
	return !n.IsNull() && (n.Kind != Map || len(n.Entries) > 0)
}

// restResource finds the path of an AWS::ApiGateway::Resource by its parents.
func (l *loader) restResource(r *resource) {
	o := l.object(r.props)
	id := l.frontOf(r, o, "RestApiId", "AWS::ApiGateway::RestApi")
	if id == "" {
		return
	}
	if p, ok := l.restPath(r, 0); ok {
		r.modeled = true
		l.rest[id].paths[r.id] = p
	}
}

func (l *loader) restPath(r *resource, depth int) (string, bool) {
	o := l.object(r.props)
	part := o.str("PathPart")
	parent, attr, ok := o.val("ParentId").Attribute()
	switch {
	case ok && attr == "RootResourceId":
		return "/" + part, true
	case ok && l.byID[parent] != nil && l.byID[parent].typ == r.typ && depth < 100:
		p, ok := l.restPath(l.byID[parent], depth+1)
		return p + "/" + part, ok
	}
	if depth < 100 {
		l.diags.Warnf(o.pos("ParentId"), "not-here", "", "the parent of path part %q is outside this template: %s", part, o.val("ParentId"))
	}
	return "", false
}

// restStage reads AWS::ApiGateway::Stage.
func (l *loader) restStage(r *resource) {
	o := l.object(r.props)
	if id := l.frontOf(r, o, "RestApiId", "AWS::ApiGateway::RestApi"); id != "" {
		r.modeled = l.stage(r, id, o.str("StageName"), o.valMap("Variables"))
	}
}

// restDeployment reads AWS::ApiGateway::Deployment, which may name a stage itself.
func (l *loader) restDeployment(r *resource) {
	o := l.object(r.props)
	id := l.frontOf(r, o, "RestApiId", "AWS::ApiGateway::RestApi")
	if id == "" {
		return
	}
	r.modeled = true
	if name := o.str("StageName"); name != "" {
		r.modeled = l.stage(r, id, name, o.obj("StageDescription").valMap("Variables"))
	}
}

// stage gives an API its stage: the App's own if it is there, else the first.
func (l *loader) stage(r *resource, id, name string, vars map[string]app.Value) bool {
	api := l.app.API(id)
	if api.Stage != "" && api.Stage != name && name != l.app.Stage {
		l.diags.Warnf(r.pos, "second-stage", "", "the API %q is served at its stage %q only, not at %q", id, api.Stage, name)
		return false
	}
	if api.Stage != "" && api.Stage != name {
		l.diags.Warnf(r.pos, "second-stage", "", "the API %q is served at its stage %q only, not at %q", id, name, api.Stage)
	}
	if api.Stage != name || len(vars) > 0 {
		api.Stage, api.StageVars = name, vars
	}
	return true
}

// settleStages gives the APIs without a stage the App's.
func (l *loader) settleStages() {
	for i := range l.app.APIs {
		if api := &l.app.APIs[i]; api.Stage == "" {
			api.Stage = l.app.Stage
			l.diags.Warnf(l.byID[api.ID].pos, "no-stage", "", "the API %q has no stage; %q is taken", api.ID, api.Stage)
		}
	}
}

// restMethod reads AWS::ApiGateway::Method.
func (l *loader) restMethod(r *resource) {
	o := l.object(r.props)
	id := l.frontOf(r, o, "RestApiId", "AWS::ApiGateway::RestApi")
	if id == "" {
		return
	}
	where, attr, ok := o.val("ResourceId").Attribute()
	p, known := l.rest[id].paths[where]
	if ok && where == id && attr == "RootResourceId" {
		p, known = "/", true
	}
	if !known {
		if l.byID[where] == nil || l.byID[where].typ != "AWS::ApiGateway::Resource" {
			l.diags.Warnf(o.pos("ResourceId"), "not-here", "", "the path of the method %q is outside this template: %s", r.id, o.val("ResourceId"))
		}
		return
	}
	method := strings.ToUpper(o.str("HttpMethod"))
	route := app.Route{API: id, Method: method, Path: p, Format: "1.0",
		APIKey: o.flag("ApiKeyRequired", false), Schemas: o.has("RequestValidatorId"), Authorizer: l.restAuthorizer(o)}
	in := o.obj("Integration")
	l.checkKeys("AWS::ApiGateway::Method Integration", in.n)
	if in.has("TimeoutInMillis") {
		route.TimeoutMS = in.num("TimeoutInMillis", 0)
	}
	if v := in.obj("RequestParameters").val("integration.request.header.X-Amz-Invocation-Type"); v.String() == "'Event'" {
		route.Async = true
	}
	switch typ := strings.ToUpper(in.str("Type")); typ {
	case "AWS_PROXY", "AWS":
		route.Function = l.named(in.val("Uri"))
		if route.Function == "" {
			l.diags.Warnf(in.pos("Uri"), "not-here", "", "the route %s %s leads to no function of this template: %s", method, p, in.val("Uri"))
			return
		}
		route.Stream = typ == "AWS_PROXY" && strings.EqualFold(in.str("ResponseTransferMode"), "STREAM")
		if typ == "AWS" {
			route.Custom, route.Templates = true, in.strMap("RequestTemplates")
			route.Passthrough, route.Answers = in.str("PassthroughBehavior"), answers(in)
		}
	case "HTTP_PROXY", "HTTP":
		route.Proxy, route.Templates = in.val("Uri").String(), in.strMap("RequestTemplates")
		if route.Proxy == "" {
			in.bad("Uri", "the address of an HTTP integration")
		}
	case "MOCK":
		r.modeled = true
		l.restMock(r, id, route, in)
		return
	default:
		l.diags.Warnf(in.pos("Type"), "no-integration", "", "the route %s %s has no integration that is known: %q", method, p, typ)
		return
	}
	r.modeled = true
	l.addRoute(r, route)
}

// answers reads the responses of a Custom integration; the one without a pattern comes last.
func answers(in object) []app.Answer {
	var out, last []app.Answer
	for _, o := range in.objs("IntegrationResponses") {
		a := app.Answer{Status: o.num("StatusCode", 200), Pattern: o.str("SelectionPattern"), Templates: o.strMap("ResponseTemplates")}
		for k, v := range o.strMap("ResponseParameters") {
			if name, ok := strings.CutPrefix(k, "method.response.header."); ok {
				if a.Header == nil {
					a.Header = map[string]string{}
				}
				a.Header[name] = v
			}
		}
		if a.Pattern == "" {
			last = append(last, a)
		} else {
			out = append(out, a)
		}
	}
	return append(out, last...)
}

// restMock reads an answer without a function. An OPTIONS mock with CORS headers belongs to the routes beside it.
func (l *loader) restMock(r *resource, id string, route app.Route, in object) {
	mock := &app.Mock{Status: 200, Header: map[string]string{}}
	if m := regexp.MustCompile(`statusCode"?\s*:\s*"?(\d{3})`).FindStringSubmatch(in.strMap("RequestTemplates")["application/json"]); m != nil {
		mock.Status, _ = strconv.Atoi(m[1])
	}
	answers := in.objs("IntegrationResponses")
	at := slices.IndexFunc(answers, func(a object) bool { return a.val("StatusCode").String() == strconv.Itoa(mock.Status) })
	if at < 0 && len(answers) > 0 {
		at = 0
		mock.Status = answers[0].num("StatusCode", mock.Status)
	}
	if at >= 0 {
		for k, v := range answers[at].strMap("ResponseParameters") {
			name, ok := strings.CutPrefix(k, "method.response.header.")
			if ok && strings.HasPrefix(v, "'") {
				mock.Header[name] = strings.Trim(v, "'")
			}
		}
		mock.Body = answers[at].strMap("ResponseTemplates")["application/json"]
	}
	route.Mock = mock
	if cors := mockCORS(mock.Header, mock.Body); route.Method == "OPTIONS" && cors != nil {
		l.rest[id].cors[route.Path] = cors
		l.rest[id].mocks[route.Path] = restPending{r, route}
		return
	}
	if len(mock.Header) == 0 {
		mock.Header = nil
	}
	l.addRoute(r, route)
}

// mockCORS reads the headers of a preflight answer, nil when there are none. Where several origins are allowed, the
// answer's template names them as patterns and puts the asking one into the header.
func mockCORS(header map[string]string, body string) *app.CORS {
	get := func(name string) string {
		for k, v := range header {
			if strings.EqualFold(k, "Access-Control-"+name) {
				return v
			}
		}
		return ""
	}
	list := func(s string) []string {
		var out []string
		for _, p := range strings.Split(s, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
		return out
	}
	c := &app.CORS{Origins: list(get("Allow-Origin")), Methods: list(get("Allow-Methods")), Headers: list(get("Allow-Headers")),
		Expose: list(get("Expose-Headers")), Credentials: get("Allow-Credentials") == "true"}
	if strings.Contains(body, "responseOverride.header.Access-Control-Allow-Origin") {
		for _, m := range regexp.MustCompile(`\.matches\("([^"]+)"\)`).FindAllStringSubmatch(body, -1) {
			origin := strings.NewReplacer("[.]", ".", `\.`, ".", ".+", "*", ".*", "*", "^", "", "$", "").Replace(m[1])
			if !slices.Contains(c.Origins, origin) {
				c.Origins = append(c.Origins, origin)
			}
		}
	}
	c.MaxAgeSec, _ = strconv.Atoi(get("Max-Age"))
	if len(c.Origins) == 0 {
		return nil
	}
	return c
}

// restCORS hands each preflight answer to the routes beside it, or makes it a route of its own.
func (l *loader) restCORS() {
	for _, r := range l.resources {
		api := l.rest[r.id]
		if api == nil {
			continue
		}
		for _, p := range sortedKeys(api.cors) {
			found := false
			for i := range l.app.Routes {
				if rt := &l.app.Routes[i]; rt.API == r.id && rt.Path == p {
					rt.CORS, found = api.cors[p], true
				}
			}
			if !found {
				l.addRoute(api.mocks[p].r, api.mocks[p].route)
			}
		}
	}
}

// restAuthorizer reads who may call a method.
func (l *loader) restAuthorizer(o object) *app.Authorizer {
	scopes := o.strs("AuthorizationScopes")
	switch typ := o.str("AuthorizationType"); typ {
	case "", "NONE":
		return nil
	case "AWS_IAM":
		return &app.Authorizer{Kind: "iam"}
	case "CUSTOM", "COGNITO_USER_POOLS":
		a := &app.Authorizer{Kind: "cognito", Scopes: scopes}
		if typ == "CUSTOM" {
			a.Kind = "token"
		}
		id, _, _ := o.val("AuthorizerId").Attribute()
		r := l.byID[id]
		if r == nil || r.typ != "AWS::ApiGateway::Authorizer" {
			a.Source = o.val("AuthorizerId")
			l.diags.Warnf(o.pos("AuthorizerId"), "not-here", "", "the authorizer of this method is outside this template: %s", a.Source)
			return a
		}
		r.modeled = true
		ao := l.object(r.props)
		a.Name, a.TTLSec = ao.val("Name").String(), ao.num("AuthorizerResultTtlInSeconds", 300)
		if s := ao.str("IdentitySource"); s != "" {
			a.Identity = strings.Split(s, ",")
			for i := range a.Identity {
				a.Identity[i] = strings.TrimSpace(a.Identity[i])
			}
		}
		switch ao.str("Type") {
		case "TOKEN":
			a.Kind = "token"
		case "REQUEST":
			a.Kind = "request"
		case "COGNITO_USER_POOLS":
			a.Kind = "cognito"
			if arns := ao.vals("ProviderARNs"); len(arns) > 0 {
				a.Source = arns[0]
				if len(arns) > 1 {
					l.diags.Warnf(ao.pos("ProviderARNs"), "known-late", "", "the authorizer %q has several user pools; only the first is taken", id)
				}
			}
			return a
		default:
			ao.bad("Type", "TOKEN, REQUEST or COGNITO_USER_POOLS")
		}
		l.authorizerFunction(a, ao)
		return a
	default:
		o.bad("AuthorizationType", "NONE, AWS_IAM, CUSTOM or COGNITO_USER_POOLS")
	}
	return nil
}

// authorizerFunction finds the Function that decides, or keeps its address.
func (l *loader) authorizerFunction(a *app.Authorizer, o object) {
	if a.Function = l.named(o.val("AuthorizerUri")); a.Function == "" {
		a.Source = o.val("AuthorizerUri")
		l.diags.Warnf(o.pos("AuthorizerUri"), "not-here", "", "the authorizer %q leads to no function of this template: %s", a.Name, a.Source)
	}
}

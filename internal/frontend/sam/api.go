package sam

import (
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

const (
	implicitREST = "ServerlessRestApi"
	implicitHTTP = "ServerlessHttpApi"
	integration  = "x-amazon-apigateway-integration"
	anyMethod    = "x-amazon-apigateway-any-method"
)

// api is one AWS::Serverless::Api or HttpApi, declared or implied by events that name none.
type api struct {
	*resource
	c       *compiler
	managed bool // its OpenAPI document is made of the events
	body    *cfn.Node
	conds   map[string][]string // conditions of the methods of a path; "" is one without
}

func (a *api) rest() bool { return a.kind == "Api" }

// findAPIs collects the APIs before the functions that have routes in them.
func (c *compiler) findAPIs() {
	for _, r := range c.decls {
		if r.kind == "Api" || r.kind == "HttpApi" {
			c.addAPI(r)
		}
	}
	for _, implied := range []struct{ event, key, id string }{{"Api", "RestApiId", implicitREST}, {"HttpApi", "ApiId", implicitHTTP}} {
		var conds []string
		found, always := false, false
		var pos diag.Pos
		for _, r := range c.decls {
			if r.kind != "Function" && r.kind != "StateMachine" {
				continue
			}
			for _, e := range entries(r.props.Get("Events")) {
				if text(e.Value.Get("Type")) != implied.event || !e.Value.At("Properties", implied.key).IsNull() && target(e.Value.At("Properties", implied.key)) != implied.id {
					continue
				}
				if !found {
					found, pos = true, e.Pos
				}
				if r.cond == "" {
					always = true
				}
				conds = append(conds, r.cond)
			}
		}
		if !found || c.apis[implied.id] != nil {
			continue
		}
		r := &resource{id: implied.id, kind: implied.event, pos: pos, decl: cfn.NewMap(pos), props: cfn.NewMap(pos)}
		if implied.event == "Api" {
			r.props = obj(pos, "StageName", "Prod")
		}
		r.props = c.withGlobals(r)
		if !always {
			r.cond = c.anyOf(implied.id+"Condition", conds)
			r.decl = r.decl.With("Condition", cfn.Str(pos, r.cond))
		}
		c.byID[r.id] = r
		c.addAPI(r)
	}
}

func (c *compiler) addAPI(r *resource) {
	a := &api{resource: r, c: c, conds: map[string][]string{}}
	body, uri := r.props.Get("DefinitionBody"), r.props.Get("DefinitionUri")
	switch {
	case !body.IsNull():
		a.body = body
		if body.Kind != cfn.Map {
			c.l.Errorf(body.Pos, "bad-value", "", "DefinitionBody of %q must be a map", r.id)
			a.body = nil
		}
	case !uri.IsNull():
		if file, ok := c.known(uri); ok && !strings.HasPrefix(file, "s3://") {
			a.body = c.include(uri.Pos, file)
		} else {
			c.l.Warnf(uri.Pos, "openapi", "Name a file of the project.", "the OpenAPI document of %q is not in the project; its routes are not read", r.id)
		}
	default:
		a.managed = true
		title := obj(r.pos, "version", "1.0", "title", or(r.props.Get("Name"), ref(r.pos, "AWS::StackName")))
		version := []any{"swagger", "2.0"}
		if v := text(r.props.Get("OpenApiVersion")); a.kind == "HttpApi" {
			version = []any{"openapi", "3.0.1"}
		} else if strings.HasPrefix(v, "3") {
			version = []any{"openapi", v}
		}
		if a.rest() {
			title = obj(r.pos, "version", "1.0", "title", ref(r.pos, "AWS::StackName"))
		}
		a.body = obj(r.pos, append(version, "info", title, "paths", cfn.NewMap(r.pos))...)
	}
	c.apis[r.id] = a
	c.order = append(c.order, r.id)
}

// apiOf finds the API of an event.
func (f *function) apiOf(e cfn.Entry, p *cfn.Node, key, implicit, kind string) *api {
	n := p.Get(key)
	id := implicit
	if !n.IsNull() {
		id = target(n)
	}
	a := f.c.apis[id]
	if r := f.c.byID[id]; a == nil && r != nil && text(r.decl.Get("Type")) == "AWS::ApiGateway::RestApi" && kind == "Api" {
		return &api{resource: r, c: f.c} // its routes are in the template
	}
	if a == nil || a.kind != kind {
		f.c.l.Errorf(or(n, e.Value).Pos, "unknown-ref", near(id, f.c.order, ""), "%s of the event %q must name an %s%s of the same template", key, e.Key, prefix, kind)
		return nil
	}
	return a
}

func methodKey(method string) string {
	if method = strings.ToLower(method); method == "any" || method == "*" {
		return anyMethod
	}
	return method
}

// apiEvent adds a route of a REST API.
func (f *function) apiEvent(e cfn.Entry, p *cfn.Node, id string) {
	if !f.need(e, p, "Path") || !f.need(e, p, "Method") {
		return
	}
	a := f.apiOf(e, p, "RestApiId", implicitREST, "Api")
	if a == nil {
		return
	}
	path, _ := f.c.known(p.Get("Path"))
	method, _ := f.c.known(p.Get("Method"))
	suffix := "Stage"
	if s, ok := a.props.Get("StageName").Text(); ok {
		suffix = s
	}
	permission := id + "Permission" + suffix
	if !alphanumeric(suffix) {
		permission = hashed(id+"Permission", suffix)
	}
	f.permission(permission, "apigateway.amazonaws.com", "SourceArn", f.callers(e, or(p.Get("RestApiId"), ref(e.Pos, a.id)), method, path))
	auth := p.Get("Auth")
	if !a.managed && !isTrue(a.props.Get("MergeDefinitions")) {
		if isTrue(auth.Get("OverrideApiAuth")) && a.body != nil {
			a.edit(func(at, m string, def *cfn.Node) *cfn.Node {
				if at == path && m == methodKey(method) {
					return a.methodAuth(def, auth, e)
				}
				return def
			})
		}
		return
	}
	stream := text(p.Get("ResponseTransferMode")) == "RESPONSE_STREAM"
	in := obj(e.Pos, "type", "aws_proxy", "httpMethod", "POST", "uri", f.uri(stream), "timeoutInMillis", or(p.Get("TimeoutInMillis")))
	if stream {
		in = in.With("responseTransferMode", cfn.Str(e.Pos, "STREAM"))
	}
	def := a.methodAuth(obj(e.Pos, integration, in, "responses", cfn.NewMap(e.Pos)), auth, e)
	if p.At("Auth", "ResourcePolicy") != nil && a.body != nil {
		a.body = a.body.With("x-amazon-apigateway-policy", p.At("Auth", "ResourcePolicy"))
	}
	if m := p.Get("RequestModel"); !m.Get("ValidateBody").IsNull() || !m.Get("ValidateParameters").IsNull() {
		def = def.With("x-amazon-apigateway-request-validator", cfn.Str(m.Pos, "validator"))
	}
	a.add(f.resource, e, path, methodKey(method), def, true)
}

// callers is the ARN of what of an API may call the function.
func (f *function) callers(e cfn.Entry, api *cfn.Node, method, path string) *cfn.Node {
	if method = strings.ToUpper(method); methodKey(method) == anyMethod || method == strings.ToUpper(anyMethod) {
		method = "*"
	}
	return subWith(e.Pos, "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${__ApiId__}/${__Stage__}/"+method+path,
		"__ApiId__", api, "__Stage__", "*")
}

// httpEvent adds a route of an HTTP API.
func (f *function) httpEvent(e cfn.Entry, p *cfn.Node, id string) {
	a := f.apiOf(e, p, "ApiId", implicitHTTP, "HttpApi")
	if a == nil {
		return
	}
	path, _ := f.c.known(p.Get("Path"))
	method, _ := f.c.known(p.Get("Method"))
	if path == "" && method == "" {
		path, method = "$default", anyMethod
	} else if !f.need(e, p, "Path") || !f.need(e, p, "Method") {
		return
	}
	if path == "$default" || !a.defaultsTo(f) {
		at := path
		if path == "$default" {
			at = ""
		}
		f.permission(id+"Permission", "apigateway.amazonaws.com", "SourceArn", f.callers(e, or(p.Get("ApiId"), ref(e.Pos, a.id)), method, at))
	}
	format := or(p.Get("PayloadFormatVersion"), cfn.Str(e.Pos, "2.0"))
	in := obj(e.Pos, "type", "aws_proxy", "httpMethod", "POST", "payloadFormatVersion", format, "uri", f.uri(false), "timeoutInMillis", or(p.Get("TimeoutInMillis")))
	def := obj(e.Pos, integration, in, "responses", cfn.NewMap(e.Pos))
	if path == "$default" {
		def = def.With("isDefaultRoute", cfn.From(e.Pos, true))
	}
	a.add(f.resource, e, path, methodKey(method), a.methodAuth(def, p.Get("Auth"), e), a.managed)
}

// defaultsTo says whether the catch-all of the API is this function's already.
func (a *api) defaultsTo(f *function) bool {
	def := a.body.At("paths", "$default", anyMethod)
	if d := items(def.Get("Fn::If")); len(d) == 3 {
		def = d[1]
	}
	uri := def.At(integration, "uri")
	if d := items(uri.Get("Fn::If")); len(d) == 3 {
		uri = d[1]
	}
	s := text(uri.Get("Fn::Sub"))
	return strings.Contains(s, "${"+f.id+".Arn}") || f.alias != "" && strings.Contains(s, "${"+f.alias+"}")
}

// add puts a method into the API's document. One that is there is an error where the document is SAM's own; else it stays, and
// gets only the integration that it has not.
func (a *api) add(owner *resource, e cfn.Entry, path, method string, def *cfn.Node, own bool) {
	if a.body == nil {
		return
	}
	paths := place(a.body.Get("paths"), e)
	item := place(paths.Get(path), e)
	if have := item.Get(method); have != nil && own && a.managed {
		a.c.l.Errorf(e.Pos, "duplicate-route", "Remove one of the two.", "the route %s %s is there twice", strings.ToUpper(method), path)
		return
	} else if !have.IsNull() {
		if !own && have.Get(integration) != nil {
			return
		}
		def = merged(def, have)
	}
	a.conds[path] = append(a.conds[path], owner.cond)
	item = set(item, method, e, when(owner.cond, def))
	a.body = a.body.With("paths", set(paths, path, e, item))
}

// edit changes each method of the API's document that has an integration, those under conditions too.
func (a *api) edit(with func(path, method string, def *cfn.Node) *cfn.Node) {
	a.editPaths(func(path string, item *cfn.Node) *cfn.Node {
		out := cfn.NewMap(item.Pos)
		for _, m := range item.Entries {
			v := m.Value
			if strings.ToLower(m.Key) == m.Key && m.Key != "parameters" && m.Key != "summary" && m.Key != "description" {
				v = each(v, func(def *cfn.Node) *cfn.Node {
					if def.Get(integration) == nil {
						return def
					}
					return with(path, methodKey(m.Key), def)
				})
			}
			out.Entries = append(out.Entries, cfn.Entry{Key: m.Key, Pos: m.Pos, Value: v})
		}
		return out
	})
}

func (a *api) editPaths(with func(path string, item *cfn.Node) *cfn.Node) {
	paths := a.body.Get("paths")
	if paths == nil || paths.Kind != cfn.Map {
		return
	}
	out := cfn.NewMap(paths.Pos)
	for _, e := range paths.Entries {
		v := each(e.Value, func(item *cfn.Node) *cfn.Node { return with(e.Key, item) })
		out.Entries = append(out.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: v})
	}
	a.body = a.body.With("paths", out)
}

// each changes a Map, or those on both sides of Fn::If.
func each(n *cfn.Node, with func(*cfn.Node) *cfn.Node) *cfn.Node {
	if sides := items(n.Get("Fn::If")); len(sides) == 3 {
		return obj(n.Pos, "Fn::If", []*cfn.Node{sides[0], each(sides[1], with), each(sides[2], with)})
	}
	if n == nil || n.Kind != cfn.Map || isIntrinsic(n) {
		return n
	}
	return with(n)
}

// conditional puts a path under a condition when all its methods are.
func (a *api) conditional() {
	if !a.managed {
		return
	}
	paths := place(a.body.Get("paths"), cfn.Entry{Pos: a.pos})
	for i, e := range paths.Entries {
		conds := a.conds[e.Key]
		if len(conds) == 0 || contains(conds, "") {
			continue
		}
		id := a.id + strings.NewReplacer("/", "SLASH", "{", "OB", "}", "CB").Replace(e.Key) + "PathCondition"
		out := cfn.NewMap(paths.Pos, append([]cfn.Entry(nil), paths.Entries...)...)
		out.Entries[i].Value = when(a.c.anyOf(id, conds), e.Value)
		paths = out
	}
	a.body = a.body.With("paths", paths)
}

// build makes the resources of the API, when all its routes are known.
func (a *api) build() {
	if a.body != nil {
		a.conditional()
	}
	if a.rest() {
		a.buildREST()
	} else {
		a.buildHTTP()
	}
}

func (a *api) buildREST() {
	p := a.props
	if p.Get("StageName").IsNull() {
		a.c.l.Errorf(a.pos, "missing-key", "Add `StageName: Prod`.", "the API %q has no StageName", a.id)
		return
	}
	if a.body != nil {
		a.cors()
		a.auth()
		if binary := p.Get("BinaryMediaTypes"); !binary.IsNull() {
			a.body = a.body.With("x-amazon-apigateway-binary-media-types", binary)
		}
		if g := p.Get("GatewayResponses"); !g.IsNull() {
			a.body = a.body.With("x-amazon-apigateway-gateway-responses", g)
		}
	} else if !p.Get("Cors").IsNull() {
		a.c.l.Warnf(p.Get("Cors").Pos, "no-effect", "", "Cors of %q needs a document in the template", a.id)
	}
	props := obj(a.pos, "Body", a.body, "Name", or(p.Get("Name")), "Description", or(p.Get("Description")), "BinaryMediaTypes", or(p.Get("BinaryMediaTypes")),
		"MinimumCompressionSize", or(p.Get("MinimumCompressionSize")), "Policy", or(p.Get("Policy")), "Mode", or(p.Get("Mode")),
		"ApiKeySourceType", or(p.Get("ApiKeySourceType")), "DisableExecuteApiEndpoint", or(p.Get("DisableExecuteApiEndpoint")))
	if n := p.Get("EndpointConfiguration"); !n.IsNull() {
		kind := n
		if n.Kind == cfn.Map && !isIntrinsic(n) {
			kind = n.Get("Type")
		}
		props = props.With("EndpointConfiguration", obj(n.Pos, "Types", []*cfn.Node{kind}, "VpcEndpointIds", or(n.Get("VPCEndpointIds"))))
	}
	a.c.put(a.resource, a.id, "AWS::ApiGateway::RestApi", props)
	deployment := a.id + "Deployment"
	a.c.put(a.resource, deployment, "AWS::ApiGateway::Deployment", obj(a.pos, "RestApiId", ref(a.pos, a.id)))
	stage := a.stageID("Stage")
	a.c.put(a.resource, stage, "AWS::ApiGateway::Stage", obj(a.pos, "RestApiId", ref(a.pos, a.id), "DeploymentId", ref(a.pos, deployment),
		"StageName", p.Get("StageName"), "CacheClusterEnabled", or(p.Get("CacheClusterEnabled")), "CacheClusterSize", or(p.Get("CacheClusterSize")),
		"Variables", or(p.Get("Variables")), "MethodSettings", or(p.Get("MethodSettings")), "AccessLogSetting", or(p.Get("AccessLogSetting")),
		"CanarySetting", or(p.Get("CanarySetting")), "TracingEnabled", or(p.Get("TracingEnabled")), "Tags", a.c.tags(p.Get("Tags"), false)))
	a.c.renamed[a.id+".Stage"], a.c.renamed[a.id+".Deployment"] = stage, deployment
	a.authorizerPermissions()
	a.domain("AWS::ApiGateway::DomainName", "ApiGatewayDomainName", "AWS::ApiGateway::BasePathMapping", "BasePathMapping")
	a.plan(stage)
}

// stageID is the logical ID of the API's stage.
func (a *api) stageID(word string) string {
	name, ok := a.props.Get("StageName").Text()
	switch {
	case !ok:
		return a.id + word
	case alphanumeric(name):
		return a.id + name + word
	case name == "$default":
		return a.id + "ApiGatewayDefaultStage"
	}
	return hashed(a.id+word, name)
}

// cors adds an answer to preflight requests to each path that has none.
func (a *api) cors() {
	n := a.props.Get("Cors")
	if n.IsNull() || text(n) == "" && n.Kind == cfn.Scalar {
		return
	}
	conf := n
	if n.Kind != cfn.Map || isIntrinsic(n) {
		conf = obj(n.Pos, "AllowOrigin", n)
	}
	for _, e := range conf.Entries {
		known := strings.Fields("AllowMethods AllowHeaders AllowOrigin MaxAge AllowCredentials")
		if !contains(known, e.Key) {
			a.c.l.Errorf(e.Pos, "unknown-key", near(e.Key, known, ""), "Cors has no key %q", e.Key)
		}
	}
	origin := or(conf.Get("AllowOrigin"), cfn.Str(n.Pos, "'*'"))
	seen := map[string]bool{}
	a.editPaths(func(path string, item *cfn.Node) *cfn.Node {
		bare := strings.TrimRight(path, "/")
		if item.Get("options") != nil || seen[bare] {
			return item
		}
		seen[bare] = true
		methods := or(conf.Get("AllowMethods"))
		if methods == nil {
			methods = cfn.Str(n.Pos, "'"+allMethods(item)+"'")
		}
		params := obj(n.Pos, "method.response.header.Access-Control-Allow-Origin", origin,
			"method.response.header.Access-Control-Allow-Headers", or(conf.Get("AllowHeaders")),
			"method.response.header.Access-Control-Allow-Methods", methods,
			"method.response.header.Access-Control-Max-Age", or(conf.Get("MaxAge")))
		if isTrue(conf.Get("AllowCredentials")) {
			params = params.With("method.response.header.Access-Control-Allow-Credentials", cfn.Str(n.Pos, "'true'"))
		}
		return item.With("options", obj(n.Pos, "summary", "CORS support", integration, obj(n.Pos, "type", "mock",
			"requestTemplates", obj(n.Pos, "application/json", "{\n  \"statusCode\" : 200\n}\n"),
			"responses", obj(n.Pos, "default", obj(n.Pos, "statusCode", "200", "responseParameters", params,
				"responseTemplates", obj(n.Pos, "application/json", "{}\n")))),
			"responses", obj(n.Pos, "200", obj(n.Pos, "description", "Default response for CORS method"))))
	})
}

// allMethods are the methods of a path, as a preflight answer names them.
func allMethods(item *cfn.Node) string {
	list := []string{"OPTIONS"}
	for _, e := range item.Entries {
		switch m := strings.ToUpper(e.Key); {
		case e.Key == anyMethod:
			return "DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT"
		case !contains(list, m):
			list = append(list, m)
		}
	}
	return strings.Join(sortedStrings(list), ",")
}

func (a *api) buildHTTP() {
	p := a.props
	if a.body != nil {
		a.auth()
		a.httpCORS()
		if d := p.Get("Description"); !d.IsNull() {
			a.body = a.body.With("info", place(a.body.Get("info"), cfn.Entry{Pos: d.Pos}).With("description", d))
		}
	}
	a.c.put(a.resource, a.id, typeHTTPAPI, obj(a.pos, "Body", a.body, "FailOnWarnings", or(p.Get("FailOnWarnings")), "ProtocolType", httpProtocol(a)))
	if p.Get("StageName").IsNull() {
		a.props = a.props.With("StageName", cfn.Str(a.pos, "$default"))
		p = a.props
	}
	stage := a.stageID("Stage")
	a.c.put(a.resource, stage, "AWS::ApiGatewayV2::Stage", obj(a.pos, "ApiId", ref(a.pos, a.id), "StageName", p.Get("StageName"), "AutoDeploy", true,
		"StageVariables", or(p.Get("StageVariables")), "AccessLogSettings", or(p.Get("AccessLogSettings")), "DefaultRouteSettings", or(p.Get("DefaultRouteSettings")),
		"RouteSettings", or(p.Get("RouteSettings")), "Tags", or(p.Get("Tags"))))
	a.c.renamed[a.id+".Stage"] = stage
	a.authorizerPermissions()
	a.domain("AWS::ApiGatewayV2::DomainName", "ApiGatewayDomainNameV2", "AWS::ApiGatewayV2::ApiMapping", "ApiMapping")
}

const typeHTTPAPI = "AWS::ApiGatewayV2::Api"

// httpProtocol is said where there is no document that says it.
func httpProtocol(a *api) *cfn.Node {
	if a.body != nil {
		return nil
	}
	return cfn.Str(a.pos, "HTTP")
}

// httpCORS puts the answer to preflight requests into the document.
func (a *api) httpCORS() {
	n := a.props.Get("CorsConfiguration")
	switch {
	case n.IsNull() || text(n) == "false":
		return
	case text(n) == "true":
		n = obj(n.Pos, "AllowOrigins", []string{"*"})
	case n.Kind != cfn.Map || isIntrinsic(n):
		n = obj(n.Pos, "AllowOrigins", n)
	}
	cors := cfn.NewMap(n.Pos)
	for _, e := range n.Entries {
		known := strings.Fields("AllowOrigins AllowHeaders AllowMethods ExposeHeaders MaxAge AllowCredentials")
		if !contains(known, e.Key) {
			a.c.l.Errorf(e.Pos, "unknown-key", near(e.Key, known, ""), "CorsConfiguration has no key %q", e.Key)
			continue
		}
		cors.Entries = append(cors.Entries, cfn.Entry{Key: strings.ToLower(e.Key[:1]) + e.Key[1:], Pos: e.Pos, Value: e.Value})
	}
	a.body = a.body.With("x-amazon-apigateway-cors", cors)
}

// domain keeps the declaration of a name of one's own; nothing here gives the API that name.
func (a *api) domain(typ, lead, mapType, mapping string) {
	n := a.props.Get("Domain")
	if n.IsNull() {
		return
	}
	a.c.l.Notef(n.Pos, "domain", "", "the domain of the API %q is declared; here it is served under this server's names", a.id)
	name, _ := a.c.known(n.Get("DomainName"))
	id := hashed(lead, name)
	a.c.put(a.resource, id, typ, obj(n.Pos, "DomainName", or(n.Get("DomainName"))))
	a.c.put(a.resource, a.id+mapping, mapType, obj(n.Pos, "DomainName", ref(n.Pos, id), "RestApiId", ref(n.Pos, a.id), "BasePath", or(n.Get("BasePath"))))
	a.c.renamed[a.id+".DomainName"] = id
}

// plan makes the usage plan of the API, or notes that it is in the one that all share.
func (a *api) plan(stage string) {
	n := a.props.At("Auth", "UsagePlan")
	stages := obj(n.Place(), "ApiId", ref(n.Place(), a.id), "Stage", ref(n.Place(), stage))
	switch text(n.Get("CreateUsagePlan")) {
	case "PER_API":
		a.c.putPlan(a.resource, a.id, n, []*cfn.Node{stages})
	case "SHARED":
		a.c.shared = append(a.c.shared, stages)
		if a.c.plan == nil {
			a.c.plan = a.resource
		}
	}
}

// usagePlan makes the one that all share.
func (c *compiler) usagePlan() {
	if c.plan != nil {
		c.putPlan(c.plan, "Serverless", c.plan.props.At("Auth", "UsagePlan"), c.shared)
	}
}

func (c *compiler) putPlan(owner *resource, lead string, n *cfn.Node, stages []*cfn.Node) {
	pos := n.Pos
	c.put(owner, lead+"UsagePlan", "AWS::ApiGateway::UsagePlan", obj(pos, "ApiStages", stages, "UsagePlanName", or(n.Get("UsagePlanName")),
		"Description", or(n.Get("Description")), "Quota", or(n.Get("Quota")), "Throttle", or(n.Get("Throttle"))))
	c.put(owner, lead+"ApiKey", "AWS::ApiGateway::ApiKey", obj(pos, "Enabled", true))
	c.put(owner, lead+"UsagePlanKey", "AWS::ApiGateway::UsagePlanKey", obj(pos, "KeyId", ref(pos, lead+"ApiKey"), "KeyType", "API_KEY", "UsagePlanId", ref(pos, lead+"UsagePlan")))
	for _, what := range []string{"UsagePlan", "ApiKey", "UsagePlanKey"} {
		c.renamed[owner.id+"."+what] = lead + what
	}
}

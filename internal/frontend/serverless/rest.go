package serverless

import (
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

// restEvent is an http event, read.
type restEvent struct {
	fn          *function
	pos         diag.Pos
	n           *cfn.Node // the object form, or an empty map
	method      string    // upper case
	path        string    // without slashes at its ends
	integration string    // AWS_PROXY, AWS, HTTP_PROXY, HTTP, MOCK
}

func (e restEvent) methodID() string { return restMethodID(e.path, e.method) }

func restMethodID(path, method string) string {
	return "ApiGatewayMethod" + normalPath(path) + upperFirst(strings.ToLower(method))
}

// rest compiles http events: one REST API, a resource for each piece of a path, a method per event.
func (c *compiler) rest() {
	var events []restEvent
	seen := map[string]bool{}
	c.eventsOf("http", func(fn *function, e event) {
		r, ok := c.readRest(fn, e)
		if !ok {
			return
		}
		key := r.method + " /" + r.path
		if seen[key] {
			c.l.Errorf(r.pos, "duplicate-route", "Remove one of the two.", "the route %s is there twice, the second time in function %q", key, fn.key)
			return
		}
		seen[key] = true
		events = append(events, r)
	})
	if len(events) == 0 {
		return
	}
	conf := c.provider.Get("apiGateway")
	pos := orPos(conf, c.provider).Pos
	c.restAPI(conf, pos)
	paths := c.restPaths(events)
	var methods []*cfn.Node
	for _, e := range events {
		c.restMethod(e, paths)
		methods = append(methods, cfn.Str(e.pos, e.methodID()))
	}
	for _, id := range c.restCORS(events, paths) {
		methods = append(methods, cfn.Str(pos, id))
	}
	c.restValidation(conf, events)
	c.restPermissions(events)
	c.restDeployment(conf, pos, methods)
	c.restLogs()
	c.apiKeys(conf)
}

// restDeploymentID stands for Serverless's own, which ends in a random number for each run.
const restDeploymentID = "ApiGatewayDeployment"

func (c *compiler) readRest(fn *function, e event) (restEvent, bool) {
	r := restEvent{fn: fn, pos: e.pos, n: cfn.NewMap(e.pos)}
	if s, ok := e.v.Text(); ok {
		m := methodPath.FindStringSubmatch(strings.TrimSpace(s))
		if m == nil {
			c.l.Errorf(e.v.Pos, "bad-value", "Write a method and a path, as in `get users/{id}`.", "%q is no route", s)
			return r, false
		}
		r.method, r.path = m[1], m[2]
	} else {
		if e.v.Kind != cfn.Map {
			c.l.Errorf(e.pos, "missing-key", "Add `path:` and `method:` below it, indented.", "an http event of function %q is empty", fn.key)
			return r, false
		}
		r.n = e.v
		c.eventKeys(e)
		for _, key := range []string{"path", "method"} {
			if isPoison(e.v.Get(key)) {
				return r, false
			}
			if e.v.Get(key).IsNull() {
				c.l.Errorf(e.pos, "missing-key", "Add `path: users` and `method: get`.", "an http event of function %q has no %s", fn.key, key)
				return r, false
			}
		}
		r.method, r.path = c.text(e.v.Get("method"), "a route's method"), c.text(e.v.Get("path"), "a route's path")
	}
	r.method = strings.ToUpper(r.method)
	if r.method == "*" {
		r.method = "ANY"
	}
	r.path = strings.TrimSuffix(strings.TrimPrefix(r.path, "/"), "/")
	if !c.checkMethod(r.method, e.pos, fn) {
		return r, false
	}
	return r, c.readIntegration(&r)
}

var integrations = []string{"lambda-proxy", "lambda", "http-proxy", "http", "mock", "aws-proxy", "aws"}

func (c *compiler) readIntegration(r *restEvent) bool {
	r.integration = "AWS_PROXY"
	n := r.n.Get("integration")
	if !truthy(n) {
		if isTrue(r.n.Get("async")) {
			r.integration = "AWS"
		}
		return true
	}
	s := strings.ReplaceAll(strings.ToLower(c.text(n, "integration")), "_", "-")
	if !slices.Contains(integrations, s) {
		hint := "Integrations: " + strings.Join(integrations, ", ") + "."
		if near := diag.Nearest(s, integrations); near != "" {
			hint = "Did you mean \"" + near + "\"?"
		}
		c.l.Errorf(n.Pos, "bad-value", hint, "the integration %q is not known", s)
		return false
	}
	switch s {
	case "lambda":
		r.integration = "AWS"
	case "lambda-proxy":
		r.integration = "AWS_PROXY"
	default:
		r.integration = strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
	}
	if strings.HasPrefix(r.integration, "HTTP") && !truthy(r.n.At("request", "uri")) {
		c.l.Errorf(n.Pos, "missing-key", "Add request.uri with the address to pass requests to.", "an http event of function %q passes requests on, but names no address", r.fn.key)
		return false
	}
	return true
}

func (c *compiler) restAPI(conf *cfn.Node, pos diag.Pos) {
	if id := conf.Get("restApiId"); truthy(id) {
		c.l.Warnf(id.Pos, "external-api", "", "the REST API of provider.apiGateway.restApiId is outside this project; the routes get an API of their own")
	}
	var policy *cfn.Node
	if p := or(conf.Get("resourcePolicy"), c.provider.Get("resourcePolicy")); p != nil {
		policy = obj(p.Pos, "Version", "2012-10-17", "Statement", p)
	}
	endpoint := "EDGE"
	if s, ok := c.provider.Get("endpointType").Text(); ok && s != "" {
		endpoint = strings.ToUpper(s)
	}
	var source any
	if s, ok := conf.Get("apiKeySourceType").Text(); ok && s != "" {
		source = strings.ToUpper(s)
	}
	binary := or(conf.Get("binaryMediaTypes"), c.doc.At("custom", "apigwBinary", "types"))
	if binary != nil && binary.Kind != cfn.List {
		binary = cfn.NewList(binary.Pos, binary)
	}
	c.put(restAPIID, pos, "AWS::ApiGateway::RestApi", obj(pos,
		"Name", c.apiName(c.provider.Get("apiName"), conf),
		"BinaryMediaTypes", binary,
		"DisableExecuteApiEndpoint", or2(conf.Get("disableDefaultEndpoint")),
		"EndpointConfiguration", obj(pos, "Types", []string{endpoint}, "VpcEndpointIds", or(c.provider.Get("vpcEndpointIds"))),
		"Policy", policy,
		"ApiKeySourceType", source,
		"MinimumCompressionSize", or2(conf.Get("minimumCompressionSize"), c.provider.Get("minimumCompressionSize")),
		"Description", or(conf.Get("description"))))
}

// restPaths adds a resource for each piece of each path and returns what stands for a path.
func (c *compiler) restPaths(events []restEvent) func(path string, pos diag.Pos) *cfn.Node {
	ids := map[string]string{}
	taken := map[string]bool{}
	for _, e := range events {
		if e.path == "" {
			continue
		}
		parent := getAtt(e.pos, restAPIID, "RootResourceId")
		pieces := strings.Split(e.path, "/")
		for i, piece := range pieces {
			path := strings.Join(pieces[:i+1], "/")
			if ids[path] == "" {
				id := "ApiGatewayResource" + normalPath(path)
				if taken[id] {
					id = uniqueID(id, func(s string) bool { return taken[s] })
				}
				taken[id] = true
				ids[path] = id
				c.put(id, e.pos, "AWS::ApiGateway::Resource", obj(e.pos, "ParentId", parent, "PathPart", piece, "RestApiId", ref(e.pos, restAPIID)))
			}
			parent = ref(e.pos, ids[path])
		}
	}
	return func(path string, pos diag.Pos) *cfn.Node {
		if path == "" {
			return getAtt(pos, restAPIID, "RootResourceId")
		}
		return ref(pos, ids[path])
	}
}

func (c *compiler) restMethod(e restEvent, where func(string, diag.Pos) *cfn.Node) {
	deps := []*cfn.Node{cfn.Str(e.pos, normal(e.fn.key)+"LambdaPermissionApiGateway")}
	if e.fn.alias != "" {
		deps = append(deps, cfn.Str(e.pos, e.fn.alias))
	}
	props := []any{
		"HttpMethod", e.method,
		"RequestParameters", c.methodParameters(e),
		"ResourceId", where(e.path, e.pos),
		"RestApiId", ref(e.pos, restAPIID),
		"OperationName", or(e.n.Get("operationId")),
		"ApiKeyRequired", isTrue(e.n.Get("private")),
	}
	auth, authorizer := c.restAuthorizer(e)
	props = append(props, auth...)
	if authorizer != "" {
		deps = append(deps, cfn.Str(e.pos, authorizer))
	}
	props = append(props, "Integration", c.restIntegration(e), "MethodResponses", c.methodResponses(e))
	id := e.methodID()
	if c.has(id) {
		id = uniqueID(id, c.has)
	}
	c.put(id, e.pos, "AWS::ApiGateway::Method", obj(e.pos, props...), "DependsOn", deps)
}

// parameters calls f for each request parameter of an event: its name as API Gateway has it, and its value.
func parameters(e restEvent, f func(name string, v *cfn.Node)) {
	for _, place := range []string{"querystrings", "paths", "headers"} {
		for _, p := range mapEntries(e.n.At("request", "parameters", place)) {
			f("method.request."+strings.TrimSuffix(place, "s")+"."+p.Key, p.Value)
		}
	}
}

func (c *compiler) methodParameters(e restEvent) *cfn.Node {
	out := cfn.NewMap(e.pos)
	parameters(e, func(name string, v *cfn.Node) {
		if v.Kind == cfn.Map {
			v = or2(v.Get("required"), cfn.From(v.Pos, true))
		}
		out = out.With(name, v)
	})
	return out
}

// restPermissions lets the API invoke the functions and authorizers behind it.
func (c *compiler) restPermissions(events []restEvent) {
	for _, e := range events {
		id := normal(e.fn.key) + "LambdaPermissionApiGateway"
		if !c.has(id) {
			c.permit(id, e.fn, e.pos, "apigateway.amazonaws.com", "SourceArn", c.executeArn(e.pos, restAPIID, "/*/*"))
		}
	}
}

func (c *compiler) restDeployment(conf *cfn.Node, pos diag.Pos, methods []*cfn.Node) {
	stage := orText(pos, c.stage, conf.Get("stage"))
	c.put(restDeploymentID, pos, "AWS::ApiGateway::Deployment", obj(pos,
		"RestApiId", ref(pos, restAPIID), "StageName", stage, "Description", or(conf.Get("description")),
	), "DependsOn", methods)
	c.output("ServiceEndpoint", pos, "URL of the service endpoint", join(pos, "",
		"https://", ref(pos, restAPIID), ".execute-api.", ref(pos, "AWS::Region"), ".", ref(pos, "AWS::URLSuffix"), "/"+c.stage))
}

func (c *compiler) restLogs() {
	logs := c.provider.At("logs", "restApi")
	if truthy(logs) && !isFalse(logs.Get("accessLogging")) {
		c.put("ApiGatewayLogGroup", logs.Pos, "AWS::Logs::LogGroup", obj(logs.Pos,
			"LogGroupName", "/aws/api-gateway/"+c.service+"-"+c.stage, "RetentionInDays", or(c.provider.Get("logRetentionInDays"))))
	}
}

// preflight is what a path answers to OPTIONS: the CORS of all events on it together.
type preflight struct {
	pos                       diag.Pos
	origin                    string   // of the last event on the path
	origins, headers, methods []string // origins: those given as a list; the answer then names the asking one
	credentials               bool
	maxAge, cache             string
}

// union lists a's elements, then b's, each once. Serverless puts a later event's before an earlier one's.
func union(a, b []string) []string {
	var out []string
	for _, s := range slices.Concat(a, b) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// restCORS adds the OPTIONS mock of each path with CORS, and returns the logical IDs.
func (c *compiler) restCORS(events []restEvent, where func(string, diag.Pos) *cfn.Node) []string {
	var order []string
	all := map[string]preflight{}
	for _, e := range events {
		cors := e.n.Get("cors")
		if !truthy(cors) || isPoison(cors) {
			continue
		}
		p, old := c.preflight(e, cors), all[e.path]
		if old.methods == nil {
			order = append(order, e.path)
		} else {
			p.pos = old.pos
		}
		p.origins, p.headers, p.methods = union(p.origins, old.origins), union(p.headers, old.headers), union(p.methods, old.methods)
		p.credentials = p.credentials || old.credentials
		p.maxAge, p.cache = orDefault(p.maxAge, old.maxAge), orDefault(p.cache, old.cache)
		all[e.path] = p
	}
	var ids []string
	for _, path := range order {
		p := all[path]
		if len(p.origins) > 0 {
			p.origin = p.origins[0]
		}
		id := restMethodID(path, "options")
		if c.has(id) {
			c.l.Warnf(p.pos, "no-effect", "", "cors of /%s has no effect: OPTIONS goes to a function", path)
			continue
		}
		ids = append(ids, id)
		c.put(id, p.pos, "AWS::ApiGateway::Method", preflightMethod(p, where(path, p.pos)))
		c.origins["/"+path] = p.origins // a single one is in the template
	}
	return ids
}

var corsHeaders = words("Content-Type X-Amz-Date Authorization X-Api-Key X-Amz-Security-Token X-Amz-User-Agent X-Amzn-Trace-Id")

// preflight reads the cors of one event.
func (c *compiler) preflight(e restEvent, cors *cfn.Node) preflight {
	c.keys(cors, "in cors of function \""+e.fn.key+"\"", words("origin origins headers methods allowCredentials maxAge cacheControl"))
	p := preflight{pos: cors.Pos, credentials: isTrue(cors.Get("allowCredentials"))}
	p.origin = "*"
	if o := or(cors.Get("origin")); o != nil {
		p.origin = c.text(o, "cors.origin")
	}
	given := list(or(cors.Get("origins")))
	if strings.Contains(p.origin, ",") && len(given) == 0 {
		given = []*cfn.Node{cors.Get("origin")}
	}
	for _, o := range given {
		for s := range strings.SplitSeq(c.text(o, "cors.origins"), ",") {
			p.origins = append(p.origins, strings.TrimSpace(s))
		}
	}
	for _, h := range list(cors.Get("headers")) {
		p.headers = append(p.headers, c.text(h, "cors.headers"))
	}
	if len(p.headers) == 0 {
		p.headers = corsHeaders
	}
	for _, m := range list(cors.Get("methods")) {
		p.methods = append(p.methods, strings.ToUpper(c.text(m, "cors.methods")))
	}
	p.methods = union(p.methods, []string{"OPTIONS", e.method})
	p.maxAge, _ = cors.Get("maxAge").Text()
	p.cache, _ = cors.Get("cacheControl").Text()
	return p
}

// head gives the headers of the answer, names and values in turn.
func (p preflight) head() []string {
	head := []string{
		"Access-Control-Allow-Origin", p.origin,
		"Access-Control-Allow-Headers", strings.Join(p.headers, ","),
		"Access-Control-Allow-Methods", strings.Replace(strings.Join(p.methods, ","), "ANY", "DELETE,GET,HEAD,PATCH,POST,PUT", 1),
	}
	if p.credentials {
		head = append(head, "Access-Control-Allow-Credentials", "true")
	}
	if p.maxAge != "" && p.maxAge != "0" {
		head = append(head, "Access-Control-Max-Age", p.maxAge)
	}
	if p.cache != "" {
		head = append(head, "Cache-Control", p.cache)
	}
	return head
}

// preflightMethod answers OPTIONS without a function. With several origins the answer names the asking
// one, by a template.
func preflightMethod(p preflight, resource *cfn.Node) *cfn.Node {
	pos, head := p.pos, p.head()
	declared, given := cfn.NewMap(pos), cfn.NewMap(pos)
	for i := 0; i < len(head); i += 2 {
		name := "method.response.header." + head[i]
		declared = declared.With(name, cfn.From(pos, true))
		given = given.With(name, cfn.Str(pos, "'"+head[i+1]+"'"))
	}
	template := ""
	if len(p.origins) > 0 {
		var tests []string
		for _, o := range p.origins {
			tests = append(tests, `$origin.matches("`+strings.Replace(strings.ReplaceAll(o, ".", "[.]"), "*", ".+", 1)+`")`)
		}
		template = "#set($origin = $input.params(\"Origin\"))\n#if($origin == \"\") #set($origin = $input.params(\"origin\")) #end\n" +
			"#if(" + strings.Join(tests, " || ") + ") #set($context.responseOverride.header.Access-Control-Allow-Origin = $origin) #end"
	}
	return obj(pos,
		"AuthorizationType", "NONE", "HttpMethod", "OPTIONS",
		"MethodResponses", []*cfn.Node{obj(pos, "StatusCode", "200", "ResponseParameters", declared, "ResponseModels", cfn.NewMap(pos))},
		"RequestParameters", cfn.NewMap(pos),
		"Integration", obj(pos,
			"Type", "MOCK",
			"RequestTemplates", obj(pos, "application/json", "{statusCode:200}"),
			"ContentHandling", "CONVERT_TO_TEXT",
			"IntegrationResponses", []*cfn.Node{obj(pos, "StatusCode", "200", "ResponseParameters", given,
				"ResponseTemplates", obj(pos, "application/json", template))}),
		"ResourceId", resource, "RestApiId", ref(pos, restAPIID))
}

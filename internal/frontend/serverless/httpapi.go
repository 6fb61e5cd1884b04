package serverless

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

var httpMethods = words("ANY GET POST PUT PATCH OPTIONS HEAD DELETE")

var methodPath = regexp.MustCompile(`^(\S+)\s+(\S+)$`)

// httpRoute is an httpApi event, read.
type httpRoute struct {
	fn     *function
	pos    diag.Pos
	method string
	path   string // "*" is the catch-all
	auth   *cfn.Node
	limit  *cfn.Node // seconds, as older projects may say
}

func (r httpRoute) key() string {
	if r.path == "*" {
		return "*"
	}
	return r.method + " " + r.path
}

// httpAPI compiles httpApi events: one HTTP API, an integration per function, a route per event.
func (c *compiler) httpAPI() {
	var routes []httpRoute
	seen := map[string]bool{}
	c.eventsOf("httpApi", func(fn *function, e event) {
		r, ok := c.readHTTPRoute(fn, e)
		if !ok {
			return
		}
		if seen[r.key()] && r.path != "*" {
			c.l.Errorf(r.pos, "duplicate-route", "Remove one of the two.", "the route %s is there twice, the second time in function %q", r.key(), fn.key)
			return
		}
		seen[r.key()] = true
		routes = append(routes, r)
	})
	if len(routes) == 0 {
		return
	}
	conf := c.provider.Get("httpApi")
	pos := orPos(conf, c.provider).Pos
	if id := conf.Get("id"); truthy(id) {
		c.l.Warnf(id.Pos, "external-api", "", "the HTTP API of provider.httpApi.id is outside this project; the routes get an API of their own")
	}
	c.put(httpAPIID, pos, "AWS::ApiGatewayV2::Api", obj(pos,
		"Name", c.apiName(conf.Get("name"), conf), "ProtocolType", "HTTP",
		"DisableExecuteApiEndpoint", or2(conf.Get("disableDefaultEndpoint")),
		"Tags", c.provider.Get("tags"),
		"CorsConfiguration", c.httpCORS(conf.Get("cors"), routes)))
	c.httpStage(conf, pos)
	c.httpAuthorizers(conf)
	for _, r := range routes {
		c.httpEndpoint(conf, r)
	}
}

// apiName is an API's own name, or the one made of stage and service.
func (c *compiler) apiName(own, conf *cfn.Node) any {
	if truthy(own) {
		return own
	}
	if isTrue(conf.Get("shouldStartNameWithService")) {
		return c.service + "-" + c.stage
	}
	return c.stage + "-" + c.service
}

func (c *compiler) readHTTPRoute(fn *function, e event) (httpRoute, bool) {
	r := httpRoute{fn: fn, pos: e.pos}
	if s, ok := e.v.Text(); ok {
		r.path = s
		if s != "*" {
			m := methodPath.FindStringSubmatch(strings.TrimSpace(s))
			if m == nil {
				c.l.Errorf(e.v.Pos, "bad-value", "Write a method and a path, as in 'GET /users/{id}', or '*' for everything.", "%q is no route", s)
				return r, false
			}
			r.method, r.path = m[1], m[2]
		}
	} else {
		c.eventKeys(e)
		r.method = c.text(e.v.Get("method"), "a route's method")
		r.path = c.text(e.v.Get("path"), "a route's path")
		r.auth, r.limit = e.v.Get("authorizer"), e.v.Get("timeout")
		if isPoison(e.v.Get("path")) || isPoison(e.v.Get("method")) {
			return r, false
		}
	}
	r.method = strings.ToUpper(r.method)
	if r.method == "*" {
		r.method = "ANY"
	}
	switch {
	case r.path == "":
		c.l.Errorf(e.pos, "missing-key", "Add `path: /somewhere`.", "an httpApi event of function %q has no path", fn.key)
		return r, false
	case r.path == "*":
		if r.method != "" && r.method != "ANY" {
			c.l.Errorf(e.pos, "bad-value", "Leave the method out, or give a path.", "the catch-all of function %q cannot have a method", fn.key)
			return r, false
		}
		return r, true
	case !strings.HasPrefix(r.path, "/"):
		c.l.Errorf(e.pos, "bad-value", "Write /"+r.path+".", "the path %q of function %q does not begin with a slash", r.path, fn.key)
		return r, false
	case r.method == "":
		c.l.Errorf(e.pos, "missing-key", "Add `method: get`, or `'*'` for all.", "an httpApi event of function %q has no method", fn.key)
		return r, false
	}
	return r, c.checkMethod(r.method, e.pos, fn)
}

func (c *compiler) checkMethod(method string, pos diag.Pos, fn *function) bool {
	if slices.Contains(httpMethods, method) {
		return true
	}
	hint := "Methods: " + strings.Join(httpMethods, ", ") + "."
	if near := diag.Nearest(method, httpMethods); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", near)
	}
	c.l.Errorf(pos, "bad-value", hint, "the method %q of function %q is not known", method, fn.key)
	return false
}

// httpCORS gives the API's CORS. `true` allows everything that browsers ask, for the methods in use.
func (c *compiler) httpCORS(n *cfn.Node, routes []httpRoute) *cfn.Node {
	if !truthy(n) {
		return nil
	}
	c.keys(n, "in provider.httpApi.cors", corsKeys)
	unique := func(key string, fallback []string) any {
		if v := n.Get(key); truthy(v) {
			out := []*cfn.Node{}
			for _, it := range list(v) {
				if !slices.ContainsFunc(out, func(o *cfn.Node) bool { return sameNode(o, it) }) {
					out = append(out, it)
				}
			}
			return out
		}
		if fallback == nil {
			return nil
		}
		return fallback
	}
	methods := []string{"OPTIONS"}
	for _, r := range routes {
		add := []string{r.method}
		if r.method == "ANY" || r.path == "*" {
			add = httpMethods[1:]
		}
		for _, m := range add {
			if !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
		}
	}
	return obj(n.Pos,
		"AllowCredentials", or(n.Get("allowCredentials")),
		"AllowHeaders", unique("allowedHeaders", words("Content-Type X-Amz-Date Authorization X-Api-Key X-Amz-Security-Token X-Amz-User-Agent X-Amzn-Trace-Id")),
		"AllowMethods", unique("allowedMethods", methods),
		"AllowOrigins", unique("allowedOrigins", []string{"*"}),
		"ExposeHeaders", unique("exposedResponseHeaders", nil),
		"MaxAge", or2(n.Get("maxAge")))
}

func (c *compiler) httpStage(conf *cfn.Node, pos diag.Pos) {
	var access *cfn.Node
	var deps any
	if logs := c.provider.At("logs", "httpApi"); truthy(logs) {
		deps = "HttpApiLogGroup"
		c.put("HttpApiLogGroup", logs.Pos, "AWS::Logs::LogGroup", obj(logs.Pos,
			"LogGroupName", "/aws/http-api/"+c.service+"-"+c.stage, "RetentionInDays", or(c.provider.Get("logRetentionInDays"))))
		format := or(logs.Get("format"))
		if format == nil {
			format = cfn.Str(logs.Pos, `{"requestId":"$context.requestId","ip":"$context.identity.sourceIp","requestTime":"$context.requestTime","httpMethod":"$context.httpMethod","routeKey":"$context.routeKey","status":"$context.status","protocol":"$context.protocol","responseLength":"$context.responseLength"}`)
		}
		access = obj(logs.Pos, "DestinationArn", getAtt(logs.Pos, "HttpApiLogGroup", "Arn"), "Format", format)
	}
	c.put("HttpApiStage", pos, "AWS::ApiGatewayV2::Stage", obj(pos,
		"ApiId", ref(pos, httpAPIID), "StageName", "$default", "AutoDeploy", true,
		"DefaultRouteSettings", obj(pos, "DetailedMetricsEnabled", isTrue(conf.Get("metrics"))),
		"Tags", c.provider.Get("tags"),
		"AccessLogSettings", access,
	), "DependsOn", deps)
	c.output("HttpApiId", pos, "Id of the HTTP API", ref(pos, httpAPIID))
	c.output("HttpApiUrl", pos, "URL of the HTTP API",
		join(pos, "", "https://", ref(pos, httpAPIID), ".execute-api.", ref(pos, "AWS::Region"), ".", ref(pos, "AWS::URLSuffix")))
}

func (c *compiler) executeArn(pos diag.Pos, api, rest string) *cfn.Node {
	return join(pos, "", "arn:", ref(pos, "AWS::Partition"), ":execute-api:", ref(pos, "AWS::Region"), ":", ref(pos, "AWS::AccountId"), ":", ref(pos, api), rest)
}

// lambdaURI is how API Gateway addresses a function.
func lambdaURI(pos diag.Pos, target *cfn.Node) *cfn.Node {
	return join(pos, "", "arn:", ref(pos, "AWS::Partition"), ":apigateway:", ref(pos, "AWS::Region"),
		":lambda:path/2015-03-31/functions/", target, "/invocations")
}

var httpAuthorizerKeys = words("type name identitySource issuerUrl audience functionName functionArn resultTtlInSeconds enableSimpleResponses payloadVersion managedExternally")

func httpAuthorizerID(name string) string { return "HttpApiAuthorizer" + normal(name) }

// httpAuthorizers compiles provider.httpApi.authorizers.
func (c *compiler) httpAuthorizers(conf *cfn.Node) {
	for _, e := range c.entries(conf.Get("authorizers"), "provider.httpApi.authorizers") {
		n, pos := e.Value, e.Pos
		if isPoison(n) {
			continue
		}
		c.keys(n, c.where("authorizer", e.Key), httpAuthorizerKeys)
		name := e.Key
		if own := n.Get("name"); truthy(own) {
			name = c.text(own, "an authorizer's name")
		}
		identity := append([]*cfn.Node{}, list(n.Get("identitySource"))...)
		props := []any{"ApiId", ref(pos, httpAPIID), "Name", name, "IdentitySource", identity}
		if typ, _ := n.Get("type").Text(); typ != "request" {
			if n.Get("issuerUrl") == nil {
				c.l.Errorf(pos, "missing-key", "Add issuerUrl and audience, or `type: request` with a functionName.", "the authorizer %q has no issuerUrl", e.Key)
			}
			props = append(props, "AuthorizerType", "JWT",
				"JwtConfiguration", obj(pos, "Audience", append([]*cfn.Node{}, list(n.Get("audience"))...), "Issuer", n.Get("issuerUrl")))
			c.put(httpAuthorizerID(name), pos, "AWS::ApiGatewayV2::Authorizer", obj(pos, props...))
			continue
		}
		c.requestAuthorizer(e, name, props)
	}
}

func (c *compiler) requestAuthorizer(e cfn.Entry, name string, props []any) {
	n, pos := e.Value, e.Pos
	target, deps := n.Get("functionArn"), any(nil)
	if key := n.Get("functionName"); truthy(key) {
		fn := c.function(c.text(key, "functionName"))
		if fn == nil {
			c.noFunction(key.Pos, c.text(key, "functionName"), "the function of authorizer "+e.Key)
			return
		}
		target, deps = c.target(fn, pos), nonEmpty(fn.alias)
	}
	if !truthy(target) {
		c.l.Errorf(pos, "missing-key", "Add functionName or functionArn.", "the authorizer %q names no function", e.Key)
		return
	}
	props = append(props, "AuthorizerType", "REQUEST",
		"EnableSimpleResponses", or2(n.Get("enableSimpleResponses")),
		"AuthorizerResultTtlInSeconds", or2(n.Get("resultTtlInSeconds")),
		"AuthorizerPayloadFormatVersion", orText(pos, "2.0", n.Get("payloadVersion")),
		"AuthorizerUri", lambdaURI(pos, target))
	c.put(httpAuthorizerID(name), pos, "AWS::ApiGatewayV2::Authorizer", obj(pos, props...), "DependsOn", deps)
	if !isTrue(n.Get("managedExternally")) {
		c.put(normal(name)+"LambdaAuthorizerPermissionHttpApi", pos, "AWS::Lambda::Permission", obj(pos,
			"FunctionName", target, "Action", "lambda:InvokeFunction", "Principal", "apigateway.amazonaws.com",
			"SourceArn", c.executeArn(pos, httpAPIID, "/*"),
		), "DependsOn", deps)
	}
}

// httpEndpoint adds one route, and its function's integration and permission.
func (c *compiler) httpEndpoint(conf *cfn.Node, r httpRoute) {
	fn := r.fn
	c.permit(normal(fn.key)+"LambdaPermissionHttpApi", fn, r.pos, "apigateway.amazonaws.com", "SourceArn", c.executeArn(r.pos, httpAPIID, "/*"))
	integration := "HttpApiIntegration" + normal(fn.key)
	c.put(integration, r.pos, "AWS::ApiGatewayV2::Integration", obj(r.pos,
		"ApiId", ref(r.pos, httpAPIID), "IntegrationType", "AWS_PROXY", "IntegrationUri", c.target(fn, r.pos),
		"PayloadFormatVersion", orText(r.pos, "2.0", fn.n.At("httpApi", "payload"), conf.Get("payload")),
		"TimeoutInMillis", integrationTimeout(or(r.limit, conf.Get("timeout"))),
	), "DependsOn", nonEmpty(fn.alias))
	id, key := "HttpApiRouteDefault", "$default"
	if r.path != "*" {
		id, key = "HttpApiRoute"+normalPath(r.key()), r.key()
	}
	props := []any{"ApiId", ref(r.pos, httpAPIID), "RouteKey", key, "Target", join(r.pos, "/", "integrations", ref(r.pos, integration))}
	props = append(props, c.routeAuthorizer(conf, r)...)
	if c.has(id) { // two paths whose logical IDs are the same, /a-b and /aDashb: Serverless would lose the first
		id = uniqueID(id, c.has)
	}
	c.put(id, r.pos, "AWS::ApiGatewayV2::Route", obj(r.pos, props...), "DependsOn", integration)
}

// integrationTimeout is how long an HTTP API waits, in milliseconds; 30 s is also the most it can.
func integrationTimeout(seconds *cfn.Node) int {
	s, _ := seconds.Text()
	if t, err := strconv.ParseFloat(s, 64); err == nil && t > 0 && t < 30 {
		return int(t * 1000)
	}
	return 30000
}

func uniqueID(id string, taken func(string) bool) string {
	for i := 2; ; i++ {
		if next := fmt.Sprintf("%s%d", id, i); !taken(next) {
			return next
		}
	}
}

// routeAuthorizer gives the properties of a route that say who may use it.
func (c *compiler) routeAuthorizer(conf *cfn.Node, r httpRoute) []any {
	a := r.auth
	if !truthy(a) || isPoison(a) {
		return nil
	}
	name, _ := a.Text()
	if a.Kind == cfn.Map {
		c.keys(a, "in an authorizer of function \""+r.fn.key+"\"", words("id name scopes type"))
		name, _ = a.Get("name").Text()
	}
	typ, _ := a.Get("type").Text()
	if typ == "aws_iam" || name == "aws_iam" {
		return []any{"AuthorizationType", "AWS_IAM"}
	}
	var scopes any
	if s := a.Get("scopes"); truthy(s) {
		scopes = list(s)
	}
	kind := "JWT"
	if typ == "request" {
		kind = "CUSTOM"
	}
	if id := a.Get("id"); truthy(id) {
		return []any{"AuthorizationType", kind, "AuthorizerId", id, "AuthorizationScopes", scopes}
	}
	var known []string
	for _, e := range mapEntries(conf.Get("authorizers")) {
		known = append(known, e.Key)
		if e.Key != name {
			continue
		}
		if t, _ := e.Value.Get("type").Text(); t == "request" {
			kind = "CUSTOM"
		}
		if own, _ := e.Value.Get("name").Text(); own != "" {
			name = own
		}
		return []any{"AuthorizationType", kind, "AuthorizerId", ref(a.Pos, httpAuthorizerID(name)), "AuthorizationScopes", scopes}
	}
	hint := "Declare it under provider.httpApi.authorizers."
	if near := diag.Nearest(name, known); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", near)
	}
	c.l.Errorf(a.Pos, "unknown-authorizer", hint, "function %q uses the authorizer %q, and there is no such authorizer", r.fn.key, name)
	return nil
}

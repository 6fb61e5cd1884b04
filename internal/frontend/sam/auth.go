package sam

import (
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

const authorizerKey = "x-amazon-apigateway-authorizer"

func sortedStrings(list []string) []string { return slices.Sorted(slices.Values(list)) }

// methodAuth gives a method the authorizer and the API key that its event asks for. The marks NONE and api_key_false keep the API's
// defaults away; they are gone when the document is ready.
func (a *api) methodAuth(def, auth *cfn.Node, e cfn.Entry) *cfn.Node {
	if auth.IsNull() {
		return def
	}
	security := slices.Clone(items(def.Get("security")))
	if n := auth.Get("Authorizer"); !n.IsNull() {
		name, _ := a.c.known(n)
		a.knownAuthorizer(name, n, e)
		security = append(security, obj(n.Pos, name, cfn.NewList(n.Pos, items(or(auth.Get("AuthorizationScopes"), a.scopes(name)))...)))
	} else if scopes := auth.Get("AuthorizationScopes"); !scopes.IsNull() {
		if name := text(a.props.At("Auth", "DefaultAuthorizer")); name != "" {
			security = append(security, obj(auth.Pos, name, scopes))
		}
	}
	if n := auth.Get("ApiKeyRequired"); !n.IsNull() && a.rest() {
		if isTrue(n) {
			security = append(security, obj(n.Pos, "api_key", cfn.NewList(n.Pos)))
			a.scheme("api_key", obj(n.Pos, "type", "apiKey", "name", "x-api-key", "in", "header"))
		} else {
			security = append(security, obj(n.Pos, "api_key_false", cfn.NewList(n.Pos)))
		}
	}
	if len(security) == 0 {
		return def
	}
	return def.With("security", cfn.NewList(def.Pos, security...))
}

// knownAuthorizer says when an event names an authorizer that its API does not have.
func (a *api) knownAuthorizer(name string, n *cfn.Node, e cfn.Entry) {
	all := a.props.At("Auth", "Authorizers")
	if name == "NONE" || name == "AWS_IAM" || all.Get(name) != nil || isIntrinsic(all) {
		if name == "AWS_IAM" && a.body != nil {
			a.scheme(name, iamScheme(n))
		}
		return
	}
	names := []string{"AWS_IAM", "NONE"}
	for _, e := range entries(all) {
		names = append(names, e.Key)
	}
	a.c.l.Errorf(n.Pos, "unknown-ref", near(name, names, ""), "the API %q has no authorizer %q, which the event %q names", a.id, name, e.Key)
}

func (a *api) scopes(name string) *cfn.Node {
	return a.props.At("Auth", "Authorizers", name, "AuthorizationScopes")
}

func iamScheme(n *cfn.Node) *cfn.Node {
	return obj(n.Pos, "type", "apiKey", "name", "Authorization", "in", "header", "x-amazon-apigateway-authtype", "awsSigv4")
}

// scheme defines an authorizer in the document, unless it is there.
func (a *api) scheme(name string, def *cfn.Node) {
	if a.body == nil {
		return
	}
	e := cfn.Entry{Pos: def.Pos}
	if a.body.Get("swagger") != nil {
		defs := place(a.body.Get("securityDefinitions"), e)
		if defs.Get(name) == nil {
			a.body = a.body.With("securityDefinitions", defs.With(name, def))
		}
		return
	}
	components := place(a.body.Get("components"), e)
	defs := place(components.Get("securitySchemes"), e)
	if defs.Get(name) == nil {
		a.body = a.body.With("components", components.With("securitySchemes", defs.With(name, def)))
	}
}

// auth puts the API's authorizers into the document, and its defaults at the methods that say nothing.
func (a *api) auth() {
	n := a.props.Get("Auth")
	if !n.IsNull() && n.Kind != cfn.Map {
		a.c.l.Errorf(n.Pos, "bad-value", "", "Auth of %q must be a map", a.id)
		n = nil
	}
	for _, e := range entries(n.Get("Authorizers")) {
		if def := a.authorizer(e); def != nil {
			a.scheme(e.Key, def)
		}
	}
	if isTrue(n.Get("EnableIamAuthorizer")) {
		a.scheme("AWS_IAM", iamScheme(n))
	}
	fallback, _ := a.c.known(n.Get("DefaultAuthorizer"))
	if fallback == "AWS_IAM" {
		a.scheme(fallback, iamScheme(n))
	}
	needsKey := a.rest() && isTrue(n.Get("ApiKeyRequired"))
	if needsKey {
		a.scheme("api_key", obj(n.Pos, "type", "apiKey", "name", "x-api-key", "in", "header"))
	}
	preflight := func(key string) bool { return text(n.Get(key)) != "false" && a.rest() }
	a.edit(func(_, method string, def *cfn.Node) *cfn.Node {
		security := items(def.Get("security"))
		if fallback != "" && fallback != "NONE" && (method != "options" || preflight("AddDefaultAuthorizerToCorsPreflight")) && !named(security, func(s string) bool { return s != "api_key" && s != "api_key_false" }) {
			security = append(slices.Clone(security), obj(def.Pos, fallback, cfn.NewList(def.Pos, items(a.scopes(fallback))...)))
		}
		if needsKey && (method != "options" || preflight("AddApiKeyRequiredToCorsPreflight")) && !named(security, func(s string) bool { return s == "api_key" || s == "api_key_false" }) {
			security = append(slices.Clone(security), obj(def.Pos, "api_key", cfn.NewList(def.Pos)))
		}
		security = slices.DeleteFunc(slices.Clone(security), func(s *cfn.Node) bool { return s.Get("NONE") != nil || s.Get("api_key_false") != nil })
		if len(security) == 0 {
			return without(def, "security")
		}
		return def.With("security", cfn.NewList(def.Pos, security...))
	})
	if policy := n.Get("ResourcePolicy"); !policy.IsNull() {
		a.body = a.body.With("x-amazon-apigateway-policy", policy)
	}
}

func named(security []*cfn.Node, is func(string) bool) bool {
	return slices.ContainsFunc(security, func(s *cfn.Node) bool {
		return slices.ContainsFunc(entries(s), func(e cfn.Entry) bool { return is(e.Key) })
	})
}

// authorizer is the definition of one in the document.
func (a *api) authorizer(e cfn.Entry) *cfn.Node {
	n := e.Value
	if n == nil || n.Kind != cfn.Map {
		a.c.l.Errorf(e.Pos, "bad-value", "", "the authorizer %q must be a map", e.Key)
		return nil
	}
	fn, identity := or(n.Get("FunctionArn")), n.Get("Identity")
	var uri *cfn.Node
	if fn != nil {
		uri = subWith(n.Pos, "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${__FunctionArn__}/invocations", "__FunctionArn__", fn)
	}
	ttl := or(identity.Get("ReauthorizeEvery"))
	role := or(n.Get("FunctionInvokeRole"))
	if text(role) == "NONE" {
		role = nil
	}
	if !a.rest() {
		return a.httpAuthorizer(e, uri, ttl, role)
	}
	header := text(identity.Get("Header"))
	if header == "" {
		header = "Authorization"
	}
	def := func(name, kind string, inner *cfn.Node) *cfn.Node {
		return obj(n.Pos, "type", "apiKey", "name", name, "in", "header", "x-amazon-apigateway-authtype", kind, authorizerKey, inner)
	}
	expression := or(identity.Get("ValidationExpression"))
	switch pool := n.Get("UserPoolArn"); {
	case !pool.IsNull():
		return def(header, "cognito_user_pools", obj(n.Pos, "type", "cognito_user_pools", "providerARNs", items(pool), "identityValidationExpression", expression))
	case fn == nil:
		a.c.l.Errorf(e.Pos, "missing-key", "Add FunctionArn or UserPoolArn.", "the authorizer %q has neither a function nor a user pool", e.Key)
		return nil
	case text(n.Get("FunctionPayloadType")) == "REQUEST":
		source := identitySource(identity, "method.request.header.", "method.request.querystring.", "stageVariables.", "context.")
		var joined *cfn.Node
		if len(source) > 0 {
			joined = cfn.Str(n.Pos, strings.Join(source, ", "))
		}
		return def("Unused", "custom", obj(n.Pos, "type", "request", "authorizerUri", uri, "authorizerResultTtlInSeconds", ttl, "authorizerCredentials", role,
			"identitySource", joined))
	}
	return def(header, "custom", obj(n.Pos, "type", "token", "authorizerUri", uri, "authorizerResultTtlInSeconds", ttl, "authorizerCredentials", role,
		"identityValidationExpression", expression))
}

func (a *api) httpAuthorizer(e cfn.Entry, uri, ttl, role *cfn.Node) *cfn.Node {
	n := e.Value
	if jwt := n.Get("JwtConfiguration"); !jwt.IsNull() {
		conf := cfn.NewMap(jwt.Pos)
		for _, k := range jwt.Entries {
			conf.Entries = append(conf.Entries, cfn.Entry{Key: strings.ToLower(k.Key), Pos: k.Pos, Value: k.Value})
		}
		return obj(n.Pos, "type", "oauth2", authorizerKey, obj(n.Pos, "jwtConfiguration", conf, "identitySource", or(n.Get("IdentitySource")), "type", "jwt"))
	}
	if uri == nil {
		a.c.l.Errorf(e.Pos, "missing-key", "Add JwtConfiguration or FunctionArn.", "the authorizer %q has neither a JwtConfiguration nor a function", e.Key)
		return nil
	}
	var source []*cfn.Node
	for _, s := range identitySource(n.Get("Identity"), "$request.header.", "$request.querystring.", "$stageVariables.", "$context.") {
		source = append(source, cfn.Str(n.Pos, s))
	}
	return obj(n.Pos, "type", "apiKey", "name", "Unused", "in", "header", authorizerKey, obj(n.Pos, "type", "request", "authorizerUri", uri,
		"authorizerCredentials", role, "authorizerResultTtlInSeconds", ttl, "identitySource", source,
		"authorizerPayloadFormatVersion", or(n.Get("AuthorizerPayloadFormatVersion")), "enableSimpleResponses", or(n.Get("EnableSimpleResponses"))))
}

// identitySource lists what an authorizer is given of a request.
func identitySource(identity *cfn.Node, leads ...string) []string {
	var out []string
	for i, key := range []string{"Headers", "QueryStrings", "StageVariables", "Context"} {
		for _, v := range items(identity.Get(key)) {
			out = append(out, leads[i]+text(v))
		}
	}
	return out
}

// authorizerPermissions lets the API call the functions that decide.
func (a *api) authorizerPermissions() {
	for _, e := range entries(a.props.At("Auth", "Authorizers")) {
		n := e.Value
		allowed := isTrue(n.Get("EnableFunctionDefaultPermissions"))
		if a.rest() {
			allowed = !isTrue(n.Get("DisableFunctionDefaultPermissions")) && n.Get("UserPoolArn").IsNull()
		}
		if fn := n.Get("FunctionArn"); !fn.IsNull() && allowed {
			a.c.put(a.resource, a.id+e.Key+"AuthorizerPermission", "AWS::Lambda::Permission", obj(n.Pos, "Action", "lambda:InvokeFunction", "FunctionName", fn,
				"Principal", "apigateway.amazonaws.com", "SourceArn",
				subWith(n.Pos, "arn:${AWS::Partition}:execute-api:${AWS::Region}:${AWS::AccountId}:${__ApiId__}/authorizers/*", "__ApiId__", ref(n.Pos, a.id))))
		}
	}
}

package cloudformation

import (
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

const (
	typeHTTPAPI     = "AWS::ApiGatewayV2::Api"
	typeIntegration = "AWS::ApiGatewayV2::Integration"
)

// httpAPI reads AWS::ApiGatewayV2::Api: an HTTP or a WebSocket API.
func (l *loader) httpAPI(r *resource) {
	r.modeled = true
	o := l.object(r.props)
	api := app.API{ID: r.id, Kind: app.HTTP, Name: o.val("Name").String()}
	switch typ := o.str("ProtocolType"); {
	case typ == "WEBSOCKET":
		api.Kind = app.WebSocket
	case typ == "HTTP" || typ == "" && o.has("Body"):
	default:
		o.bad("ProtocolType", "HTTP or WEBSOCKET")
	}
	if o.has("CorsConfiguration") {
		c := o.obj("CorsConfiguration")
		l.checkKeys(typeHTTPAPI+" CorsConfiguration", c.n)
		api.CORS = &app.CORS{Origins: c.strs("AllowOrigins"), Methods: c.strs("AllowMethods"), Headers: c.strs("AllowHeaders"),
			Expose: c.strs("ExposeHeaders"), MaxAgeSec: c.num("MaxAge", 0), Credentials: c.flag("AllowCredentials", false)}
	}
	l.remoteBody(r, o)
	if o.has("Target") {
		api.Stage = "$default"
	}
	l.app.APIs = append(l.app.APIs, api)
	if !o.has("Target") {
		return
	}
	// Quick create: one route to one target, and the stage $default.
	key := o.str("RouteKey")
	if key == "" {
		key = "$default"
	}
	route := app.Route{API: r.id, Format: "2.0"}
	route.Method, route.Path = routeKey(key)
	target := o.val("Target")
	if s := target.String(); strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") {
		route.Proxy = s
	} else if route.Function = l.named(target); route.Function == "" {
		l.diags.Warnf(o.pos("Target"), "not-here", "", "the API %q leads to no function of this template: %s", r.id, target)
		return
	}
	l.addRoute(r, route)
}

// routeKey splits "GET /x"; "$default" has no method of its own.
func routeKey(key string) (method, path string) {
	method, path, ok := strings.Cut(key, " ")
	if !ok {
		return "ANY", key
	}
	return strings.ToUpper(method), strings.TrimSpace(path)
}

// httpStage reads AWS::ApiGatewayV2::Stage.
func (l *loader) httpStage(r *resource) {
	o := l.object(r.props)
	if id := l.frontOf(r, o, "ApiId", typeHTTPAPI); id != "" {
		r.modeled = l.stage(r, id, o.str("StageName"), o.valMap("StageVariables"))
	}
}

// httpDeployment reads AWS::ApiGatewayV2::Deployment, which says nothing that its stage does not.
func (l *loader) httpDeployment(r *resource) {
	r.modeled = l.frontOf(r, l.object(r.props), "ApiId", typeHTTPAPI) != ""
}

// httpRoute reads AWS::ApiGatewayV2::Route and the integration behind it.
func (l *loader) httpRoute(r *resource) {
	o := l.object(r.props)
	id := l.frontOf(r, o, "ApiId", typeHTTPAPI)
	if id == "" {
		return
	}
	key := o.str("RouteKey")
	if key == "" {
		o.bad("RouteKey", `a text like "GET /path" or "$default"`)
		return
	}
	api := l.app.API(id)
	route := app.Route{API: id, APIKey: o.flag("ApiKeyRequired", false), Authorizer: l.httpAuthorizer(o), Schemas: o.has("RequestModels")}
	route.Method, route.Path = routeKey(key)
	if api.Kind == app.WebSocket {
		route.Method, route.Path = "ANY", key
	}
	var in *resource
	for _, ref := range o.val("Target").Refs() {
		if x := l.byID[ref]; x != nil && x.typ == typeIntegration {
			in = x
		}
	}
	if in == nil {
		l.diags.Warnf(o.pos("Target"), "no-integration", "", "the route %s leads to no integration of this template: %s", key, o.val("Target"))
		return
	}
	if l.integrate(&route, api.Kind, key, l.object(in.props)) {
		r.modeled, in.modeled = true, true
		l.addRoute(r, route)
	}
}

// integrate reads an integration into the route.
func (l *loader) integrate(route *app.Route, kind app.APIKind, key string, in object) bool {
	route.TimeoutMS = in.num("TimeoutInMillis", 0)
	if kind == app.HTTP {
		route.Format = "1.0"
		if s := in.str("PayloadFormatVersion"); s != "" {
			route.Format = s
		}
		if route.Format != "1.0" && route.Format != "2.0" {
			in.bad("PayloadFormatVersion", "1.0 or 2.0")
		}
	}
	uri := in.val("IntegrationUri")
	switch typ := in.str("IntegrationType"); {
	case in.has("IntegrationSubtype"):
		l.diags.Warnf(in.pos("IntegrationSubtype"), "no-integration", "", "the route %s leads to a service, not a function: %s", key, in.val("IntegrationSubtype"))
		return false
	case typ == "AWS_PROXY" || typ == "AWS":
		if route.Function = l.named(uri); route.Function == "" {
			l.diags.Warnf(in.pos("IntegrationUri"), "not-here", "", "the route %s leads to no function of this template: %s", key, uri)
			return false
		}
		if typ == "AWS" {
			route.Custom, route.Templates = true, in.strMap("RequestTemplates")
		}
	case typ == "HTTP_PROXY" || typ == "HTTP":
		if route.Proxy = uri.String(); route.Proxy == "" {
			in.bad("IntegrationUri", "the address of an HTTP integration")
			return false
		}
	case typ == "MOCK":
		route.Mock = &app.Mock{Status: 200}
	default:
		in.bad("IntegrationType", "AWS_PROXY, HTTP_PROXY, AWS, HTTP or MOCK")
		return false
	}
	return true
}

// httpAuthorizer reads who may use a route.
func (l *loader) httpAuthorizer(o object) *app.Authorizer {
	scopes := o.strs("AuthorizationScopes")
	switch typ := o.str("AuthorizationType"); typ {
	case "", "NONE":
		return nil
	case "AWS_IAM":
		return &app.Authorizer{Kind: "iam"}
	case "JWT", "CUSTOM":
		a := &app.Authorizer{Kind: "jwt", Scopes: scopes}
		if typ == "CUSTOM" {
			a.Kind = "request"
		}
		id, _, _ := o.val("AuthorizerId").Attribute()
		r := l.byID[id]
		if r == nil || r.typ != "AWS::ApiGatewayV2::Authorizer" {
			a.Source = o.val("AuthorizerId")
			l.diags.Warnf(o.pos("AuthorizerId"), "not-here", "", "the authorizer of this route is outside this template: %s", a.Source)
			return a
		}
		r.modeled = true
		ao := l.object(r.props)
		a.Name, a.Identity, a.TTLSec = ao.val("Name").String(), ao.strs("IdentitySource"), ao.num("AuthorizerResultTtlInSeconds", 0)
		switch ao.str("AuthorizerType") {
		case "JWT":
			jwt := ao.obj("JwtConfiguration")
			a.Kind, a.Source, a.Audience = "jwt", jwt.val("Issuer"), jwt.vals("Audience")
		case "REQUEST":
			a.Kind, a.Simple, a.Format = "request", ao.flag("EnableSimpleResponses", false), ao.str("AuthorizerPayloadFormatVersion")
			l.authorizerFunction(a, ao)
		default:
			ao.bad("AuthorizerType", "JWT or REQUEST")
		}
		return a
	default:
		o.bad("AuthorizationType", "NONE, AWS_IAM, JWT or CUSTOM")
	}
	return nil
}

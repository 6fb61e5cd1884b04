package serverless

import (
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

const websocketsDeploymentID = "WebsocketsDeployment" // Serverless puts a hash of the routes at its end

func routePart(route string) string {
	return strings.NewReplacer("$", "S", "/", "Slash", "-", "Dash", "_", "Underscore", ".", "Period").Replace(route)
}

// websockets compiles websocket events: one WebSocket API, a route per event.
func (c *compiler) websockets() {
	var deps []*cfn.Node
	var pos diag.Pos
	seen := map[string]bool{}
	c.eventsOf("websocket", func(fn *function, e event) {
		route, ok := e.v.Text()
		if !ok {
			c.eventKeys(e)
			route = c.text(e.v.Get("route"), "route")
		}
		if route == "" {
			c.l.Errorf(e.pos, "missing-key", "Add `route: $connect`, $disconnect, $default or a name.", "a websocket event of function %q has no route", fn.key)
			return
		}
		if seen[route] {
			c.l.Errorf(e.pos, "duplicate-route", "Remove one of the two.", "the websocket route %s is there twice, the second time in function %q", route, fn.key)
			return
		}
		if deps == nil {
			pos = e.pos
			c.websocketAPI(pos)
		}
		seen[route] = true
		deps = append(deps, c.websocketRoute(fn, e, route)...)
	})
	if deps == nil {
		return
	}
	description := orText(pos, "Serverless Websockets", c.provider.Get("websocketsDescription"))
	c.put(websocketsDeploymentID, pos, "AWS::ApiGatewayV2::Deployment", obj(pos, "ApiId", ref(pos, websocketsAPIID), "Description", description), "DependsOn", deps)
	c.put("WebsocketsDeploymentStage", pos, "AWS::ApiGatewayV2::Stage", obj(pos,
		"ApiId", ref(pos, websocketsAPIID), "StageName", c.stage, "Description", description, "DeploymentId", ref(pos, websocketsDeploymentID)))
	if logs := c.provider.At("logs", "websocket"); truthy(logs) {
		c.put("WebsocketsLogGroup", logs.Pos, "AWS::Logs::LogGroup", obj(logs.Pos, "LogGroupName", "/aws/websocket/"+c.service+"-"+c.stage,
			"RetentionInDays", or(c.provider.Get("logRetentionInDays"))))
	}
	c.output("ServiceEndpointWebsocket", pos, "URL of the service endpoint", join(pos, "",
		"wss://", ref(pos, websocketsAPIID), ".execute-api.", ref(pos, "AWS::Region"), ".", ref(pos, "AWS::URLSuffix"), "/"+c.stage))
}

func (c *compiler) websocketAPI(pos diag.Pos) {
	c.put(websocketsAPIID, pos, "AWS::ApiGatewayV2::Api", obj(pos,
		"Name", orText(pos, c.stage+"-"+c.service+"-websockets", c.provider.Get("websocketsApiName")),
		"RouteSelectionExpression", orText(pos, "$request.body.action", c.provider.Get("websocketsApiRouteSelectionExpression")),
		"Description", orText(pos, "Serverless Websockets", c.provider.Get("websocketsDescription")),
		"ProtocolType", "WEBSOCKET"))
	c.allow(pos, []string{"execute-api:ManageConnections"}, obj(pos, "Fn::Sub", "arn:${AWS::Partition}:execute-api:*:*:*/@connections/*"))
}

func (c *compiler) websocketRoute(fn *function, e event, route string) []*cfn.Node {
	integration := normal(fn.key) + "WebsocketsIntegration"
	c.put(integration, e.pos, "AWS::ApiGatewayV2::Integration", obj(e.pos,
		"ApiId", ref(e.pos, websocketsAPIID), "IntegrationType", "AWS_PROXY", "IntegrationUri", lambdaURI(e.pos, c.target(fn, e.pos)),
	), "DependsOn", nonEmpty(fn.alias))
	c.put(normal(fn.key)+"LambdaPermissionWebsockets", e.pos, "AWS::Lambda::Permission", obj(e.pos,
		"FunctionName", c.target(fn, e.pos), "Action", "lambda:InvokeFunction", "Principal", "apigateway.amazonaws.com",
	), "DependsOn", []string{websocketsAPIID, orDefault(fn.alias, fn.id)})
	id := routePart(route) + "WebsocketsRoute"
	props := []any{"ApiId", ref(e.pos, websocketsAPIID), "RouteKey", route,
		"Target", join(e.pos, "/", "integrations", ref(e.pos, integration)),
		"RouteResponseSelectionExpression", or(e.v.Get("routeResponseSelectionExpression"))}
	if authorizer := c.websocketAuthorizer(fn, e); authorizer != "" {
		props = append(props, "AuthorizationType", "CUSTOM", "AuthorizerId", ref(e.pos, authorizer))
	} else {
		props = append(props, "AuthorizationType", "NONE")
	}
	c.put(id, e.pos, "AWS::ApiGatewayV2::Route", obj(e.pos, props...))
	deps := []*cfn.Node{cfn.Str(e.pos, id)}
	if truthy(e.v.Get("routeResponseSelectionExpression")) {
		c.put(id+"Response", e.pos, "AWS::ApiGatewayV2::RouteResponse", obj(e.pos,
			"ApiId", ref(e.pos, websocketsAPIID), "RouteId", ref(e.pos, id), "RouteResponseKey", "$default"))
		deps = append(deps, cfn.Str(e.pos, id+"Response"))
	}
	return deps
}

// websocketAuthorizer adds the authorizer of a route and returns its logical ID.
func (c *compiler) websocketAuthorizer(fn *function, e event) string {
	a := e.v.Get("authorizer")
	if !truthy(a) || isPoison(a) {
		return ""
	}
	name, isText := a.Text()
	var arn *cfn.Node
	switch {
	case isText && strings.Contains(name, ":"):
		arn, name = a, lastWord(name, ":-")
	case isText:
	default:
		c.keys(a, "in the authorizer of function \""+fn.key+"\"", words("name arn identitySource"))
		name, _ = a.Get("name").Text()
		if arn = or(a.Get("arn")); arn != nil && name == "" {
			name = lastWord(c.nameOf(arn), ":-")
		}
	}
	if arn == nil {
		other := c.function(name)
		if other == nil {
			c.noFunction(a.Pos, name, "the authorizer of function "+fn.key)
			return ""
		}
		arn = c.target(other, a.Pos)
	}
	identity := []*cfn.Node{cfn.Str(a.Pos, "route.request.header.Auth")}
	if own := list(a.Get("identitySource")); len(own) > 0 {
		identity = own
	}
	id := normal(name) + "WebsocketsAuthorizer"
	c.put(id, a.Pos, "AWS::ApiGatewayV2::Authorizer", obj(a.Pos,
		"ApiId", ref(a.Pos, websocketsAPIID), "Name", name, "AuthorizerType", "REQUEST", "AuthorizerUri", lambdaURI(a.Pos, arn), "IdentitySource", identity))
	permission := normal(name) + "LambdaPermissionWebsockets"
	if !c.has(permission) {
		c.put(permission, a.Pos, "AWS::Lambda::Permission", obj(a.Pos,
			"FunctionName", arn, "Action", "lambda:InvokeFunction", "Principal", "apigateway.amazonaws.com"), "DependsOn", websocketsAPIID)
	}
	return id
}

package serverless

import (
	"fmt"
	"regexp"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

// restIntegration says what a method leads to.
func (c *compiler) restIntegration(e restEvent) *cfn.Node {
	req := e.n.Get("request")
	props := []any{"IntegrationHttpMethod", "POST", "Type", e.integration}
	switch e.integration {
	case "AWS", "AWS_PROXY":
		var target []any
		target = append(target, "arn:", ref(e.pos, "AWS::Partition"), ":apigateway:", ref(e.pos, "AWS::Region"),
			":lambda:path/2015-03-31/functions/", getAtt(e.pos, e.fn.id, "Arn"))
		if e.fn.alias != "" {
			target = append(target, ":", e.fn.aliasN)
		}
		call := "/invocations"
		if mode, _ := e.n.At("response", "transferMode").Text(); e.integration == "AWS_PROXY" && strings.EqualFold(mode, "stream") {
			target[4], call = ":lambda:path/2021-11-15/functions/", "/response-streaming-invocations"
			props = append(props, "ResponseTransferMode", "STREAM")
		}
		props = append(props, "Uri", join(e.pos, "", append(target, call)...))
		c.keys(req, "in request of function \""+e.fn.key+"\"", words("parameters schema schemas template passThrough contentHandling uri method"))
	case "HTTP", "HTTP_PROXY":
		props[1] = e.method
		if m, ok := req.Get("method").Text(); ok {
			props[1] = strings.ToUpper(m)
		}
		props = append(props, "Uri", req.Get("uri"))
		if t, ok := e.n.Get("connectionType").Text(); ok {
			props = append(props, "ConnectionType", strings.ReplaceAll(strings.ToUpper(t), "-", "_"), "ConnectionId", or(e.n.Get("connectionId")))
		}
	}
	if e.integration == "AWS" || e.integration == "HTTP" || e.integration == "MOCK" {
		pass := or(req.Get("passThrough"))
		if pass == nil && e.integration == "AWS" {
			pass = cfn.Str(e.pos, "NEVER")
		}
		props = append(props, "PassthroughBehavior", pass, "ContentHandling", or(req.Get("contentHandling")),
			"RequestTemplates", c.requestTemplates(e), "IntegrationResponses", c.integrationResponses(e))
	}
	if p := c.integrationParameters(e); p != nil {
		props = append(props, "RequestParameters", p)
	}
	if t := c.provider.At("apiGateway", "timeoutInMillis"); truthy(t) {
		props = append(props, "TimeoutInMillis", t)
	}
	return obj(e.pos, props...)
}

func (c *compiler) integrationParameters(e restEvent) *cfn.Node {
	out := cfn.NewMap(e.pos)
	if e.integration == "AWS" || e.integration == "HTTP" || e.integration == "HTTP_PROXY" {
		parameters(e, func(name string, v *cfn.Node) {
			value := cfn.Str(e.pos, name)
			if mapped := v.Get("mappedValue"); truthy(mapped) {
				value = mapped
			}
			out = out.With("integration."+strings.TrimPrefix(name, "method."), value)
		})
	}
	if isTrue(e.n.Get("async")) {
		out = out.With("integration.request.header.X-Amz-Invocation-Type", cfn.Str(e.pos, "'Event'"))
	}
	if len(out.Entries) == 0 {
		return nil
	}
	return out
}

// requestTemplate is what a function behind a lambda integration gets unless the project says otherwise:
// the body, and the request around it as maps of texts. Before it stands what $body is. API Gateway has no
// macros, so that each map is put into $map before $texts is written out.
const requestTemplate = `#define($texts){#foreach($name in $map.keySet())"$util.escapeJavaScript($name)": "$util.escapeJavaScript($map.get($name)).replaceAll("\\'", "'")"#if($foreach.hasNext),#end#end}#end
{
"body": $body,
"method": "$context.httpMethod",
"principalId": "$context.authorizer.principalId",
"stage": "$context.stage",
"cognitoPoolClaims": {CLAIMS"sub": "$context.authorizer.claims.sub"},
#set($map = $context.authorizer)
"enhancedAuthContext": $texts,
#set($map = $input.params().header)
"headers": $texts,
#set($map = $input.params().querystring)
"query": $texts,
#set($map = $input.params().path)
"path": $texts,
#set($map = $context.identity)
"identity": $texts,
#set($map = $stageVariables)
"stageVariables": $texts,
"requestPath": "$context.resourcePath"
}`

const (
	jsonBody = "#set($body = $input.json(\"$\"))\n"
	formBody = `#define($body){#foreach($pair in $input.path('$').split('&'))#set($kv = $pair.split('='))` +
		`"$util.escapeJavaScript($util.urlDecode($kv[0]))": "#if($kv.size() > 1)$util.escapeJavaScript($util.urlDecode($kv[1])).replaceAll("\\'", "'")#end"` +
		"#if($foreach.hasNext),#end#end}#end\n"
)

func (c *compiler) requestTemplates(e restEvent) *cfn.Node {
	out := cfn.NewMap(e.pos)
	if e.integration == "AWS" {
		var claims strings.Builder
		for _, n := range list(e.n.At("authorizer", "claims")) {
			claim := c.text(n, "a claim")
			short := claim
			if _, rest, ok := strings.Cut(claim, ":"); ok {
				short = rest
			}
			fmt.Fprintf(&claims, "%q: \"$context.authorizer.claims['%s']\",", short, claim)
		}
		around := strings.Replace(requestTemplate, "CLAIMS", claims.String(), 1)
		out = out.With("application/json", cfn.Str(e.pos, jsonBody+around))
		out = out.With("application/x-www-form-urlencoded", cfn.Str(e.pos, formBody+around))
	}
	kept := cfn.NewMap(e.pos)
	own := e.n.At("request", "template")
	for _, t := range mapEntries(own) {
		out = out.With(t.Key, t.Value)
	}
	for _, t := range out.Entries {
		if !t.Value.IsNull() {
			kept.Entries = append(kept.Entries, t)
		}
	}
	if len(kept.Entries) == 0 {
		return nil
	}
	return kept
}

// defaultStatusCodes answer by what a handler's error begins with: "[404] not found" gives a 404.
func defaultStatusCodes(e restEvent) *cfn.Node {
	out := obj(e.pos, "200", obj(e.pos, "pattern", ""))
	for _, code := range words("400 401 403 404 422 500 502 504") {
		pattern := `[\s\S]*\[` + code + `\][\s\S]*`
		if code == "500" {
			pattern = `[\s\S]*(Process\s?exited\s?before\s?completing\s?request|\[500\])[\s\S]*`
		}
		if code == "504" {
			pattern = `([\s\S]*\[504\][\s\S]*)|(.*Task timed out after \d+\.\d+ seconds$)`
		}
		out = out.With(code, obj(e.pos, "pattern", pattern))
	}
	return out
}

// statusCodes are the answers an event declares.
func (c *compiler) statusCodes(e restEvent) *cfn.Node {
	resp := e.n.Get("response")
	codes := resp.Get("statusCodes")
	if !truthy(codes) || codes.Kind != cfn.Map {
		if resp == nil && e.integration != "AWS" {
			return nil
		}
		return defaultStatusCodes(e)
	}
	for _, s := range codes.Entries {
		if p, ok := s.Value.Get("pattern").Text(); ok && p == "" {
			return codes
		}
	}
	if e.integration == "MOCK" {
		return codes
	}
	return mergeMaps(obj(codes.Pos, "200", nil), codes, obj(codes.Pos, "200", obj(codes.Pos, "pattern", "")))
}

// responseHeaders are the headers of every answer of an event.
func (c *compiler) responseHeaders(e restEvent) *cfn.Node {
	out := cfn.NewMap(e.pos)
	if cors := e.n.Get("cors"); truthy(cors) {
		var origins []string
		for _, o := range list(or(cors.Get("origins"), cors.Get("origin"))) {
			origins = append(origins, c.text(o, "cors.origin"))
		}
		if len(origins) == 0 {
			origins = []string{"*"}
		}
		out = out.With("Access-Control-Allow-Origin", cfn.Str(cors.Pos, "'"+strings.Join(origins, ",")+"'"))
		if isTrue(cors.Get("allowCredentials")) {
			out = out.With("Access-Control-Allow-Credentials", cfn.Str(cors.Pos, "true"))
		}
	}
	for _, h := range mapEntries(e.n.At("response", "headers")) {
		out = out.With(h.Key, h.Value)
	}
	return out
}

func (c *compiler) integrationResponses(e restEvent) []*cfn.Node {
	codes := c.statusCodes(e)
	if codes == nil {
		return []*cfn.Node{}
	}
	out := []*cfn.Node{}
	for _, code := range codes.Entries {
		headers := mergeMaps(c.responseHeaders(e), code.Value.Get("headers"))
		given := cfn.NewMap(e.pos)
		for _, h := range headers.Entries {
			given = given.With("method.response.header."+h.Key, h.Value)
		}
		templates := cfn.NewMap(e.pos)
		for _, t := range []*cfn.Node{e.n.At("response", "template"), code.Value.Get("template")} {
			if _, ok := t.Text(); ok {
				templates = templates.With("application/json", t)
			} else {
				templates = mergeMaps(templates, t)
			}
		}
		var handling *cfn.Node
		if strings.HasPrefix(code.Key, "2") {
			handling = or(e.n.At("response", "contentHandling"))
		}
		pattern := or2(code.Value.Get("pattern"), cfn.Str(e.pos, ""))
		out = append(out, obj(e.pos, "StatusCode", code.Key, "SelectionPattern", pattern, "ResponseParameters", given,
			"ResponseTemplates", templates, "ContentHandling", handling))
	}
	return out
}

func (c *compiler) methodResponses(e restEvent) []*cfn.Node {
	out := []*cfn.Node{}
	if strings.HasSuffix(e.integration, "PROXY") {
		return out
	}
	codes := c.statusCodes(e)
	for _, code := range mapEntries(codes) {
		declared := cfn.NewMap(e.pos)
		for _, h := range mergeMaps(c.responseHeaders(e), code.Value.Get("headers")).Entries {
			declared = declared.With("method.response.header."+h.Key, cfn.From(e.pos, true))
		}
		out = append(out, obj(e.pos, "ResponseParameters", declared, "ResponseModels", cfn.NewMap(e.pos), "StatusCode", code.Key))
	}
	return out
}

// restValidation adds the request validator and the models of schemas.
func (c *compiler) restValidation(conf *cfn.Node, events []restEvent) {
	validator := "ApiGateway" + alphanumeric(c.service) + "RequestValidator"
	for _, e := range events {
		needed := false
		parameters(e, func(_ string, v *cfn.Node) {
			if v.Kind == cfn.Map {
				needed = needed || !isFalse(v.Get("required"))
			} else {
				needed = needed || truthy(v)
			}
		})
		schemas := or(e.n.At("request", "schemas"), e.n.At("request", "schema"))
		if !needed && schemas == nil {
			continue
		}
		c.put(validator, e.pos, "AWS::ApiGateway::RequestValidator", obj(e.pos,
			"RestApiId", ref(e.pos, restAPIID), "ValidateRequestBody", true, "ValidateRequestParameters", true,
			"Name", c.service+"-"+c.stage+" | Validate request body and querystring parameters"))
		c.setProperty(e.methodID(), "RequestValidatorId", ref(e.pos, validator))
		models := cfn.NewMap(e.pos)
		for _, s := range mapEntries(schemas) {
			models = models.With(s.Key, ref(s.Pos, c.model(conf, e, s)))
		}
		if len(models.Entries) > 0 {
			c.setProperty(e.methodID(), "RequestModels", models)
		}
	}
}

var camelBreak = regexp.MustCompile(`[^0-9A-Za-z]+(.?)`)

// model adds the model of one schema: the provider's that it names, or its own.
func (c *compiler) model(conf *cfn.Node, e restEvent, s cfn.Entry) string {
	def, id, content := s.Value, e.methodID()+startCase(s.Key)+"Model", s.Key
	if name, ok := def.Text(); ok {
		if shared := conf.At("request", "schemas", name); shared != nil {
			def, content = shared, "application/json"
			id = "ApiGateway" + upperFirst(camelBreak.ReplaceAllStringFunc(name, func(m string) string { return strings.ToUpper(m[len(m)-1:]) })) + "Model"
			id = "ApiGateway" + alphanumeric(strings.TrimPrefix(id, "ApiGateway"))
		}
	}
	var name, description *cfn.Node
	if inner := def.Get("schema"); inner != nil {
		name, description, def = or(def.Get("name")), or(def.Get("description")), inner
	}
	c.put(id, s.Pos, "AWS::ApiGateway::Model", obj(s.Pos,
		"RestApiId", ref(s.Pos, restAPIID), "ContentType", content, "Schema", def, "Name", name, "Description", description))
	return id
}

// setProperty changes one property of a resource that is there already.
func (c *compiler) setProperty(id, key string, v *cfn.Node) {
	for i := range c.res {
		if c.res[i].Key == id {
			props := c.res[i].Value.Get("Properties").With(key, v)
			c.res[i].Value = c.res[i].Value.With("Properties", props)
		}
	}
}

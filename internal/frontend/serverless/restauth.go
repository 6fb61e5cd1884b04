package serverless

import (
	"slices"
	"strconv"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

var restAuthorizerKeys = words("name arn type authorizerId scopes claims identitySource identityValidationExpression resultTtlInSeconds managedExternally")

// restAuthorizer gives the properties of a method that say who may call it, and the logical ID of the
// authorizer, which it adds.
func (c *compiler) restAuthorizer(e restEvent) (props []any, id string) {
	a := e.n.Get("authorizer")
	none := []any{"AuthorizationType", "NONE"}
	if !truthy(a) || isPoison(a) {
		return none, ""
	}
	if a.Kind == cfn.Map && !isIntrinsic(a) {
		c.keys(a, "in the authorizer of function \""+e.fn.key+"\"", restAuthorizerKeys)
	}
	word, isText := a.Text()
	typ, _ := a.Get("type").Text()
	typ = strings.ToUpper(typ)
	if strings.EqualFold(word, "aws_iam") || typ == "AWS_IAM" {
		return []any{"AuthorizationType", "AWS_IAM"}, ""
	}
	var scopes any
	if s := a.Get("scopes"); truthy(s) {
		scopes = list(s)
	}
	if external := a.Get("authorizerId"); truthy(external) && typ != "" {
		kind := typ
		if kind == "TOKEN" || kind == "REQUEST" {
			kind, scopes = "CUSTOM", nil
		}
		return []any{"AuthorizationType", kind, "AuthorizerId", external, "AuthorizationScopes", scopes}, ""
	}
	name, arn, fn := c.authorizerTarget(e, a, word, isText)
	if arn == nil {
		return none, ""
	}
	id = normal(name) + "ApiGatewayAuthorizer"
	cognito := typ == "COGNITO_USER_POOLS"
	if s, ok := arn.Text(); ok && strings.Contains(s, ":cognito-idp:") {
		cognito = true
	}
	c.authorizerResource(e, a, id, name, arn, fn, cognito)
	if cognito {
		return []any{"AuthorizationType", "COGNITO_USER_POOLS", "AuthorizerId", ref(a.Pos, id), "AuthorizationScopes", scopes}, id
	}
	return []any{"AuthorizationType", "CUSTOM", "AuthorizerId", ref(a.Pos, id)}, id
}

// authorizerTarget finds an authorizer's name and what decides: a function of the project, or an ARN.
func (c *compiler) authorizerTarget(e restEvent, a *cfn.Node, word string, isText bool) (string, *cfn.Node, *function) {
	name, arn := word, (*cfn.Node)(nil)
	switch {
	case isText && strings.Contains(word, ":"):
		arn, name = a, lastWord(word, ":-")
	case isText:
	case isIntrinsic(a):
		arn, name = a, c.nameOf(a)
	case truthy(a.Get("arn")):
		arn = a.Get("arn")
		if own, ok := a.Get("name").Text(); ok && own != "" {
			name = own
		} else {
			name = lastWord(c.nameOf(arn), ":-")
		}
	case truthy(a.Get("name")):
		name = c.text(a.Get("name"), "an authorizer's name")
	default:
		c.l.Errorf(a.Pos, "missing-key", "Add the name of a function, or an arn.", "the authorizer of function %q names nothing that decides", e.fn.key)
		return "", nil, nil
	}
	if arn != nil {
		return name, arn, nil
	}
	fn := c.function(name)
	if fn == nil {
		c.noFunction(a.Pos, name, "the authorizer of function "+e.fn.key)
		return "", nil, nil
	}
	return name, c.target(fn, a.Pos), fn
}

// nameOf is what is telling in an ARN or in a reference to one.
func (c *compiler) nameOf(n *cfn.Node) string {
	if s, ok := n.Text(); ok {
		return s
	}
	for _, key := range []string{"Ref", "Fn::ImportValue", "Fn::Sub"} {
		v := n.Get(key)
		if v != nil && v.Kind == cfn.List && len(v.Items) > 0 {
			v = v.Items[0]
		}
		if s, ok := v.Text(); ok {
			return s
		}
		if v != nil && v.Kind == cfn.Map {
			return c.nameOf(v)
		}
	}
	if v := n.Get("Fn::GetAtt"); v != nil && len(v.Items) > 0 {
		return c.nameOf(v.Items[0])
	}
	if v := n.Get("Fn::Join"); v != nil && len(v.Items) == 2 && len(v.Items[1].Items) > 0 {
		return c.nameOf(v.Items[1].Items[len(v.Items[1].Items)-1])
	}
	return "Unnamed"
}

func (c *compiler) authorizerResource(e restEvent, a *cfn.Node, id, name string, arn *cfn.Node, fn *function, cognito bool) {
	typ, _ := a.Get("type").Text()
	typ = strings.ToUpper(typ)
	ttl := or2(a.Get("resultTtlInSeconds"))
	if ttl == nil && a.Kind == cfn.Map {
		ttl = cfn.From(a.Pos, 300)
	}
	source := or(a.Get("identitySource"))
	if s, _ := ttl.Text(); source == nil && !(typ == "REQUEST" && s == "0") {
		source = cfn.Str(a.Pos, "method.request.header.Authorization")
	}
	props := []any{"AuthorizerResultTtlInSeconds", ttl, "IdentitySource", source, "Name", name, "RestApiId", ref(a.Pos, restAPIID),
		"IdentityValidationExpression", or(a.Get("identityValidationExpression"))}
	var deps any
	if cognito {
		props = append(props, "Type", "COGNITO_USER_POOLS", "ProviderARNs", []*cfn.Node{arn})
	} else {
		props = append(props, "AuthorizerUri", lambdaURI(a.Pos, arn), "Type", orDefault(typ, "TOKEN"))
		permission := normal(name) + "LambdaPermissionApiGateway"
		if fn != nil {
			deps = nonEmpty(fn.alias)
		}
		if !isTrue(a.Get("managedExternally")) && !c.has(permission) {
			c.put(permission, a.Pos, "AWS::Lambda::Permission", obj(a.Pos,
				"FunctionName", arn, "Action", "lambda:InvokeFunction", "Principal", "apigateway.amazonaws.com",
				"SourceArn", c.executeArn(a.Pos, restAPIID, "/*/*")))
		}
	}
	c.put(id, a.Pos, "AWS::ApiGateway::Authorizer", obj(a.Pos, props...), "DependsOn", deps)
}

// apiKeys adds the API keys and usage plans of provider.apiGateway (or of provider, the older place).
func (c *compiler) apiKeys(conf *cfn.Node) {
	keys := or(conf.Get("apiKeys"), c.provider.Get("apiKeys"))
	plan := or(conf.Get("usagePlan"), c.provider.Get("usagePlan"))
	if keys == nil && plan == nil {
		return
	}
	var plans []string
	if plan != nil && plan.Kind == cfn.List {
		for _, it := range plan.Items {
			for _, e := range mapEntries(it) {
				plans = append(plans, e.Key)
				c.usagePlan("ApiGatewayUsagePlan"+upperFirst(e.Key), e.Key, e.Pos, e.Value)
			}
		}
	} else {
		c.usagePlan("ApiGatewayUsagePlan", "", orPos(plan, keys).Pos, plan)
	}
	number := 0
	for _, it := range list(keys) {
		if it.Kind == cfn.Map && len(it.Entries) > 0 && slices.Contains(plans, it.Entries[0].Key) {
			name := it.Entries[0].Key
			for i, k := range list(it.Entries[0].Value) {
				c.apiKey(k, strconv.Itoa(i+1), name, "ApiGatewayUsagePlan"+upperFirst(name))
			}
			continue
		}
		if it.Kind == cfn.Map && len(it.Entries) > 0 && it.Entries[0].Value.Kind == cfn.List {
			c.l.Errorf(it.Entries[0].Pos, "missing-key", "Add it to usagePlan.", "the API keys %q have no usage plan", it.Entries[0].Key)
			continue
		}
		number++
		c.apiKey(it, strconv.Itoa(number), "", "ApiGatewayUsagePlan")
	}
}

func (c *compiler) usagePlan(id, name string, pos diag.Pos, plan *cfn.Node) {
	label, text := c.service+"-"+c.stage, "Usage plan for "+c.service+" "+c.stage+" stage"
	if name != "" {
		label, text = c.service+"-"+name+"-"+c.stage, `Usage plan "`+name+`" for `+c.service+" "+c.stage+" stage"
	}
	var quota, throttle *cfn.Node
	if q := plan.Get("quota"); truthy(q) {
		quota = obj(q.Pos, "Limit", or2(q.Get("limit")), "Offset", or2(q.Get("offset")), "Period", or2(q.Get("period")))
	}
	if t := plan.Get("throttle"); truthy(t) {
		throttle = obj(t.Pos, "BurstLimit", or2(t.Get("burstLimit")), "RateLimit", or2(t.Get("rateLimit")))
	}
	c.put(id, pos, "AWS::ApiGateway::UsagePlan", obj(pos,
		"ApiStages", []*cfn.Node{obj(pos, "ApiId", ref(pos, restAPIID), "Stage", c.stage)},
		"Description", text, "UsagePlanName", label, "Quota", quota, "Throttle", throttle,
	), "DependsOn", restDeploymentID)
}

func (c *compiler) apiKey(k *cfn.Node, number, plan, planID string) {
	name, value := k, (*cfn.Node)(nil)
	enabled := cfn.From(k.Pos, true)
	if k.Kind == cfn.Map && !isIntrinsic(k) {
		c.keys(k, "in an API key", words("name value description customerId enabled"))
		name, value = k.Get("name"), or(k.Get("value"))
		enabled = or2(k.Get("enabled"), enabled)
	}
	id := "ApiGatewayApiKey" + upperFirst(plan) + number
	c.put(id, k.Pos, "AWS::ApiGateway::ApiKey", obj(k.Pos,
		"Enabled", enabled, "Name", name, "Value", value, "Description", or(k.Get("description")), "CustomerId", or(k.Get("customerId")),
		"StageKeys", []*cfn.Node{obj(k.Pos, "RestApiId", ref(k.Pos, restAPIID), "StageName", c.stage)},
	), "DependsOn", restDeploymentID)
	c.put("ApiGatewayUsagePlanKey"+upperFirst(plan)+number, k.Pos, "AWS::ApiGateway::UsagePlanKey", obj(k.Pos,
		"KeyId", ref(k.Pos, id), "KeyType", "API_KEY", "UsagePlanId", ref(k.Pos, planID)))
}

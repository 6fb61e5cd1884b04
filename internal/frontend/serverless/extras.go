package serverless

import (
	"path"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// packageOf gives what of the project is a function's code. Serverless collects all excludes first and
// all includes after them, the provider's before the function's.
func (c *compiler) packageOf(fn *function) app.Package {
	service, own := c.doc.Get("package"), fn.n.Get("package")
	p := app.Package{
		Alone: isTrue(service.Get("individually")) || isTrue(own.Get("individually")),
	}
	if a := or(own.Get("artifact"), service.Get("artifact")); a != nil {
		p.Artifact = cleanPath(c.text(a, "package.artifact"))
		p.Alone = p.Alone || own.Get("artifact") != nil
		return p
	}
	if truthy(fn.n.Get("image")) {
		return p
	}
	if !p.Alone {
		for _, key := range []string{"patterns", "include", "exclude"} {
			if n := own.Get(key); truthy(n) {
				c.l.Warnf(n.Pos, "no-effect", "Set package.individually to true, for the project or the function.",
					"package.%s of function %q has no effect: its code is packaged with the others'", key, fn.key)
			}
		}
		own = nil
	}
	var layers []string
	for _, l := range mapEntries(c.doc.Get("layers")) {
		if dir, ok := l.Value.Get("path").Text(); ok && dir != "" {
			layers = append(layers, "!"+cleanPath(dir)+"/**")
		}
	}
	p.Patterns = c.patterns(service, own, layers)
	return c.pythonModule(fn, p)
}

// patterns are the globs of two package sections, between whose excludes and includes more stand.
func (c *compiler) patterns(service, own *cfn.Node, more []string) []string {
	var all []string
	add := func(s string) {
		if !slices.Contains(all, s) || len(all) > 0 && all[len(all)-1] != s {
			all = append(all, s)
		}
	}
	for _, n := range []*cfn.Node{service, own} {
		for _, s := range c.globs(n, "exclude") {
			if rest, ok := strings.CutPrefix(s, "!"); ok {
				add(rest)
			} else {
				add("!" + s)
			}
		}
	}
	for _, s := range more {
		add(s)
	}
	for _, n := range []*cfn.Node{service, own} {
		for _, key := range []string{"include", "patterns"} {
			for _, s := range c.globs(n, key) {
				add(s)
			}
		}
	}
	return all
}

// pythonModule applies serverless-python-requirements' `module`: a folder whose content is the function's code.
func (c *compiler) pythonModule(fn *function, p app.Package) app.Package {
	dir, ok := fn.n.Get("module").Text()
	if !ok || dir == "" || !c.plugins["serverless-python-requirements"] {
		return p
	}
	p.Root, p.Alone = cleanPath(dir), true
	var inside []string
	for _, s := range p.Patterns {
		bare := strings.TrimPrefix(s, "!")
		if rest, ok := strings.CutPrefix(bare, p.Root+"/"); ok {
			inside = append(inside, s[:len(s)-len(bare)]+rest)
		} else if strings.HasPrefix(bare, "**/") {
			inside = append(inside, s)
		}
	}
	p.Patterns = inside
	return p
}

func (c *compiler) globs(n *cfn.Node, key string) []string {
	v := n.Get(key)
	if v.IsNull() || isPoison(v) {
		return nil
	}
	if v.Kind != cfn.List {
		c.l.Errorf(v.Pos, "wrong-type", "Begin each pattern with a dash.", "package.%s must be a list, not %s", key, kindName(v))
		return nil
	}
	var out []string
	for _, it := range flatten(v.Items) {
		if s := c.text(it, "a pattern of package."+key); s != "" {
			bang := ""
			if rest, ok := strings.CutPrefix(s, "!"); ok {
				bang, s = "!", rest
			}
			out = append(out, bang+strings.TrimPrefix(s, "./"))
		}
	}
	return out
}

func cleanPath(s string) string {
	if s == "" || strings.Contains(s, "://") {
		return s
	}
	return path.Clean(strings.ReplaceAll(s, `\`, "/"))
}

// image gives a container image's address and its configuration.
func (c *compiler) image(fn *function, n *cfn.Node) (string, *cfn.Node) {
	if s, ok := n.Text(); ok {
		if s = c.namedImage(s); s != "" {
			return s, nil
		}
		return c.text(n, "image"), nil
	}
	c.keys(n, c.where("image of function", fn.key), words("uri name command entryPoint workingDirectory"))
	uri := c.text(n.Get("uri"), "image.uri")
	if name := n.Get("name"); uri == "" && truthy(name) {
		s := c.text(name, "image.name")
		if uri = c.namedImage(s); uri == "" {
			uri = s
		}
	}
	conf := obj(n.Pos, "Command", or(n.Get("command")), "EntryPoint", or(n.Get("entryPoint")), "WorkingDirectory", or(n.Get("workingDirectory")))
	if len(conf.Entries) == 0 {
		conf = nil
	}
	return uri, conf
}

// namedImage looks up an image of provider.ecr.images: its address, or the folder it is built from.
func (c *compiler) namedImage(name string) string {
	def := c.provider.At("ecr", "images", name)
	if def == nil {
		return ""
	}
	if s, ok := def.Text(); ok {
		return s
	}
	if s, ok := or(def.Get("uri"), def.Get("path")).Text(); ok {
		return s
	}
	return name
}

// version adds a function's Version, and the alias that provisioned concurrency or SnapStart needs.
func (c *compiler) version(fn *function) {
	versioned := !isFalse(or2(fn.n.Get("versionFunction"), c.provider.Get("versionFunctions")))
	if !versioned && fn.alias == "" {
		return
	}
	id := normal(fn.key) + "LambdaVersion"
	more := []any{"DeletionPolicy", "Retain"}
	if !versioned {
		more = nil
	}
	c.put(id, fn.pos, "AWS::Lambda::Version", obj(fn.pos, "FunctionName", ref(fn.pos, fn.id), "Description", or(fn.n.Get("description"))), more...)
	c.output(fn.id+"QualifiedArn", fn.pos, "Current Lambda function version", ref(fn.pos, id))
	if fn.alias == "" {
		return
	}
	var provisioned *cfn.Node
	if n := fn.n.Get("provisionedConcurrency"); truthy(n) {
		provisioned = obj(n.Pos, "ProvisionedConcurrentExecutions", n)
	}
	c.put(fn.alias, fn.pos, "AWS::Lambda::Alias", obj(fn.pos,
		"FunctionName", ref(fn.pos, fn.id),
		"FunctionVersion", getAtt(fn.pos, id, "Version"),
		"Name", fn.aliasN,
		"ProvisionedConcurrencyConfig", provisioned,
	), "DependsOn", fn.id)
}

// or2 returns the first Node that is there and not null, false included.
func or2(ns ...*cfn.Node) *cfn.Node {
	for _, n := range ns {
		if !n.IsNull() {
			return n
		}
	}
	return nil
}

// url adds a function URL.
func (c *compiler) url(fn *function) {
	u := fn.n.Get("url")
	if !truthy(u) || isPoison(u) {
		return
	}
	c.keys(u, c.where("url of function", fn.key), urlKeys)
	auth := "NONE"
	if s, _ := u.Get("authorizer").Text(); s == "aws_iam" {
		auth = "AWS_IAM"
	} else if s != "" {
		c.l.Errorf(u.Get("authorizer").Pos, "bad-value", "Leave it out, or write aws_iam.", "the url authorizer %q of function %q is not known", s, fn.key)
	}
	var mode *cfn.Node
	if s, _ := u.Get("invokeMode").Text(); s == "RESPONSE_STREAM" {
		mode = u.Get("invokeMode")
	}
	id := normal(fn.key) + "LambdaFunctionUrl"
	c.put(id, u.Pos, "AWS::Lambda::Url", obj(u.Pos,
		"AuthType", auth, "TargetFunctionArn", c.target(fn, u.Pos), "Cors", c.urlCORS(fn, u.Get("cors")), "InvokeMode", mode,
	), "DependsOn", nonEmpty(fn.alias))
	o := obj(u.Pos, "Description", "Lambda Function URL", "Value", getAtt(u.Pos, id, "FunctionUrl"),
		"Export", obj(u.Pos, "Name", "sls-"+c.service+"-"+c.stage+"-"+id))
	c.outs = append(c.outs, cfn.Entry{Key: id, Pos: u.Pos, Value: o})
	if auth == "NONE" {
		c.put(normal(fn.key)+"LambdaPermissionFnUrl", u.Pos, "AWS::Lambda::Permission", obj(u.Pos,
			"FunctionName", c.target(fn, u.Pos), "Action", "lambda:InvokeFunctionUrl", "Principal", "*", "FunctionUrlAuthType", auth,
		), "DependsOn", nonEmpty(fn.alias))
	}
}

func (c *compiler) urlCORS(fn *function, cors *cfn.Node) *cfn.Node {
	if !truthy(cors) {
		return nil
	}
	c.keys(cors, c.where("url.cors of function", fn.key), corsKeys)
	setting := func(key string, fallback ...string) any {
		n := cors.Get(key)
		switch {
		case truthy(n):
			return cfn.NewList(n.Pos, list(n)...)
		case n != nil, fallback == nil:
			return nil // null takes the default away
		}
		return fallback
	}
	return obj(cors.Pos,
		"AllowCredentials", or(cors.Get("allowCredentials")),
		"AllowHeaders", setting("allowedHeaders", "Content-Type", "X-Amz-Date", "Authorization", "X-Api-Key", "X-Amz-Security-Token", "X-Amzn-Trace-Id"),
		"AllowMethods", setting("allowedMethods", "*"),
		"AllowOrigins", setting("allowedOrigins", "*"),
		"ExposeHeaders", setting("exposedResponseHeaders"),
		"MaxAge", or2(cors.Get("maxAge")))
}

var corsKeys = words("allowCredentials allowedHeaders allowedMethods allowedOrigins exposedResponseHeaders maxAge")

// invokeConfig adds what asynchronous invocations of a function follow.
func (c *compiler) invokeConfig(fn *function) {
	dest, age, tries := fn.n.Get("destinations"), fn.n.Get("maximumEventAge"), fn.n.Get("maximumRetryAttempts")
	if !truthy(dest) && !truthy(age) && tries.IsNull() {
		return
	}
	c.keys(dest, c.where("destinations of function", fn.key), words("onSuccess onFailure"))
	pos := orPos(dest, age, tries).Pos
	conf := cfn.NewMap(pos)
	for _, e := range mapEntries(dest) {
		if arn := c.destination(fn, e); arn != nil {
			conf = conf.With(upperFirst(e.Key), obj(e.Pos, "Destination", arn))
		}
	}
	qualifier := orDefault(fn.aliasN, "$LATEST")
	c.put(normal(fn.key)+"LambdaEvConf", pos, "AWS::Lambda::EventInvokeConfig", obj(pos,
		"FunctionName", ref(pos, fn.id), "DestinationConfig", conf, "Qualifier", qualifier,
		"MaximumEventAgeInSeconds", or(age), "MaximumRetryAttempts", or2(tries),
	), "DependsOn", nonEmpty(fn.alias))
}

var destinationActions = map[string]string{
	"function": "lambda:InvokeFunction", "sqs": "sqs:SendMessage", "sns": "sns:Publish", "eventBus": "events:PutEvents",
}

// destination gives the ARN of one destination and lets the role send to it.
func (c *compiler) destination(fn *function, e cfn.Entry) *cfn.Node {
	v := e.Value
	if v.IsNull() || isPoison(v) {
		return nil
	}
	grant := func(action string, arn *cfn.Node) {
		if fn.n.Get("role") == nil && c.customRole() == nil {
			c.statements = append(c.statements, obj(v.Pos, "Effect", "Allow", "Action", action, "Resource", arn))
		}
	}
	if v.Kind == cfn.Map {
		if arn := v.Get("arn"); arn != nil {
			grant(destinationActions[c.text(v.Get("type"), "a destination's type")], arn)
			return arn
		}
		if isIntrinsic(v) {
			return v
		}
	}
	s := c.text(v, "a destination")
	if strings.HasPrefix(s, "arn:") {
		for part, kind := range map[string]string{":function:": "function", ":sqs:": "sqs", ":sns:": "sns", ":event-bus/": "eventBus"} {
			if strings.Contains(s, part) {
				grant(destinationActions[kind], v)
			}
		}
		return v
	}
	other := c.function(s)
	if other == nil {
		c.noFunction(v.Pos, s, "the destination of function "+fn.key)
		return nil
	}
	grant(destinationActions["function"], obj(v.Pos, "Fn::Sub", "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:"+other.name))
	return c.target(other, v.Pos)
}

func (c *compiler) function(key string) *function {
	for _, fn := range c.fns {
		if fn.key == key {
			return fn
		}
	}
	return nil
}

func (c *compiler) noFunction(pos diag.Pos, name, who string) {
	var keys []string
	for _, fn := range c.fns {
		keys = append(keys, fn.key)
	}
	hint := "Functions here: " + strings.Join(keys, ", ") + "."
	if near := diag.Nearest(name, keys); near != "" {
		hint = "Did you mean \"" + near + "\"?"
	}
	c.l.Errorf(pos, "unknown-function", hint, "%s is %q, and there is no such function", who, name)
}

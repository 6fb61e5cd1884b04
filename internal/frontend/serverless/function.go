package serverless

import (
	"fmt"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// readFunctions collects the functions: a map, or a list of maps that are merged.
func (c *compiler) readFunctions() {
	n := c.doc.Get("functions")
	var entries []cfn.Entry
	if n != nil && n.Kind == cfn.List {
		for _, it := range n.Items {
			entries = append(entries, c.entries(it, "an entry of functions")...)
		}
	} else {
		entries = c.entries(n, "functions")
	}
	entries = append(slices.Clip(entries), c.workers()...)
	seen := map[string]bool{}
	for _, e := range entries {
		if seen[e.Key] {
			c.l.Errorf(e.Pos, "duplicate-key", "Rename one of the two.", "the function %q is there twice", e.Key)
			continue
		}
		seen[e.Key] = true
		if isPoison(e.Value) {
			continue
		}
		if e.Value.Kind != cfn.Map {
			c.l.Errorf(e.Pos, "wrong-type", "Give it at least a handler: `handler: index.handler`.", "the function %q must be a map, not %s", e.Key, kindName(e.Value))
			continue
		}
		c.fns = append(c.fns, c.readFunction(e))
	}
}

func (c *compiler) readFunction(e cfn.Entry) *function {
	fn := &function{key: e.Key, pos: e.Pos, n: e.Value, id: lambdaID(e.Key)}
	c.keys(fn.n, c.where("function", fn.key), c.functionKeysHere())
	c.keys(fn.n.Get("package"), c.where("package of function", fn.key), packageKeys)
	fn.name = fmt.Sprintf("%s-%s-%s", c.service, c.stage, fn.key)
	if n := fn.n.Get("name"); truthy(n) {
		fn.name = c.text(n, "a function's name")
	}
	if truthy(fn.n.Get("provisionedConcurrency")) {
		fn.alias, fn.aliasN = normal(fn.key)+"ProvConcLambdaAlias", "provisioned"
	} else if truthy(fn.n.Get("snapStart")) {
		fn.alias, fn.aliasN = normal(fn.key)+"SnapStartLambdaAlias", "snapstart"
	}
	events := fn.n.Get("events")
	if events.IsNull() || isPoison(events) {
		return fn
	}
	if events.Kind != cfn.List {
		c.l.Errorf(events.Pos, "wrong-type", "Begin each event with a dash: `- httpApi: 'GET /'`.", "the events of function %q must be a list, not %s", fn.key, kindName(events))
		return fn
	}
	for _, it := range flatten(events.Items) {
		if ev, ok := c.readEvent(fn, it); ok {
			fn.events = append(fn.events, ev)
		}
	}
	return fn
}

// flatten spells out lists inside a list: a variable may stand for several events.
func flatten(items []*cfn.Node) []*cfn.Node {
	var out []*cfn.Node
	for _, it := range items {
		if it.Kind == cfn.List {
			out = append(out, it.Items...)
		} else {
			out = append(out, it)
		}
	}
	return out
}

// readEvent reads one entry of events. A bare name stands for the kind without settings (`- alexaSmartHome`).
func (c *compiler) readEvent(fn *function, it *cfn.Node) (event, bool) {
	if isPoison(it) || it.IsNull() {
		return event{}, false
	}
	if s, ok := it.Text(); ok {
		return event{kind: s, pos: it.Pos, v: &cfn.Node{Kind: cfn.Null, Pos: it.Pos}}, true
	}
	if len(it.Entries) == 0 {
		return event{}, false
	}
	e := it.Entries[0]
	for _, other := range it.Entries[1:] {
		hint := "Indent the settings of an event two further than its kind, or begin another event with a dash."
		if len(it.Entries) > 1 && e.Value.IsNull() {
			c.l.Errorf(other.Pos, "event-indent", hint, "%q stands beside the event kind %q of function %q, not below it", other.Key, e.Key, fn.key)
			return event{}, false
		}
		c.l.Warnf(other.Pos, "unknown-key", hint, "%q stands beside the event kind %q of function %q and is ignored", other.Key, e.Key, fn.key)
	}
	return event{kind: e.Key, pos: e.Pos, v: e.Value}, true
}

// core adds what every template has.
func (c *compiler) core() {
	pos := c.provider.Place()
	bucket := c.provider.Get("deploymentBucket")
	name := bucket
	if bucket != nil && bucket.Kind == cfn.Map && !isIntrinsic(bucket) {
		name = bucket.Get("name")
	}
	var value *cfn.Node
	if name.IsNull() {
		value = ref(pos, deploymentBucketID)
		c.put(deploymentBucketID, pos, "AWS::S3::Bucket", obj(pos, "BucketEncryption", map[string]any{
			"ServerSideEncryptionConfiguration": []any{map[string]any{
				"ServerSideEncryptionByDefault": map[string]any{"SSEAlgorithm": "AES256"},
			}},
		}))
		if !isTrue(bucket.Get("skipPolicySetup")) {
			c.put(deploymentBucketID+"Policy", pos, "AWS::S3::BucketPolicy", obj(pos,
				"Bucket", ref(pos, deploymentBucketID),
				"PolicyDocument", obj(pos, "Statement", []*cfn.Node{obj(pos,
					"Action", "s3:*", "Effect", "Deny", "Principal", "*",
					"Resource", []*cfn.Node{
						join(pos, "", "arn:", ref(pos, "AWS::Partition"), ":s3:::", ref(pos, deploymentBucketID), "/*"),
						join(pos, "", "arn:", ref(pos, "AWS::Partition"), ":s3:::", ref(pos, deploymentBucketID)),
					},
					"Condition", map[string]any{"Bool": map[string]any{"aws:SecureTransport": false}},
				)})))
		}
	} else {
		value = name
	}
	c.output(deploymentBucketID+"Name", pos, "", value)
	for _, fn := range c.fns {
		if isTrue(fn.n.Get("disableLogs")) {
			continue
		}
		c.put(logGroupID(fn.key), fn.pos, "AWS::Logs::LogGroup", obj(fn.pos,
			"LogGroupName", "/aws/lambda/"+fn.name,
			"RetentionInDays", or(fn.n.Get("logRetentionInDays"), c.provider.Get("logRetentionInDays")),
			"DataProtectionPolicy", or(fn.n.Get("logDataProtectionPolicy"), c.provider.Get("logDataProtectionPolicy"))))
	}
	c.roleless = c.customRole() != nil || len(c.fns) == 0 || !slices.ContainsFunc(c.fns, func(fn *function) bool {
		return fn.n.Get("role").IsNull() && c.ownRole(fn) == ""
	})
	if !c.roleless {
		c.put(roleID, pos, "AWS::IAM::Role", nil) // its place in the order; the policy is filled in at the end
	}
}

// functionResources adds layers and functions.
func (c *compiler) functionResources() {
	c.layers()
	for _, fn := range c.fns {
		c.compileFunction(fn)
	}
}

func (c *compiler) compileFunction(fn *function) {
	n, prov, pos := fn.n, c.provider, fn.pos
	pkg := c.packageOf(fn)
	nameNode := cfn.Str(pos, fn.name)
	if own := n.Get("name"); truthy(own) {
		nameNode = own
	}
	props := append(c.codeOf(fn, &pkg),
		"FunctionName", nameNode,
		"MemorySize", or(n.Get("memorySize"), prov.Get("memorySize"), cfn.From(pos, 1024)),
		"Timeout", or(n.Get("timeout"), prov.Get("timeout"), cfn.From(pos, 6)),
		"Architectures", optionalList(pos, or(n.Get("architecture"), prov.Get("architecture"))),
		"Description", or(n.Get("description")),
		"Tags", c.tags(pos, prov.Get("tags"), n.Get("tags")))
	if size := n.Get("ephemeralStorageSize"); truthy(size) {
		props = append(props, "EphemeralStorage", obj(pos, "Size", size))
	}
	props = append(props, c.granted(fn)...)
	if env := c.environment(fn); env != nil {
		props = append(props, "Environment", obj(pos, "Variables", env))
	}
	role, deps := c.functionRole(fn)
	props = append(props, "Role", role)
	props = append(props, c.network(fn)...)
	if n := n.Get("reservedConcurrency"); n != nil && n.Kind != cfn.Null {
		props = append(props, "ReservedConcurrentExecutions", n)
	}
	props = append(props, "Layers", c.layersOf(fn))
	if truthy(n.Get("snapStart")) {
		props = append(props, "SnapStart", obj(pos, "ApplyOn", "PublishedVersions"))
	}
	if !isTrue(n.Get("disableLogs")) {
		deps = slices.Insert(deps, 0, cfn.Str(pos, logGroupID(fn.key)))
	}
	deps = append(deps, list(n.Get("dependsOn"))...)
	c.put(fn.id, pos, "AWS::Lambda::Function", obj(pos, props...), "Condition", n.Get("condition"), "DependsOn", deps)
	c.info[fn.id] = cfn.FunctionInfo{Key: fn.key, Package: pkg, Provisioned: c.warm(fn), Isolation: c.isolation(fn.key)}
	c.version(fn)
	c.url(fn)
	c.invokeConfig(fn)
}

// codeOf gives the properties that say what runs.
func (c *compiler) codeOf(fn *function, pkg *app.Package) []any {
	n, pos := fn.n, fn.pos
	image, handler := n.Get("image"), n.Get("handler")
	runtime := or(n.Get("runtime"), c.provider.Get("runtime"))
	stand := cfn.Str(pos, "none") // keeps a fault that has been told from being told again
	switch {
	case truthy(image) && truthy(handler):
		c.l.Errorf(handler.Pos, "handler-and-image", "Keep one of the two.", "function %q has both a handler and an image", fn.key)
		return []any{"Handler", handler, "Runtime", stand}
	case truthy(image):
		uri, conf := c.image(fn, image)
		pkg.Image = uri
		return []any{"Code", obj(pos, "ImageUri", uri), "PackageType", "Image", "ImageConfig", conf}
	case truthy(handler):
		if runtime == nil {
			c.l.Errorf(orPos(c.provider, n).Pos, "missing-runtime", "Add `runtime: nodejs22.x` (or python3.13, provided.al2023, …) under provider or the function.",
				"function %q has no runtime: neither provider.runtime nor its own is set", fn.key)
			runtime = stand
		}
		return []any{"Code", obj(pos, "S3Bucket", c.deploymentBucket(), "S3Key", c.artifactKey(fn, *pkg)), "Handler", handler, "Runtime", runtime}
	}
	c.l.Errorf(fn.pos, "missing-key", "Add `handler: file.function`.", "function %q has neither a handler nor an image", fn.key)
	return []any{"Handler", stand, "Runtime", stand}
}

// granted gives the properties that let the common role do more.
func (c *compiler) granted(fn *function) []any {
	n, pos := fn.n, fn.pos
	var props []any
	if arn := n.Get("onError"); truthy(arn) {
		props = append(props, "DeadLetterConfig", obj(pos, "TargetArn", arn))
		if _, ok := arn.Text(); ok {
			c.allow(arn.Pos, []string{"sns:Publish"}, arn)
		}
	}
	if arn := or(n.Get("kmsKeyArn"), n.Get("awsKmsKeyArn"), c.provider.Get("kmsKeyArn"), c.doc.At("service", "awsKmsKeyArn")); arn != nil {
		props = append(props, "KmsKeyArn", arn)
		if _, ok := arn.Text(); ok {
			c.allow(arn.Pos, []string{"kms:Decrypt"}, arn)
		}
	}
	if mode := or(n.Get("tracing"), c.provider.At("tracing", "lambda")); mode != nil {
		if isTrue(mode) {
			mode = cfn.Str(mode.Pos, "Active")
		}
		props = append(props, "TracingConfig", obj(pos, "Mode", mode))
		c.allow(pos, []string{"xray:PutTraceSegments", "xray:PutTelemetryRecords"}, cfn.Str(pos, "*"))
	}
	return props
}

func optionalList(pos diag.Pos, n *cfn.Node) any {
	if n == nil {
		return nil
	}
	return []*cfn.Node{n}
}

func (c *compiler) deploymentBucket() *cfn.Node {
	b := c.provider.Get("deploymentBucket")
	if b != nil && b.Kind == cfn.Map && !isIntrinsic(b) {
		b = b.Get("name")
	}
	if b.IsNull() {
		return ref(c.provider.Place(), deploymentBucketID)
	}
	return b
}

// artifactKey is where Serverless uploads the code, with a fixed time: nothing is uploaded here.
func (c *compiler) artifactKey(fn *function, pkg app.Package) string {
	zip := c.service + ".zip"
	if pkg.Alone {
		zip = fn.key + ".zip"
	}
	if pkg.Artifact != "" {
		zip = pkg.Artifact[strings.LastIndexByte(pkg.Artifact, '/')+1:]
	}
	return fmt.Sprintf("serverless/%s/%s/0-1970-01-01T00:00:00.000Z/%s", c.service, c.stage, zip)
}

func (c *compiler) tags(pos diag.Pos, maps ...*cfn.Node) any {
	merged := mergeMaps(maps...)
	if merged == nil {
		return nil
	}
	out := []*cfn.Node{}
	for _, e := range merged.Entries {
		out = append(out, obj(pos, "Key", e.Key, "Value", e.Value))
	}
	return out
}

// mergeMaps lays later maps over earlier ones, key by key; nil when none is given.
func mergeMaps(maps ...*cfn.Node) *cfn.Node {
	var out *cfn.Node
	for _, m := range maps {
		if m == nil || m.Kind != cfn.Map {
			continue
		}
		if out == nil {
			out = cfn.NewMap(m.Pos)
		}
		for _, e := range m.Entries {
			out = out.With(e.Key, e.Value)
		}
	}
	return out
}

// environment merges the provider's and the function's variables. A null takes a variable away.
func (c *compiler) environment(fn *function) *cfn.Node {
	for _, n := range []*cfn.Node{c.provider.Get("environment"), fn.n.Get("environment")} {
		c.entries(n, "environment")
	}
	merged := mergeMaps(c.provider.Get("environment"), fn.n.Get("environment"))
	if merged == nil {
		return nil
	}
	out := cfn.NewMap(merged.Pos)
	for _, e := range merged.Entries {
		if e.Value.IsNull() {
			continue
		}
		if text, ok := e.Value.Text(); ok && !isPoison(e.Value) { // a number or bool becomes its text
			e.Value = cfn.Str(e.Value.Pos, text)
		}
		out.Entries = append(out.Entries, e)
	}
	return out
}

// network gives the VPC and file system of a function. A vpc of false or null keeps the provider's away.
func (c *compiler) network(fn *function) []any {
	var props []any
	var vpc *cfn.Node
	own := fn.n.Get("vpc")
	if !(own != nil && (own.Kind == cfn.Null || isFalse(own))) {
		groups := or(own.Get("securityGroupIds"), c.provider.At("vpc", "securityGroupIds"))
		subnets := or(own.Get("subnetIds"), c.provider.At("vpc", "subnetIds"))
		if groups != nil && subnets != nil {
			vpc = obj(fn.pos, "SecurityGroupIds", groups, "SubnetIds", subnets)
			props = append(props, "VpcConfig", vpc)
		}
	}
	if fs := fn.n.Get("fileSystemConfig"); truthy(fs) {
		c.keys(fs, c.where("fileSystemConfig of function", fn.key), words("arn localMountPath"))
		if vpc == nil {
			c.l.Errorf(fs.Pos, "missing-key", "Add vpc to the function or the provider.", "function %q has a fileSystemConfig but no vpc", fn.key)
		}
		c.allow(fs.Pos, []string{"elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"}, fs.Get("arn"))
		props = append(props, "FileSystemConfigs", []*cfn.Node{obj(fs.Pos, "Arn", fs.Get("arn"), "LocalMountPath", fs.Get("localMountPath"))})
	}
	return props
}

package sam

import (
	"path"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/app"
)

// function is one AWS::Serverless::Function while it is compiled.
type function struct {
	*resource
	c       *compiler
	alias   string      // logical ID of the alias that events go to, or empty
	managed []*cfn.Node // policies of its role
	inline  []*cfn.Node // entries of its role's Policies
}

// arn is what events call: the alias where there is one.
func (f *function) arn() *cfn.Node {
	if f.alias != "" {
		return ref(f.pos, f.alias)
	}
	return getAtt(f.pos, f.id, "Arn")
}

// name is arn where a name will do.
func (f *function) name() *cfn.Node {
	if f.alias != "" {
		return ref(f.pos, f.alias)
	}
	return ref(f.pos, f.id)
}

// uri is the address of the function as the target of an API.
func (f *function) uri(stream bool) *cfn.Node {
	id := f.id + ".Arn"
	if f.alias != "" {
		id = f.alias
	}
	version, call := "2015-03-31", "invocations"
	if stream {
		version, call = "2021-11-15", "response-streaming-invocations"
	}
	return when(f.cond, sub(f.pos, "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/"+version+"/functions/${"+id+"}/"+call))
}

// function compiles AWS::Serverless::Function.
func (c *compiler) function(r *resource) {
	f := &function{resource: r, c: c}
	p := r.props
	props := obj(r.pos)
	for _, key := range strings.Fields("FunctionName Handler Runtime Description MemorySize Timeout VpcConfig Environment KmsKeyArn ReservedConcurrentExecutions Layers " +
		"FileSystemConfigs ImageConfig PackageType Architectures SnapStart EphemeralStorage CodeSigningConfigArn RuntimeManagementConfig LoggingConfig TenancyConfig " +
		"RecursiveLoop DurableConfig FunctionScalingConfig PublishToLatestPublished") {
		if v := p.Get(key); !v.IsNull() {
			props = props.With(key, v)
		}
	}
	if mode := p.Get("Tracing"); f.traced() {
		props = props.With("TracingConfig", obj(mode.Pos, "Mode", mode))
	}
	if to := p.At("DeadLetterQueue", "TargetArn"); !to.IsNull() {
		props = props.With("DeadLetterConfig", obj(to.Pos, "TargetArn", to))
	}
	props = c.code(f, props)
	if tags := c.tags(p.Get("Tags"), true); tags != nil {
		props = props.With("Tags", tags)
	}
	f.role(&props)
	at := len(c.res)
	c.put(r, r.id, "AWS::Lambda::Function", props)
	f.publish()
	f.url()
	f.eventInvoke()
	f.policies()
	for _, e := range f.sorted() {
		f.event(e)
	}
	// The role is complete only now: what polls a source adds to it. Its place is behind the function.
	f.putRole(at + 1)
}

// tags turns a map into CloudFormation's list; what SAM makes is marked so.
func (c *compiler) tags(n *cfn.Node, mark bool) *cfn.Node {
	var list []*cfn.Node
	if mark {
		list = append(list, obj(n.Place(), "Key", "lambda:createdBy", "Value", "SAM"))
	}
	for _, e := range entries(n) {
		list = append(list, obj(e.Pos, "Key", e.Key, "Value", e.Value))
	}
	if list == nil {
		return nil
	}
	return cfn.NewList(n.Place(), list...)
}

// traced says whether X-Ray is asked for.
func (f *function) traced() bool {
	n := f.props.Get("Tracing")
	s, _ := f.c.known(n)
	return !n.IsNull() && s != "Disabled"
}

// code gives the function its code: source text, an image, or files of the project.
func (c *compiler) code(f *function, props *cfn.Node) *cfn.Node {
	p := f.props
	info := cfn.FunctionInfo{Key: f.id}
	switch uri, inline := p.Get("CodeUri"), p.Get("InlineCode"); {
	case text(p.Get("PackageType")) == "Image":
		props = props.With("Code", obj(f.pos, "ImageUri", or(p.Get("ImageUri"), cfn.Str(f.pos, "image of "+f.id))))
	case !inline.IsNull():
		props = props.With("Code", obj(inline.Pos, "ZipFile", inline))
	case uri != nil && uri.Kind == cfn.Map && !isIntrinsic(uri):
		c.l.Warnf(uri.Pos, "remote-code", "Write the local folder or zip as CodeUri.", "the code of %q is in S3, not here; the project folder is taken", f.id)
		props = props.With("Code", obj(uri.Pos, "S3Bucket", uri.Get("Bucket"), "S3Key", uri.Get("Key"), "S3ObjectVersion", uri.Get("Version")))
	default:
		dir, known := c.known(uri)
		switch {
		case uri.IsNull():
			dir, known = ".", true
		case !known:
			c.l.Warnf(uri.Pos, "remote-code", "Write the local folder or zip as CodeUri.", "the code of %q is known only to a deploy; the project folder is taken", f.id)
			dir = "."
		case strings.HasPrefix(dir, "s3://"):
			c.l.Warnf(uri.Pos, "remote-code", "Write the local folder or zip as CodeUri.", "the code of %q is in S3, not here; the project folder is taken", f.id)
			dir = "."
		}
		if dir == "" {
			dir = "."
		}
		pos := uri.Place()
		if pos.File == "" {
			pos = f.pos
		}
		props = c.built(f, &info, props, dir).With("Code", cfn.Str(pos, dir))
	}
	c.info[f.id] = info
	return props
}

// built takes the function's Metadata, which says how `sam build` makes its code.
func (c *compiler) built(f *function, info *cfn.FunctionInfo, props *cfn.Node, dir string) *cfn.Node {
	meta := f.decl.Get("Metadata")
	root := path.Join(path.Dir(f.pos.File), dir)
	if root == "." {
		root = ""
	}
	switch method := text(meta.Get("BuildMethod")); method {
	case "makefile":
		runtime := text(f.props.Get("Runtime"))
		if !strings.HasPrefix(runtime, "provided") && runtime != "go1.x" {
			c.l.Notef(meta.Get("BuildMethod").Pos, "build-method", "", "the Makefile of %q is not run: its sources are built as those of any %s function", f.id, runtime)
			break
		}
		info.Package = app.Package{Root: root, Makefile: "build-" + f.id}
	case "esbuild":
		// What is bundled stands at the top of the package, whatever folder its source is in.
		for _, entry := range items(meta.At("BuildProperties", "EntryPoints")) {
			file, handler := path.Clean(text(entry)), text(props.Get("Handler"))
			at := strings.LastIndexByte(handler, '.')
			name := strings.TrimSuffix(file, path.Ext(file))
			if at > 0 && path.Base(name) == path.Base(handler[:at]) && name != handler[:at] {
				h := cfn.Str(props.Get("Handler").Pos, name+handler[at:])
				return props.With("Handler", h)
			}
		}
	}
	return props
}

// publish makes a version and an alias of AutoPublishAlias.
func (f *function) publish() {
	n := f.props.Get("AutoPublishAlias")
	if n.IsNull() {
		if pc := f.props.Get("ProvisionedConcurrencyConfig"); !pc.IsNull() {
			f.c.l.Errorf(pc.Pos, "missing-key", "Add AutoPublishAlias.", "ProvisionedConcurrencyConfig of %q has no alias to keep Instances for", f.id)
		}
		return
	}
	name, ok := f.c.known(n)
	if !ok || name == "" {
		f.c.l.Errorf(n.Pos, "bad-value", "", "AutoPublishAlias must be a text or a Ref to a parameter with a value")
		return
	}
	version := f.id + "Version"
	f.c.put(f.resource, version, "AWS::Lambda::Version", obj(f.pos, "FunctionName", ref(f.pos, f.id), "Description", or(f.props.Get("VersionDescription"))),
		"DeletionPolicy", or(f.decl.Get("DeletionPolicy"), f.props.Get("VersionDeletionPolicy"), cfn.Str(f.pos, "Retain")))
	alias := f.id + "Alias" + strings.NewReplacer("-", "D", "_", "U").Replace(name)
	f.c.put(f.resource, alias, "AWS::Lambda::Alias", obj(n.Pos, "Name", name, "FunctionName", ref(f.pos, f.id),
		"FunctionVersion", getAtt(f.pos, version, "Version"), "ProvisionedConcurrencyConfig", or(f.props.Get("ProvisionedConcurrencyConfig"))))
	f.alias = alias
	f.c.renamed[f.id+".Alias"], f.c.renamed[f.id+".Version"] = alias, version
}

// url makes the function's own address.
func (f *function) url() {
	n := f.props.Get("FunctionUrlConfig")
	if n.IsNull() {
		return
	}
	if n.Kind != cfn.Map || n.Get("AuthType").IsNull() && !isIntrinsic(n) {
		f.c.l.Errorf(n.Pos, "missing-key", "Add `AuthType: NONE` or `AuthType: AWS_IAM`.", "FunctionUrlConfig of %q has no AuthType", f.id)
		return
	}
	f.c.put(f.resource, f.id+"Url", "AWS::Lambda::Url", obj(n.Pos, "AuthType", or(n.Get("AuthType")), "Cors", or(n.Get("Cors")),
		"InvokeMode", or(n.Get("InvokeMode")), "TargetFunctionArn", f.name()))
	if text(n.Get("AuthType")) != "NONE" {
		return
	}
	f.c.put(f.resource, f.id+"UrlPublicPermissions", "AWS::Lambda::Permission", obj(n.Pos, "Action", "lambda:InvokeFunctionUrl",
		"FunctionName", f.name(), "Principal", "*", "FunctionUrlAuthType", "NONE"))
	f.c.put(f.resource, f.id+"URLInvokeAllowPublicAccess", "AWS::Lambda::Permission", obj(n.Pos, "Action", "lambda:InvokeFunction",
		"FunctionName", f.name(), "Principal", "*", "InvokedViaFunctionUrl", true))
}

// eventInvoke makes the configuration of asynchronous Invocations, and the queue or topic of a destination that names none.
func (f *function) eventInvoke() {
	n := f.props.Get("EventInvokeConfig")
	if n.IsNull() {
		return
	}
	id := f.id + "EventInvokeConfig"
	dest := obj(n.Pos)
	for _, what := range []string{"OnSuccess", "OnFailure"} {
		d := n.At("DestinationConfig", what)
		if d.IsNull() {
			continue
		}
		to, kind := d.Get("Destination"), text(d.Get("Type"))
		if to.IsNull() {
			switch kind {
			case "SQS":
				to = f.destination(what, id+what+"Queue", "AWS::SQS::Queue", "DestinationQueue", getAtt(d.Pos, id+what+"Queue", "Arn"))
			case "SNS":
				to = f.destination(what, id+what+"Topic", "AWS::SNS::Topic", "DestinationTopic", ref(d.Pos, id+what+"Topic"))
			default:
				f.c.l.Errorf(d.Pos, "missing-key", "Add Destination, or a Type of SQS or SNS.", "%s of %q has no destination", what, f.id)
				continue
			}
		}
		dest = dest.With(what, obj(d.Pos, "Destination", to))
		f.allowDestination(kind, id+what, to)
	}
	qualifier := cfn.Str(n.Pos, "$LATEST")
	var more []any
	if f.alias != "" {
		name, _ := f.c.known(f.props.Get("AutoPublishAlias"))
		qualifier, more = cfn.Str(n.Pos, name), []any{"DependsOn", []string{f.alias}}
	}
	f.c.put(f.resource, id, "AWS::Lambda::EventInvokeConfig", obj(n.Pos, "FunctionName", ref(f.pos, f.id), "Qualifier", qualifier, "DestinationConfig", dest,
		"MaximumEventAgeInSeconds", or(n.Get("MaximumEventAgeInSeconds")), "MaximumRetryAttempts", or(n.Get("MaximumRetryAttempts"))), more...)
}

func (f *function) destination(what, id, typ, property string, at *cfn.Node) *cfn.Node {
	f.c.put(f.resource, id, typ, obj(f.pos))
	f.c.renamed[f.id+"."+property] = id
	return at
}

// allowDestination lets the function's role send to a destination.
func (f *function) allowDestination(kind, id string, to *cfn.Node) {
	switch kind {
	case "SQS":
		f.grant(id+"SQSPolicy", statement(to, "sqs:SendMessage"))
	case "SNS":
		f.grant(id+"SNSPolicy", statement(to, "sns:publish"))
	case "EventBridge":
		f.grant(id+"EventBridgePolicy", statement(to, "events:PutEvents"))
	case "Lambda":
		f.grant(id+"LambdaPolicy", statement(to, "lambda:InvokeFunction"))
	case "S3", "S3Bucket":
		f.grant(id+"S3Policy", statement(obj(to.Pos, "Fn::Join", []any{"/", []any{to, "*"}}), "s3:PutObject"), statement(to, "s3:ListBucket"))
	}
}

func statement(to *cfn.Node, actions ...string) *cfn.Node {
	return obj(to.Pos, "Action", actions, "Effect", "Allow", "Resource", to)
}

// sorted gives the events in the order in which SAM takes them: by path, or else by name.
func (f *function) sorted() []cfn.Entry {
	n := f.props.Get("Events")
	if !n.IsNull() && n.Kind != cfn.Map {
		f.c.l.Errorf(n.Pos, "bad-value", "", "Events of %q must be a map", f.id)
		return nil
	}
	list := slices.Clone(entries(n))
	key := func(e cfn.Entry) string {
		if p := text(e.Value.At("Properties", "Path")); p != "" {
			return p
		}
		if text(e.Value.Get("Type")) == "HttpApi" {
			return "$default"
		}
		return e.Key
	}
	slices.SortStableFunc(list, func(a, b cfn.Entry) int { return strings.Compare(key(a), key(b)) })
	return list
}

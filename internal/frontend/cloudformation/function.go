package cloudformation

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
)

// function reads AWS::Lambda::Function.
func (l *loader) function(r *resource) {
	r.modeled = true
	o := l.object(r.props)
	l.checkKeys("AWS::Lambda::Function Environment", r.props.Get("Environment"))
	info := l.in.Functions[r.id]
	f := app.Function{
		Key: info.Key, ID: r.id, Package: info.Package, Provisioned: info.Provisioned,
		Description: o.str("Description"), Runtime: o.str("Runtime"), Handler: o.str("Handler"),
		MemoryMB: o.num("MemorySize", 128), TimeoutSec: o.num("Timeout", 3), TmpMB: o.obj("EphemeralStorage").num("Size", 0),
		Env: o.obj("Environment").valMap("Variables"), Layers: o.vals("Layers"),
	}
	if f.Key == "" {
		f.Key = r.id
	}
	if f.Isolation = info.Isolation; f.Isolation == "" {
		f.Isolation = l.isolation(r.id)
	}
	if f.Place = r.props.Get("Handler").Place(); f.Place.File == "" {
		f.Place = r.pos
	}
	f.Name = l.in.Stack + "-" + r.id
	if v := o.val("FunctionName"); !v.IsZero() {
		if s, ok := v.Literal(); ok {
			f.Name = s
		} else {
			o.late("FunctionName", v, "the function is called "+f.Name)
		}
	}
	if arch := o.strs("Architectures"); len(arch) > 0 {
		if f.Arch = arch[0]; f.Arch != "x86_64" && f.Arch != "arm64" {
			o.bad("Architectures", "x86_64 or arm64, not "+strconv.Quote(f.Arch))
		}
	}
	if o.has("ReservedConcurrentExecutions") {
		n := o.num("ReservedConcurrentExecutions", 0)
		f.Reserved = &n
	}
	for _, t := range o.objs("Tags") {
		if f.Tags == nil {
			f.Tags = map[string]string{}
		}
		f.Tags[t.str("Key")] = t.val("Value").String()
	}
	if v := o.obj("DeadLetterConfig").val("TargetArn"); !v.IsZero() {
		f.Async = &app.Async{DeadLetter: v}
	}
	f.Role = l.roleOf(o)
	image := o.str("PackageType") == "Image" || !o.n.At("Code", "ImageUri").IsNull()
	if _, given := l.in.Functions[r.id]; !given || emptyPackage(info.Package) {
		l.code(r, o, &f, image, given)
	}
	if !image {
		for _, key := range []string{"Runtime", "Handler"} {
			if !o.has(key) {
				l.diags.Errorf(r.pos, "missing-key", "", "the function %q has no %s", r.id, key)
			}
		}
	}
	f.Extra = o.pick("VpcConfig", "TracingConfig", "KmsKeyArn", "FileSystemConfigs", "SnapStart", "LoggingConfig", "ImageConfig",
		"RuntimeManagementConfig", "CodeSigningConfigArn", "RecursiveLoop", "CapacityProviderConfig", "DurableConfig", "TenancyConfig",
		"FunctionScalingConfig", "PublishToLatestPublished")
	l.app.Functions = append(l.app.Functions, f)
	l.runs[r.id] = f.Key
}

func emptyPackage(p app.Package) bool {
	return p.Root == "" && p.Artifact == "" && p.Makefile == "" && p.Image == "" && p.Inline == "" && len(p.Patterns) == 0 && !p.Only && !p.Alone
}

// code reads the Code property: source text, an image, or a path beside the template.
func (l *loader) code(r *resource, o object, f *app.Function, image, given bool) {
	code := o.n.Get("Code")
	asset, isAsset := assetOf(r, "Code")
	switch {
	case image:
		v := o.obj("Code").val("ImageUri")
		f.Package = app.Package{Image: v.String()}
	case code.IsNull():
		if !given {
			o.l.diags.Warnf(o.n.Place(), "no-code", "Name the folder of the code in Code.", "the function %q has no Code; the project folder is taken", f.Key)
		}
	case code.Kind == Scalar && !strings.Contains(o.str("Code"), "://"):
		if path.IsAbs(o.str("Code")) {
			o.bad("Code", "a path relative to the template's folder")
		}
		f.Package = localCode(path.Dir(code.Pos.File), o.str("Code"))
	case !code.Get("ZipFile").IsNull():
		v := o.obj("Code").val("ZipFile")
		if _, ok := v.Literal(); !ok {
			o.late("Code", v, "the source is taken with that text as it is")
		}
		f.Package = app.Package{Inline: v.String()}
	case isAsset:
		f.Package = app.Package{Artifact: path.Join(path.Dir(code.Pos.File), asset)}
	case !given:
		l.diags.Warnf(code.Pos, "remote-code", "Write the local folder or zip as the value of Code.", "the code of %q is in S3, not here; the project folder is taken", f.Key)
	}
}

// assetOf is the local path that the CDK leaves in a resource's Metadata for a property whose content it uploads.
func assetOf(r *resource, property string) (string, bool) {
	meta := r.decl.Get("Metadata")
	if of, _ := meta.Get("aws:asset:property").Text(); of != property {
		return "", false
	}
	p, ok := meta.Get("aws:asset:path").Text()
	return p, ok && !path.IsAbs(p)
}

// localCode is a path relative to the template's folder: a zip, one source file, or a folder.
func localCode(dir, p string) app.Package {
	p = path.Join(dir, strings.TrimPrefix(p, "file://"))
	switch ext := strings.ToLower(path.Ext(p)); ext {
	case ".zip", ".jar", ".war":
		return app.Package{Artifact: p}
	case ".js", ".mjs", ".cjs", ".ts", ".py", ".rb", ".wasm":
		return app.Package{Root: root(path.Dir(p)), Patterns: []string{path.Base(p)}, Only: true}
	}
	return app.Package{Root: root(p)}
}

func root(p string) string {
	if p == "." {
		return ""
	}
	return p
}

// named finds the Function a property names: by reference, ARN or name. The key is empty when it is none of the App's.
func (l *loader) named(v app.Value) string {
	for _, id := range v.Refs() {
		if key := l.runs[id]; key != "" {
			return key
		}
	}
	s := v.String()
	if m := regexp.MustCompile(`:function:([A-Za-z0-9_-]+)`).FindStringSubmatch(s); m != nil {
		s = m[1]
	} else if lit, ok := v.Literal(); !ok || strings.ContainsAny(lit, "/.") {
		return ""
	} else {
		s, _, _ = strings.Cut(lit, ":")
	}
	for _, f := range l.app.Functions {
		if f.Name == s {
			return f.Key
		}
	}
	return ""
}

// target is the Function that a property of r names, or nil with a warning.
func (l *loader) target(r *resource, o object, key string) *app.Function {
	v := o.val(key)
	if k := l.named(v); k != "" {
		return l.app.Function(k)
	}
	l.diags.Warnf(o.pos(key), "not-here", "", "%s %q is about a function outside this template: %s", shortType(r.typ), r.id, v)
	return nil
}

func shortType(typ string) string { return typ[strings.LastIndex(typ, ":")+1:] }

// version reads AWS::Lambda::Version and Alias. An alias stays in the App as well, being a name to call.
func (l *loader) version(r *resource) {
	o := l.object(r.props)
	f := l.target(r, o, "FunctionName")
	if f == nil {
		return
	}
	l.runs[r.id] = f.Key
	r.modeled = r.typ == "AWS::Lambda::Version"
	f.Provisioned = max(f.Provisioned, o.obj("ProvisionedConcurrencyConfig").num("ProvisionedConcurrentExecutions", 0))
}

// eventInvoke reads AWS::Lambda::EventInvokeConfig.
func (l *loader) eventInvoke(r *resource) {
	o := l.object(r.props)
	f := l.target(r, o, "FunctionName")
	if f == nil {
		return
	}
	r.modeled = true
	if f.Async == nil {
		f.Async = &app.Async{}
	}
	if o.has("MaximumRetryAttempts") {
		n := o.num("MaximumRetryAttempts", 2)
		f.Async.MaxRetries = &n
	}
	f.Async.MaxAgeSec = o.num("MaximumEventAgeInSeconds", 0)
	dest := o.obj("DestinationConfig")
	f.Async.OnSuccess = dest.obj("OnSuccess").val("Destination")
	f.Async.OnFailure = dest.obj("OnFailure").val("Destination")
}

// functionURL reads AWS::Lambda::Url.
func (l *loader) functionURL(r *resource) {
	o := l.object(r.props)
	f := l.target(r, o, "TargetFunctionArn")
	if f == nil {
		return
	}
	r.modeled = true
	u := &app.URL{Auth: "none", Stream: o.str("InvokeMode") == "RESPONSE_STREAM"}
	switch auth := o.str("AuthType"); auth {
	case "NONE":
	case "AWS_IAM":
		u.Auth = "iam"
	default:
		o.bad("AuthType", "NONE or AWS_IAM")
	}
	if o.has("Cors") {
		c := o.obj("Cors")
		u.CORS = &app.CORS{Origins: c.strs("AllowOrigins"), Methods: c.strs("AllowMethods"), Headers: c.strs("AllowHeaders"),
			Expose: c.strs("ExposeHeaders"), MaxAgeSec: c.num("MaxAge", 0), Credentials: c.flag("AllowCredentials", false)}
	}
	if f.URL != nil {
		l.diags.Warnf(r.pos, "second-url", "", "the function %q has several URLs; this one is taken", f.Key)
	}
	f.URL = u
}

func (l *loader) addRoute(r *resource, route app.Route) {
	if l.app.API(route.API) != nil && slices.ContainsFunc(l.app.Routes, func(o app.Route) bool {
		return o.API == route.API && o.Method == route.Method && o.Path == route.Path
	}) {
		l.diags.Errorf(r.pos, "duplicate-route", "Remove one of the two.", "the route %s %s is there twice", route.Method, route.Path)
		return
	}
	l.routePos[route.Method+" "+route.Path] = r.pos
	l.app.Routes = append(l.app.Routes, route)
}

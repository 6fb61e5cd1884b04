package serverless

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

var sourceNames = []string{"self", "opt", "env", "file", "sls", "aws", "cf", "ssm", "s3", "secretsManager", "param", "strToBool", "git"}

// fetch asks one source. It returns a Node (Null when the source has nothing to say against a
// fallback), or nil and what is missing.
func (r *resolver) fetch(pos diag.Pos, src *source, more bool) (*cfn.Node, missing) {
	addr := r.text(pos, orEmpty(src.addr))
	if isPoison(addr) {
		return addr, missing{}
	}
	address, ok := addr.Text()
	if !ok && !addr.IsNull() {
		return nil, missing{what: "its address is not a text", fatal: true}
	}
	switch src.name {
	case "self":
		return r.self(pos, address)
	case "opt":
		return r.opt(pos, address, more)
	case "env":
		return r.env(pos, address)
	case "file":
		return r.file(pos, src, address)
	case "sls":
		return r.sls(pos, address)
	case "aws":
		return r.aws(pos, address)
	case "param":
		return r.param(pos, address)
	case "strToBool":
		return r.strToBool(pos, src)
	case "git":
		return r.git(pos, address)
	case "construct":
		return r.construct(pos, address)
	case "cf", "ssm", "s3", "secretsManager":
		return r.deferred(pos, src, address, more)
	}
	m := missing{what: fmt.Sprintf("%q is not a known source", src.name), id: "unknown-variable-source", fatal: true}
	if near := diag.Nearest(src.name, sourceNames); near != "" {
		m.hint = fmt.Sprintf("Did you mean %q?", near)
	} else {
		m.hint = "Known sources: " + strings.Join(sourceNames, ", ") + ". Sources of plugins are not read; pass the value in as ${env:NAME} or ${param:name}."
	}
	return nil, m
}

func orEmpty(t text) text {
	if len(t) == 0 {
		return text{{}}
	}
	return t
}

// self follows an address in the project file. provider.stage and provider.region always have a value.
func (r *resolver) self(pos diag.Pos, address string) (*cfn.Node, missing) {
	switch address {
	case "provider.stage":
		if r.stage != "" {
			return cfn.Str(pos, r.stage), missing{}
		}
	case "provider.region":
		if r.region != "" {
			return cfn.Str(pos, r.region), missing{}
		}
	case "service.name":
		if svc := r.shallow(r.root.Get("service")); svc != nil && svc.Kind == cfn.Scalar {
			return svc, missing{}
		}
	}
	n, m := r.follow(r.root, splitAddress(address), "self:")
	if n == nil && address == "provider.stage" {
		return cfn.Str(pos, defaultStage), missing{}
	}
	if n == nil && address == "provider.region" {
		return cfn.Str(pos, defaultRegion), missing{}
	}
	return n, m
}

// What Serverless assumes when nothing says otherwise.
const (
	defaultStage  = "dev"
	defaultRegion = "us-east-1"
)

// opt gives the command line's options. Without --stage, ${opt:stage} alone means the stage in force:
// projects rely on always being given one.
func (r *resolver) opt(pos diag.Pos, name string, more bool) (*cfn.Node, missing) {
	switch name {
	case "stage":
		if r.o.Stage != "" {
			return cfn.Str(pos, r.o.Stage), missing{}
		}
		if !more && r.stage != "" {
			return cfn.Str(pos, r.stage), missing{}
		}
		if !more {
			return cfn.Str(pos, defaultStage), missing{}
		}
	case "region":
		if r.o.Region != "" {
			return cfn.Str(pos, r.o.Region), missing{}
		}
		if !more && r.region != "" {
			return cfn.Str(pos, r.region), missing{}
		}
		if !more {
			return cfn.Str(pos, defaultRegion), missing{}
		}
	}
	if v, ok := r.o.Params[name]; ok {
		return cfn.Str(pos, v), missing{}
	}
	return nil, missing{
		what: fmt.Sprintf("the option %s was not given", name),
		hint: fmt.Sprintf("Pass --param %s=VALUE, or write a fallback: ${opt:%s, 'value'}.", name, name),
	}
}

func (r *resolver) env(pos diag.Pos, name string) (*cfn.Node, missing) {
	if v, ok := r.getenv(name); ok {
		return cfn.Str(pos, v), missing{}
	}
	m := missing{
		what: fmt.Sprintf("the environment variable %s is not set", name),
		hint: fmt.Sprintf("Set %s, put it into a file given with --env-file, or write a fallback: ${env:%s, 'value'}.", name, name),
	}
	if _, ok := r.dotenvUnused[name]; ok {
		m.hint = fmt.Sprintf("The .env file has %s but is not read: add `useDotenv: true`, or pass --env-file .env.", name)
	}
	return nil, m
}

// getenv looks in the user's environment first, then in dotenv files, as dotenv itself does.
func (r *resolver) getenv(name string) (string, bool) {
	if r.p.Env != nil {
		if v, ok := r.p.Env(name); ok {
			return v, true
		}
	}
	v, ok := r.dotenv[name]
	return v, ok
}

func (r *resolver) sls(pos diag.Pos, address string) (*cfn.Node, missing) {
	switch address {
	case "stage":
		return cfn.Str(pos, r.stage), missing{}
	case "instanceId":
		// Serverless makes a random one for each run; a fixed one keeps Revisions from changing without cause.
		sum := sha256.Sum256([]byte(r.p.Root + "\x00" + r.stage))
		return cfn.Str(pos, hex.EncodeToString(sum[:5])), missing{}
	}
	return nil, missing{what: fmt.Sprintf("sls has no %q", address), hint: "It has stage and instanceId."}
}

func (r *resolver) aws(pos diag.Pos, address string) (*cfn.Node, missing) {
	switch address {
	case "accountId":
		return cfn.Str(pos, r.o.Account), missing{}
	case "region":
		return cfn.Str(pos, r.region), missing{}
	}
	return nil, missing{what: fmt.Sprintf("aws has no %q", address), hint: "It has accountId and region."}
}

// param looks for a parameter on the command line, then in the stage's parameters, then in the default ones.
func (r *resolver) param(pos diag.Pos, name string) (*cfn.Node, missing) {
	if v, ok := r.o.Params[name]; ok {
		return cfn.Str(pos, v), missing{}
	}
	known := slices.Collect(maps.Keys(r.o.Params))
	for _, stage := range []string{r.stage, "default"} {
		for _, path := range [][]string{{"stages", stage, "params"}, {"params", stage}} {
			n := r.shallow(r.root)
			for _, k := range path {
				n = r.shallow(n.Get(k))
			}
			if n.Get(name) != nil {
				return r.full(n.Get(name)), missing{}
			}
			known = append(known, keysOf(n)...)
		}
	}
	m := missing{
		what: fmt.Sprintf("there is no parameter %q for the stage %s", name, r.stage),
		hint: fmt.Sprintf("Pass --param %s=VALUE, add it under params.%s or params.default, or write a fallback.", name, r.stage),
	}
	if near := diag.Nearest(name, known); near != "" {
		m.hint = fmt.Sprintf("Did you mean %q?", near)
	}
	return nil, m
}

func (r *resolver) strToBool(pos diag.Pos, src *source) (*cfn.Node, missing) {
	if len(src.params) == 0 {
		return nil, missing{what: "strToBool needs a value in parentheses", fatal: true}
	}
	n := r.shallow(r.text(pos, src.params[0]))
	if isPoison(n) {
		return n, missing{}
	}
	s, _ := n.Text()
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true", "1":
		return cfn.From(pos, true), missing{}
	case "false", "0":
		return cfn.From(pos, false), missing{}
	}
	return nil, missing{what: fmt.Sprintf("strToBool of %q: want true, false, 1 or 0", s), id: "variable-type", fatal: true}
}

// gitCommands are the facts of serverless-plugin-git-variables.
var gitCommands = map[string][]string{
	"sha1":          {"rev-parse", "--short", "HEAD"},
	"commit":        {"rev-parse", "HEAD"},
	"branch":        {"rev-parse", "--abbrev-ref", "HEAD"},
	"describe":      {"describe", "--always"},
	"message":       {"log", "-1", "--pretty=%B"},
	"messageBody":   {"log", "-1", "--pretty=%b"},
	"user":          {"config", "user.name"},
	"email":         {"config", "user.email"},
	"tags":          {"tag", "--points-at", "HEAD"},
	"isDirty":       {"status", "--porcelain"},
	"repository":    {"rev-parse", "--show-toplevel"},
	"describeLight": {"describe", "--always", "--tags"},
}

func (r *resolver) git(pos diag.Pos, address string) (*cfn.Node, missing) {
	args, ok := gitCommands[address]
	if !ok {
		known := slices.Sorted(maps.Keys(gitCommands))
		return nil, missing{what: fmt.Sprintf("git has no %q", address), hint: "It has " + strings.Join(known, ", ") + "."}
	}
	if r.p.Exec != nil {
		if out, err := r.p.Exec(r.ctx, "git", args...); err == nil {
			s := strings.TrimSpace(string(out))
			switch address {
			case "isDirty":
				s = fmt.Sprint(s != "")
			case "repository":
				s = s[strings.LastIndexByte(s, '/')+1:]
			case "tags":
				s = strings.ReplaceAll(s, "\n", "::")
			}
			return cfn.Str(pos, s), missing{}
		}
	}
	r.warnOnce(pos, "git-unknown", "Give the value another way, as in ${env:NAME}, if the project depends on it.",
		"git says nothing here: ${git:%s} becomes \"unknown\"", address)
	return cfn.Str(pos, "unknown"), missing{}
}

// deferred gives a reference that is resolved at deploy. With a fallback beside it the fallback wins:
// whether the referenced thing exists cannot be known while a file is read.
func (r *resolver) deferred(pos diag.Pos, src *source, address string, more bool) (*cfn.Node, missing) {
	if more {
		r.warnOnce(pos, "deferred-fallback", "", "${%s} is not looked up while the project is read; its fallback is used", src.raw)
		return nil, missing{}
	}
	if address == "" {
		return nil, missing{what: src.name + " needs an address", fatal: true}
	}
	region := ""
	params := make([]string, 0, len(src.params))
	for _, p := range src.params {
		s, _ := r.text(pos, p).Text()
		params = append(params, strings.TrimSpace(s))
	}
	if len(params) > 0 && params[0] != "" && params[0] != "raw" && params[0] != "noDecrypt" {
		region = params[0]
	}
	if region != "" && region != r.region && src.name == "cf" {
		r.warnOnce(pos, "other-region", "", "${%s} asks another region; it is looked up in this one", src.raw)
	}
	switch src.name {
	case "cf":
		// Another Stack's output: the same lookup as an import, under the name STACK.OUTPUT.
		return obj(pos, "Fn::ImportValue", address), missing{}
	case "ssm":
		address, _, _ = strings.Cut(address, "~")
		if name, ok := strings.CutPrefix(address, "/aws/reference/secretsmanager/"); ok {
			return cfn.Str(pos, "{{resolve:secretsmanager:"+name+"}}"), missing{}
		}
		return cfn.Str(pos, "{{resolve:ssm:"+address+"}}"), missing{}
	case "secretsManager":
		return cfn.Str(pos, "{{resolve:secretsmanager:"+address+"}}"), missing{}
	}
	return cfn.Str(pos, "{{resolve:s3:"+address+"}}"), missing{}
}

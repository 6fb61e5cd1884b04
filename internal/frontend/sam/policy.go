package sam

import (
	_ "embed"
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

// policyText holds SAM's policy templates, from aws/serverless-application-model (Apache-2.0), without their descriptions.
//
//go:embed policies.json
var policyText []byte

// managedText holds the managed policies of AWS that have a path, by path and name.
//
//go:embed managed.txt
var managedText string

// policyTemplate is a policy with parameters.
type policyTemplate struct {
	Parameters []string
	Statement  []map[string]any
}

var policyTemplates = sync.OnceValue(func() map[string]policyTemplate {
	var all map[string]policyTemplate
	if err := json.Unmarshal(policyText, &all); err != nil {
		panic("policies.json: " + err.Error())
	}
	return all
})

var managedPaths = sync.OnceValue(func() map[string]string {
	all := map[string]string{}
	for line := range strings.FieldsSeq(managedText) {
		all[path.Base(line)] = line
	}
	return all
})

// grant adds an inline policy to the function's role; one with the same statements is there once.
func (f *function) grant(name string, statements ...*cfn.Node) {
	doc := obj(f.pos, "Statement", statements)
	f.addPolicy(obj(f.pos, "PolicyName", name, "PolicyDocument", doc))
}

func (f *function) addPolicy(p *cfn.Node) {
	if !slices.ContainsFunc(f.inline, func(o *cfn.Node) bool { return sameData(o.Get("PolicyDocument"), p.Get("PolicyDocument")) }) {
		f.inline = append(f.inline, p)
	}
}

func sameData(a, b *cfn.Node) bool {
	x, err1 := json.Marshal(a.Plain())
	y, err2 := json.Marshal(b.Plain())
	return err1 == nil && err2 == nil && string(x) == string(y)
}

func (f *function) manage(arn *cfn.Node) {
	if !slices.ContainsFunc(f.managed, func(o *cfn.Node) bool { return sameData(o, arn) }) {
		f.managed = append(f.managed, arn)
	}
}

func managedARN(pos diag.Pos, name string) *cfn.Node {
	if strings.HasPrefix(name, "arn:") {
		return cfn.Str(pos, name)
	}
	if full := managedPaths()[name]; full != "" {
		name = full
	}
	return cfn.Str(pos, "arn:aws:iam::aws:policy/"+name)
}

// role decides what the function runs as: the role it names, or one that is made for it, with what its properties need.
func (f *function) role(props **cfn.Node) {
	own := getAtt(f.pos, f.id+"Role", "Arn")
	switch n := f.props.Get("Role"); {
	case n.IsNull():
		*props = (*props).With("Role", own)
	case n.Get("Fn::If") != nil && n.Kind == cfn.Map:
		a := n.Get("Fn::If").Items
		if len(a) == 3 {
			a = slices.Clone(a)
			for i := 1; i < 3; i++ {
				if isNoValue(a[i]) {
					a[i] = own
				}
			}
			n = obj(n.Pos, "Fn::If", a)
		}
		*props = (*props).With("Role", n)
	default:
		*props = (*props).With("Role", n)
	}
	basic := "service-role/AWSLambdaBasicExecutionRole"
	if !f.props.Get("DurableConfig").IsNull() {
		basic = "service-role/AWSLambdaBasicDurableExecutionRolePolicy"
	}
	f.manage(managedARN(f.pos, basic))
	if f.traced() {
		f.manage(managedARN(f.pos, "AWSXrayWriteOnlyAccess"))
	}
	if !f.props.Get("VpcConfig").IsNull() {
		f.manage(managedARN(f.pos, "service-role/AWSLambdaVPCAccessExecutionRole"))
	}
	if dlq := f.props.Get("DeadLetterQueue"); !dlq.IsNull() {
		action := map[string]string{"SQS": "sqs:SendMessage", "SNS": "sns:Publish"}[text(dlq.Get("Type"))]
		if action == "" || dlq.Get("TargetArn").IsNull() {
			f.c.l.Errorf(dlq.Pos, "missing-key", "Write `Type: SQS` or `Type: SNS`, and TargetArn.", "DeadLetterQueue of %q needs a Type and a TargetArn", f.id)
		} else {
			f.grant("DeadLetterQueuePolicy", statement(dlq.Get("TargetArn"), action))
		}
	}
}

// roleCondition says under which condition the role is made, and whether it is at all.
func (f *function) roleCondition() (condition *cfn.Node, made bool) {
	n := f.props.Get("Role")
	if n.IsNull() {
		return nil, true
	}
	a := items(n.Get("Fn::If"))
	if len(a) != 3 {
		return nil, false
	}
	name := text(a[0])
	switch {
	case isNoValue(a[1]) && isNoValue(a[2]):
		return nil, true
	case isNoValue(a[1]):
		return cfn.Str(f.pos, name), true
	case isNoValue(a[2]):
		f.c.conds = append(f.c.conds, cfn.Entry{Key: "NOT" + name, Pos: n.Pos, Value: obj(n.Pos, "Fn::Not", []*cfn.Node{obj(n.Pos, "Condition", name)})})
		return cfn.Str(f.pos, "NOT"+name), true
	}
	return nil, false
}

// putRole adds the role at a place among the resources.
func (f *function) putRole(at int) {
	condition, made := f.roleCondition()
	if !made {
		return
	}
	p := f.props
	before := len(f.c.res)
	f.c.put(f.resource, f.id+"Role", "AWS::IAM::Role", obj(f.pos,
		"AssumeRolePolicyDocument", or(p.Get("AssumeRolePolicyDocument"), trust(f.pos, "lambda.amazonaws.com")),
		"ManagedPolicyArns", f.managed, "Policies", f.inline, "Path", or(p.Get("RolePath")), "PermissionsBoundary", or(p.Get("PermissionsBoundary")),
		"Tags", f.c.tags(p.Get("Tags"), true)), "Condition", condition)
	if len(f.c.res) == before+1 {
		e := f.c.res[before]
		f.c.res = slices.Insert(f.c.res[:before], at, e)
	}
}

func trust(pos diag.Pos, service string) *cfn.Node {
	return cfn.From(pos, map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Action": []any{"sts:AssumeRole"}, "Effect": "Allow", "Principal": map[string]any{"Service": []any{service}}}}})
}

// policies reads what the project lets the function's role do.
func (f *function) policies() {
	for i, n := range policyList(f.props.Get("Policies")) {
		f.policy(f.id+"RolePolicy"+strconv.Itoa(i), n)
	}
}

// policyList gives the single policies. A map of several templates is one policy for each.
func policyList(n *cfn.Node) []*cfn.Node {
	var out []*cfn.Node
	for _, it := range items(n) {
		if it.Kind == cfn.Map && len(it.Entries) > 1 && it.Get("Statement") == nil {
			for _, e := range it.Entries {
				out = append(out, cfn.NewMap(e.Pos, e))
			}
			continue
		}
		out = append(out, it)
	}
	return out
}

// policy adds one entry of Policies: the name or ARN of a managed policy, a document, or a template.
func (f *function) policy(name string, n *cfn.Node) {
	switch s, isText := n.Text(); {
	case n.IsNull():
	case isText:
		f.manage(managedARN(n.Pos, s))
	case n.Get("Fn::If") != nil:
		f.policyIf(name, n)
	case isIntrinsic(n):
		f.manage(n)
	case n.Get("Statement") != nil:
		f.addPolicy(obj(n.Pos, "PolicyName", name, "PolicyDocument", n))
	case n.Kind == cfn.Map && len(n.Entries) == 1:
		if doc := f.fromTemplate(n.Entries[0]); doc != nil {
			f.addPolicy(obj(n.Pos, "PolicyName", name, "PolicyDocument", doc))
		}
	default:
		f.c.l.Errorf(n.Pos, "bad-value", "", "a policy of %q is none of a name, an ARN, a document with Statement, and a policy template", f.id)
	}
}

// policyIf is a policy under a condition: of the two sides, those that name managed policies and those that are documents go to
// different places of the role.
func (f *function) policyIf(name string, n *cfn.Node) {
	a := items(n.Get("Fn::If"))
	if len(a) != 3 {
		f.c.l.Errorf(n.Pos, "bad-argument", "", "Fn::If wants a list of 3 arguments")
		return
	}
	none := ref(n.Pos, "AWS::NoValue")
	managed, inline := []*cfn.Node{a[0], none, none}, []*cfn.Node{a[0], none, none}
	for i := 1; i < 3; i++ {
		s, isText := a[i].Text()
		switch {
		case isNoValue(a[i]):
		case isText:
			managed[i] = managedARN(a[i].Pos, s)
		case isIntrinsic(a[i]):
			managed[i] = a[i]
		case a[i].Get("Statement") != nil:
			inline[i] = obj(a[i].Pos, "PolicyName", name, "PolicyDocument", a[i])
		case a[i].Kind == cfn.Map && len(a[i].Entries) == 1:
			if doc := f.fromTemplate(a[i].Entries[0]); doc != nil {
				inline[i] = obj(a[i].Pos, "PolicyName", name, "PolicyDocument", doc)
			}
		}
	}
	if !isNoValue(managed[1]) || !isNoValue(managed[2]) {
		f.manage(obj(n.Pos, "Fn::If", managed))
	}
	if !isNoValue(inline[1]) || !isNoValue(inline[2]) {
		f.addPolicy(obj(n.Pos, "Fn::If", inline))
	}
}

// fromTemplate is the document of a policy template with its parameters filled in.
func (f *function) fromTemplate(e cfn.Entry) *cfn.Node {
	t, ok := policyTemplates()[e.Key]
	if !ok {
		var names []string
		for n := range policyTemplates() {
			names = append(names, n)
		}
		f.c.l.Errorf(e.Pos, "unknown-policy", near(e.Key, names, ""), "there is no policy template %q", e.Key)
		return nil
	}
	for _, name := range t.Parameters {
		if e.Value.Get(name).IsNull() {
			f.c.l.Errorf(e.Pos, "missing-key", "Add "+name+".", "the policy template %s has no %s", e.Key, name)
			return nil
		}
	}
	var list []*cfn.Node
	for _, st := range t.Statement {
		list = append(list, fill(cfn.From(e.Pos, st), e.Value))
	}
	return obj(e.Pos, "Statement", list)
}

// fill replaces the references to parameters.
func fill(n, values *cfn.Node) *cfn.Node {
	switch n.Kind {
	case cfn.List:
		out := cfn.NewList(n.Pos)
		for _, it := range n.Items {
			out.Items = append(out.Items, fill(it, values))
		}
		return out
	case cfn.Map:
		if name, ok := n.Get("Ref").Text(); ok && len(n.Entries) == 1 {
			if v := values.Get(name); v != nil {
				return v
			}
		}
		out := cfn.NewMap(n.Pos)
		for _, e := range n.Entries {
			out.Entries = append(out.Entries, cfn.Entry{Key: e.Key, Pos: e.Pos, Value: fill(e.Value, values)})
		}
		return out
	}
	return n
}

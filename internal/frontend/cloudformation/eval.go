package cloudformation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
)

// Bounds of evaluation: a few lines of Fn::Sub can ask for more text than any machine holds.
const (
	maxSteps = 4_000_000
	maxBytes = 16 << 20
	maxChain = 32 // a Ref that needs another resource's property, and so on
)

// evaluator gives Nodes without intrinsics. What only a deploy knows becomes a Scalar whose Value
// is an app.Value; an intrinsic over a list that is not known yet stays as it is, with its
// arguments evaluated. A nil Node is AWS::NoValue.
type evaluator struct {
	in     Input
	diags  diag.List
	root   *Node
	params map[string]*Node // evaluated parameters
	conds  map[string]condState
	decls  map[string]Entry // declared resources by logical ID
	off    map[string]bool  // resources whose Condition does not hold
	at     string           // logical ID of the resource being evaluated, or empty
	deps   map[string][]dep
	chain  int
	steps  int
	bytes  int
	spent  bool
}

// dep is one reference from a resource to another.
type dep struct {
	to  string
	pos diag.Pos
}

// cost counts work and text; it says false when there was too much of it, once with an error.
func (e *evaluator) cost(pos diag.Pos, bytes int) bool {
	e.steps++
	e.bytes += bytes
	if e.steps <= maxSteps && e.bytes <= maxBytes {
		return true
	}
	if !e.spent {
		e.spent = true
		e.diags.Errorf(pos, "too-large", "Shorten what Fn::Sub and Fn::Join put together.", "the template grows beyond bounds when its intrinsics are evaluated")
	}
	return false
}

// fault is the Value of a Node that could not be evaluated and whose diagnostic is already there.
type fault string

// faulty is an empty text that raises no further complaints.
func faulty(pos diag.Pos) *Node { return &Node{Kind: Scalar, Pos: pos, Value: fault("")} }

func isFaulty(n *Node) bool {
	if n == nil {
		return false
	}
	_, ok := n.Value.(fault)
	return ok
}

// eval returns n without intrinsics, or nil for AWS::NoValue.
func (e *evaluator) eval(n *Node) *Node {
	if n == nil {
		return nil
	}
	if !e.cost(n.Pos, 0) {
		return faulty(n.Pos)
	}
	switch n.Kind {
	case Scalar:
		if s, ok := n.Value.(string); ok && strings.Contains(s, "{{resolve:") {
			return e.value(n.Pos, app.Lit(s))
		}
	case List:
		out := NewList(n.Pos)
		for _, it := range n.Items {
			if v := e.eval(it); v != nil {
				out.Items = append(out.Items, v)
			}
		}
		return out
	case Map:
		if len(n.Entries) == 1 && isIntrinsic(n.Entries[0].Key) {
			return e.call(n.Entries[0], n)
		}
		out := NewMap(n.Pos)
		for _, en := range n.Entries {
			if isIntrinsic(en.Key) && en.Key != "Ref" {
				e.misplaced(en)
				continue
			}
			if v := e.eval(en.Value); v != nil {
				out.Entries = append(out.Entries, Entry{Key: en.Key, Pos: en.Pos, Value: v})
			}
		}
		return out
	}
	return n
}

func isIntrinsic(key string) bool { return key == "Ref" || strings.HasPrefix(key, "Fn::") }

func (e *evaluator) misplaced(en Entry) {
	switch {
	case en.Key == "Fn::Transform":
		e.transform(en.Pos, en.Value)
	case strings.HasPrefix(en.Key, "Fn::ForEach"):
		e.diags.Errorf(en.Pos, "unsupported", "Write the repeated entries out.", "Fn::ForEach is not read")
	default:
		e.diags.Errorf(en.Pos, "misplaced-intrinsic", "An intrinsic function must be the only key where it stands.", "%s stands beside other keys", en.Key)
	}
}

func (e *evaluator) transform(pos diag.Pos, arg *Node) {
	name, _ := arg.Get("Name").Text()
	e.diags.Warnf(pos, "transform", "", "the transform %q runs only in the cloud and is ignored", name)
}

func intrinsics() []string {
	return strings.Fields("Ref Fn::GetAtt Fn::Sub Fn::Join Fn::Split Fn::Select Fn::FindInMap Fn::If Fn::Equals Fn::And Fn::Or Fn::Not " +
		"Fn::ImportValue Fn::Base64 Fn::Cidr Fn::GetAZs Fn::Length Fn::ToJsonString Fn::Transform")
}

// call evaluates one intrinsic.
func (e *evaluator) call(en Entry, n *Node) *Node {
	pos, arg := n.Pos, en.Value
	switch en.Key {
	case "Ref":
		if id, ok := e.literal(arg, "Ref"); ok {
			return e.ref(arg.Place(), id, "Ref")
		}
	case "Fn::GetAtt":
		return e.getAtt(pos, arg)
	case "Fn::Sub":
		return e.sub(pos, arg)
	case "Fn::Join":
		return e.join(pos, arg)
	case "Fn::Split":
		return e.split(pos, arg)
	case "Fn::Select":
		return e.selectOf(pos, arg)
	case "Fn::FindInMap":
		return e.findInMap(pos, arg)
	case "Fn::If":
		return e.ifElse(pos, arg)
	case "Fn::Equals", "Fn::And", "Fn::Or", "Fn::Not":
		return Str(pos, fmt.Sprint(e.holds(n)))
	case "Fn::ImportValue":
		if name, ok := e.literal(arg, "Fn::ImportValue"); ok {
			return e.value(pos, app.Import(name))
		}
	case "Fn::Base64":
		if v, ok := e.text(arg, "Fn::Base64"); ok {
			return e.value(pos, app.Base64(v))
		}
	case "Fn::Cidr":
		return e.cidr(pos, arg)
	case "Fn::GetAZs":
		if region, ok := e.literal(arg, "Fn::GetAZs"); ok {
			if region == "" {
				region = e.in.Region
			}
			return From(pos, []string{region + "a", region + "b", region + "c"})
		}
	case "Fn::Length":
		list := e.eval(arg)
		if list != nil && list.Kind == List {
			return From(pos, len(list.Items))
		}
		if isFaulty(list) {
			return list
		}
		e.badArg(pos, en.Key, "one list that the template itself gives")
	case "Fn::ToJsonString":
		return e.toJSON(pos, arg)
	case "Fn::Transform":
		e.transform(pos, arg)
		return nil
	default:
		if strings.HasPrefix(en.Key, "Fn::ForEach") {
			e.misplaced(en)
			break
		}
		e.diags.Errorf(en.Pos, "unknown-function", nearHint(en.Key, intrinsics()), "there is no intrinsic function %s", en.Key)
	}
	return faulty(pos)
}

// nearHint suggests the nearest of names.
func nearHint(name string, names []string) string {
	if near := diag.Nearest(name, names); near != "" {
		return fmt.Sprintf("Did you mean %q?", near)
	}
	return ""
}

func (e *evaluator) badArg(pos diag.Pos, name, want string) {
	e.diags.Errorf(pos, "bad-argument", "", "%s wants %s", name, want)
}

// value wraps v as a Scalar, with its dynamic references resolved to Secrets.
func (e *evaluator) value(pos diag.Pos, v app.Value) *Node {
	if s, ok := v.Literal(); ok && !strings.Contains(s, "{{resolve:") {
		if !e.cost(pos, len(s)) {
			return faulty(pos)
		}
		return Str(pos, s)
	}
	v = e.dynamic(pos, v)
	s := v.String()
	if !e.cost(pos, len(s)) {
		return faulty(pos)
	}
	if lit, ok := v.Literal(); ok {
		return Str(pos, lit)
	}
	return &Node{Kind: Scalar, Pos: pos, Value: v, Raw: s}
}

// dynamic turns {{resolve:service:name…}} into Secrets. The name may hold parts known only at deploy.
func (e *evaluator) dynamic(pos diag.Pos, v app.Value) app.Value {
	const open, end = "{{resolve:", "}}"
	var out, inside []app.Value
	in := false
	for _, p := range v.Parts() {
		s, ok := p.Literal()
		if !ok {
			if in {
				inside = append(inside, p)
			} else {
				out = append(out, p)
			}
			continue
		}
		for {
			mark := open
			if in {
				mark = end
			}
			before, after, found := strings.Cut(s, mark)
			if in {
				inside = append(inside, app.Lit(before))
			} else {
				out = append(out, app.Lit(before))
			}
			if !found {
				break
			}
			if in {
				out = append(out, e.secret(pos, app.Template(inside...)))
				inside = nil
			}
			in, s = !in, after
		}
	}
	if in { // a piece that Fn::Join or Fn::Sub has yet to complete
		out = append(append(out, app.Lit(open)), inside...)
	}
	return app.Template(out...)
}

func (e *evaluator) secret(pos diag.Pos, name app.Value) app.Value {
	parts := name.Parts()
	head := ""
	if len(parts) > 0 {
		head, _ = parts[0].Literal()
	}
	service, rest, ok := strings.Cut(head, ":")
	switch {
	case ok && (service == "ssm" || service == "secretsmanager"):
		return app.SecretOf(name)
	case ok && service == "ssm-secure":
		return app.SecretOf(app.Template(append([]app.Value{app.Lit("ssm:" + rest)}, parts[1:]...)...))
	}
	e.diags.Errorf(pos, "bad-reference", "Use ssm, ssm-secure or secretsmanager.", "the dynamic reference {{resolve:%s}} names no known service", name)
	return app.Lit("")
}

// asText gives the text of an evaluated Scalar; false for lists, maps and null.
func asText(n *Node) (app.Value, bool) {
	if n == nil || n.Kind != Scalar {
		return app.Value{}, false
	}
	switch v := n.Value.(type) {
	case app.Value:
		return v, true
	case string:
		return app.Lit(v), true
	case bool:
		return app.Lit(fmt.Sprint(v)), true
	}
	return app.Lit(n.Raw), true
}

// asLiteral gives the text of an evaluated Scalar that is known now.
func asLiteral(n *Node) (string, bool) {
	v, ok := asText(n)
	if !ok {
		return "", false
	}
	return v.Literal()
}

// text evaluates an argument that must be one text.
func (e *evaluator) text(arg *Node, fn string) (app.Value, bool) {
	v, ok := asText(e.eval(arg))
	if !ok {
		e.badArg(arg.Place(), fn, "one text")
	}
	return v, ok
}

// literal evaluates an argument whose text must be known now.
func (e *evaluator) literal(arg *Node, fn string) (string, bool) {
	v, ok := e.text(arg, fn)
	if !ok {
		return "", false
	}
	s, ok := v.Literal()
	if !ok {
		e.badArg(arg.Place(), fn, fmt.Sprintf("a text that is known before the deploy, not %s", v))
	}
	return s, ok
}

func pseudo() []string {
	return strings.Fields("AWS::AccountId AWS::NotificationARNs AWS::NoValue AWS::Partition AWS::Region AWS::StackId AWS::StackName AWS::URLSuffix")
}

// ref is the Ref function.
func (e *evaluator) ref(pos diag.Pos, name, how string) *Node {
	switch name {
	case "AWS::NoValue":
		return nil
	case "AWS::AccountId":
		return Str(pos, e.in.Account)
	case "AWS::Region":
		return Str(pos, e.in.Region)
	case "AWS::StackName":
		return Str(pos, e.in.Stack)
	case "AWS::StackId":
		return Str(pos, fmt.Sprintf("arn:aws:cloudformation:%s:%s:stack/%s/0", e.in.Region, e.in.Account, e.in.Stack))
	case "AWS::Partition":
		return Str(pos, "aws")
	case "AWS::URLSuffix":
		return Str(pos, "amazonaws.com")
	case "AWS::NotificationARNs":
		return NewList(pos)
	}
	if p, ok := e.params[name]; ok {
		return e.copied(pos, p)
	}
	if !e.reaches(pos, name, how) {
		return faulty(pos)
	}
	if stage := e.stageName(name); stage != nil {
		return stage
	}
	return e.value(pos, e.attribute(name, "Ref"))
}

// copied is a Node of elsewhere at pos. It costs what it is when spelled out.
func (e *evaluator) copied(pos diag.Pos, n *Node) *Node {
	if !e.cost(pos, size(n)) {
		return faulty(pos)
	}
	c := *n
	c.Pos = pos
	return &c
}

func size(n *Node) int {
	if n == nil {
		return 0
	}
	total := 16 + len(n.Raw)
	for _, it := range n.Items {
		total += size(it)
	}
	for _, en := range n.Entries {
		total += len(en.Key) + size(en.Value)
	}
	return total
}

// reaches records the reference to a resource, or says that there is none.
func (e *evaluator) reaches(pos diag.Pos, id, how string) bool {
	if _, ok := e.decls[id]; !ok {
		names := append(pseudo(), sortedKeys(e.params)...)
		e.diags.Errorf(pos, "unknown-ref", nearHint(id, append(names, sortedKeys(e.decls)...)), "%s names %q, which the template does not declare", how, id)
		return false
	}
	if e.off[id] {
		e.diags.Errorf(pos, "condition-off", "Guard the reference with Fn::If and the same condition.",
			"%s names the resource %q, whose condition does not hold", how, id)
		return false
	}
	if e.at != "" {
		e.deps[e.at] = append(e.deps[e.at], dep{id, pos})
	}
	return true
}

// stageName is the Ref of an API's stage: its name, which the template itself says.
func (e *evaluator) stageName(id string) *Node {
	decl := e.decls[id].Value
	typ, _ := decl.Get("Type").Text()
	if typ != "AWS::ApiGateway::Stage" && typ != "AWS::ApiGatewayV2::Stage" {
		return nil
	}
	if e.chain >= maxChain {
		return nil // a cycle, which the dependencies will show
	}
	e.chain++
	defer func() { e.chain-- }()
	n := e.peek(decl.At("Properties", "StageName"))
	if v, ok := asText(n); ok && !v.IsZero() {
		return n
	}
	return nil
}

// peek evaluates a property of another resource, whose faults are said when its own turn comes.
func (e *evaluator) peek(n *Node) *Node {
	before, spent := len(e.diags), e.spent
	n = e.eval(n)
	if e.spent == spent {
		e.diags = e.diags[:before]
	}
	return n
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (e *evaluator) getAtt(pos diag.Pos, arg *Node) *Node {
	var id, attr string
	switch {
	case arg != nil && arg.Kind == Scalar:
		s, _ := arg.Text()
		id, attr, _ = strings.Cut(s, ".")
	case arg != nil && arg.Kind == List && len(arg.Items) >= 2:
		var parts []string
		for _, it := range arg.Items {
			s, ok := e.literal(it, "Fn::GetAtt")
			if !ok {
				return faulty(pos)
			}
			parts = append(parts, s)
		}
		id, attr = parts[0], strings.Join(parts[1:], ".")
	}
	if id == "" || attr == "" {
		e.badArg(pos, "Fn::GetAtt", "a logical ID and an attribute")
		return faulty(pos)
	}
	if !e.reaches(pos, id, "Fn::GetAtt") {
		return faulty(pos)
	}
	return e.value(pos, e.attribute(id, attr))
}

// attribute is an attribute of a resource. A function URL is no thing of its own in an App: its address is an
// attribute of the Function, and its Ref is the Function's ARN.
func (e *evaluator) attribute(id, attr string) app.Value {
	decl := e.decls[id].Value
	if typ, _ := decl.Get("Type").Text(); typ != "AWS::Lambda::Url" {
		return app.Attr(id, attr)
	}
	fn := e.functionBehind(decl.At("Properties", "TargetFunctionArn"))
	switch {
	case fn == "":
	case attr == "Ref" || attr == "FunctionArn":
		return app.Attr(fn, "Arn")
	case attr == "FunctionUrl":
		return app.Attr(fn, attr)
	}
	return app.Attr(id, attr)
}

// functionBehind is the logical ID of the function that a property names, itself or by an alias; empty if there is none.
func (e *evaluator) functionBehind(n *Node) string {
	if n == nil || e.chain >= maxChain {
		return ""
	}
	e.chain++
	defer func() { e.chain-- }()
	v, _ := asText(e.peek(n))
	for _, id := range v.Refs() {
		decl := e.decls[id].Value
		switch typ, _ := decl.Get("Type").Text(); typ {
		case "AWS::Lambda::Function":
			return id
		case "AWS::Lambda::Alias", "AWS::Lambda::Version":
			return e.functionBehind(decl.At("Properties", "FunctionName"))
		}
	}
	return ""
}

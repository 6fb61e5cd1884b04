package serverless

import (
	"strings"

	cfn "github.com/ebb-run/ebb/internal/frontend/cloudformation"

	"github.com/ebb-run/ebb/internal/diag"
)

// customRole is the existing role that the provider names for all functions, or nil.
func (c *compiler) customRole() *cfn.Node {
	r := c.provider.At("iam", "role")
	if _, ok := r.Text(); ok && !isPoison(r) {
		return r
	}
	if r != nil && r.Kind == cfn.Map {
		for _, e := range r.Entries {
			if strings.Contains(e.Key, "::") || e.Key == "Ref" {
				return r
			}
		}
	}
	return or(c.provider.Get("role"))
}

// ownRole is the logical ID of the role that serverless-iam-roles-per-function gives fn, or "".
func (c *compiler) ownRole(fn *function) string {
	if c.plugins["serverless-iam-roles-per-function"] && fn.n.Get("iamRoleStatements") != nil {
		return normal(fn.key) + "IamRoleLambdaExecution"
	}
	return ""
}

// functionRole gives a function's Role property and what it depends on for it.
func (c *compiler) functionRole(fn *function) (role *cfn.Node, deps []*cfn.Node) {
	if own := c.ownRole(fn); own != "" {
		return getAtt(fn.pos, own, "Arn"), []*cfn.Node{cfn.Str(fn.pos, own)}
	}
	r := or(fn.n.Get("role"), c.customRole())
	if r == nil {
		return getAtt(fn.pos, roleID, "Arn"), nil
	}
	if s, ok := r.Text(); ok {
		switch {
		case strings.HasPrefix(s, "arn:"), isPoison(r), strings.HasPrefix(s, "{{resolve:"):
			return r, nil
		case s == roleID:
			return getAtt(r.Pos, s, "Arn"), nil
		}
		return getAtt(r.Pos, s, "Arn"), []*cfn.Node{r}
	}
	if at := r.Get("Fn::GetAtt"); at != nil && len(at.Items) > 0 {
		return r, []*cfn.Node{at.Items[0]}
	}
	return r, nil
}

func assumeRole(more ...string) map[string]any {
	services := []any{"lambda.amazonaws.com"}
	for _, s := range more {
		services = append(services, s)
	}
	return map[string]any{
		"Version": "2012-10-17",
		"Statement": []any{map[string]any{
			"Effect":    "Allow",
			"Principal": map[string]any{"Service": services},
			"Action":    []any{"sts:AssumeRole"},
		}},
	}
}

const logArn = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:log-group:/aws/lambda/"

// role fills in the common role, and makes the roles of functions that have their own.
func (c *compiler) role() {
	for _, fn := range c.fns {
		if id := c.ownRole(fn); id != "" {
			c.perFunctionRole(fn, id)
		}
	}
	if c.roleless {
		return
	}
	pos := c.provider.Place()
	prefix := c.service + "-" + c.stage
	var create, write, denied []*cfn.Node
	common := false
	for _, fn := range c.fns {
		logs := !isTrue(fn.n.Get("disableLogs"))
		switch {
		case strings.HasPrefix(fn.name, prefix) && logs:
			common = true
		case strings.HasPrefix(fn.name, prefix):
			denied = append(denied, obj(fn.pos, "Fn::Sub", logArn+fn.name+":*"))
		case logs:
			create = append(create, obj(fn.pos, "Fn::Sub", logArn+fn.name+":*"))
			write = append(write, obj(fn.pos, "Fn::Sub", logArn+fn.name+":*:*"))
		}
	}
	if common {
		create = append(create, obj(pos, "Fn::Sub", logArn+prefix+"*:*"))
		write = append(write, obj(pos, "Fn::Sub", logArn+prefix+"*:*:*"))
	}
	statements := []*cfn.Node{
		obj(pos, "Effect", "Allow", "Action", []string{"logs:CreateLogStream", "logs:CreateLogGroup", "logs:TagResource"}, "Resource", cfn.NewList(pos, create...)),
		obj(pos, "Effect", "Allow", "Action", []string{"logs:PutLogEvents"}, "Resource", cfn.NewList(pos, write...)),
	}
	if common && denied != nil {
		statements = append(statements, obj(pos, "Effect", "Deny", "Action", "logs:PutLogEvents", "Resource", denied))
	}
	statements = append(statements, c.roleStatements()...)
	statements = append(statements, c.statements...)
	iam := c.provider.At("iam", "role")
	managed := list(or(iam.Get("managedPolicies"), c.provider.Get("iamManagedPolicies")))
	if c.usesVPC() {
		managed = append(managed[:len(managed):len(managed)], vpcPolicy(pos))
	}
	name := or(iam.Get("name"))
	if name == nil {
		name = join(pos, "-", c.service, c.stage, ref(pos, "AWS::Region"), "lambdaRole")
	}
	c.put(roleID, pos, "AWS::IAM::Role", obj(pos,
		"AssumeRolePolicyDocument", assumeRole(c.assumers...),
		"Policies", []*cfn.Node{c.policy(pos, statements)},
		"Path", orText(pos, "/", iam.Get("path")),
		"RoleName", name,
		"Tags", c.tags(pos, iam.Get("tags")),
		"PermissionsBoundary", or(iam.Get("permissionsBoundary"), iam.Get("permissionBoundary"), c.provider.Get("rolePermissionsBoundary")),
		"ManagedPolicyArns", managed))
}

func (c *compiler) policy(pos diag.Pos, statements []*cfn.Node) *cfn.Node {
	return obj(pos,
		"PolicyName", join(pos, "-", c.service, c.stage, "lambda"),
		"PolicyDocument", obj(pos, "Version", "2012-10-17", "Statement", statements))
}

// roleStatements are the project's own statements, by the new key or the old one.
func (c *compiler) roleStatements() []*cfn.Node {
	n := c.provider.At("iam", "role", "statements")
	if n.IsNull() {
		n = c.provider.Get("iamRoleStatements")
	}
	return c.statementList(n)
}

func (c *compiler) statementList(n *cfn.Node) []*cfn.Node {
	if n.IsNull() || isPoison(n) {
		return nil
	}
	if n.Kind != cfn.List {
		c.l.Errorf(n.Pos, "wrong-type", "Begin each statement with a dash.", "role statements must be a list, not %s", kindName(n))
		return nil
	}
	out := flatten(n.Items)
	for _, s := range out {
		if s.Kind == cfn.Map && !isIntrinsic(s) {
			c.keys(s, "in a role statement", words("Sid Effect Action NotAction Resource NotResource Condition Principal NotPrincipal"))
			if s.Get("Effect") == nil {
				c.l.Errorf(s.Pos, "missing-key", "Add `Effect: Allow`.", "a role statement has no Effect")
			}
		}
	}
	return out
}

func (c *compiler) usesVPC() bool {
	if c.provider.Get("vpc") != nil {
		return true
	}
	for _, fn := range c.fns {
		if fn.n.Get("vpc") != nil {
			return true
		}
	}
	return false
}

func vpcPolicy(pos diag.Pos) *cfn.Node {
	return join(pos, "", "arn:", ref(pos, "AWS::Partition"), ":iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole")
}

// perFunctionRole is the role that serverless-iam-roles-per-function makes.
func (c *compiler) perFunctionRole(fn *function, id string) {
	pos := fn.pos
	statements := []*cfn.Node{
		obj(pos, "Effect", "Allow", "Action", []string{"logs:CreateLogStream", "logs:CreateLogGroup", "logs:PutLogEvents"},
			"Resource", []*cfn.Node{obj(pos, "Fn::Sub", logArn+fn.name+":*:*")}),
	}
	inherit := isTrue(fn.n.Get("iamRoleStatementsInherit")) || isTrue(c.provider.Get("iamRoleStatementsInherit")) ||
		isTrue(c.doc.At("custom", "serverless-iam-roles-per-function", "defaultInherit"))
	if inherit && !isFalse(fn.n.Get("iamRoleStatementsInherit")) {
		statements = append(statements, c.roleStatements()...)
	}
	statements = append(statements, c.statementList(fn.n.Get("iamRoleStatements"))...)
	var managed []*cfn.Node
	if c.usesVPC() {
		managed = append(managed, vpcPolicy(pos))
	}
	c.put(id, pos, "AWS::IAM::Role", obj(pos,
		"AssumeRolePolicyDocument", assumeRole(),
		"Policies", []*cfn.Node{c.policy(pos, statements)},
		"Path", "/",
		"RoleName", or(fn.n.Get("iamRoleStatementsName")),
		"PermissionsBoundary", or(fn.n.Get("iamPermissionsBoundary")),
		"ManagedPolicyArns", managed))
}

package lambda

import (
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names the function, as AWS's "Actions, resources, and condition keys for AWS Lambda" has it.
func subjects(c *wire.Call, in any) []wire.Subject {
	action := c.Operation
	switch action {
	case "Invoke", "InvokeWithResponseStream":
		action = "InvokeFunction"
	}
	name := wire.Member(in, "FunctionName")
	if name == "" {
		name = c.Labels["FunctionName"]
	}
	if name == "" {
		return []wire.Subject{{Action: "lambda:" + action, Resource: "*"}}
	}
	if _, rest, ok := strings.Cut(name, "function:"); ok {
		name = rest
	}
	name, qualifier, _ := strings.Cut(name, ":")
	if q := wire.Member(in, "Qualifier"); q != "" {
		qualifier = q
	}
	s := wire.Subject{Action: "lambda:" + action, Resource: c.ARN("lambda", "function:"+name)}
	if qualifier != "" {
		s.Resource += ":" + qualifier
	}
	return []wire.Subject{s}
}

package ssm

import (
	"reflect"
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names the parameters, as AWS's "Actions, resources, and condition keys for AWS Systems Manager" has them.
func subjects(c *wire.Call, in any) []wire.Subject {
	names := []string{wire.Member(in, "Name", "Path", "ResourceId")}
	if f := reflect.Indirect(reflect.ValueOf(in)).FieldByName("Names"); f.IsValid() {
		if list, ok := f.Interface().([]string); ok {
			names = list
		}
	}
	var out []wire.Subject
	for _, n := range names {
		s := wire.Subject{Action: "ssm:" + c.Operation, Resource: "*"}
		if n != "" {
			s.Resource = c.ARN("ssm", "parameter/"+strings.TrimPrefix(wire.NameIn(n, ":parameter"), "/"))
		}
		out = append(out, s)
	}
	return out
}

package secrets

import (
	"strings"

	"github.com/ebb-run/ebb/internal/wire"
)

// subjects names the secret, as AWS's "Actions, resources, and condition keys for AWS Secrets Manager" has it. A request may leave out the six
// characters that end its ARN, and a policy has some wildcard in their place or, for what a project declares, nothing.
func subjects(c *wire.Call, in any) []wire.Subject {
	s := wire.Subject{Action: "secretsmanager:" + c.Operation, Resource: "*"}
	switch id := wire.Member(in, "SecretId", "Name"); {
	case strings.HasPrefix(id, "arn:"):
		s.Resource = id
		if i := strings.LastIndexByte(id, '-'); i == len(id)-7 {
			s.Also = id[:i]
		}
	case id != "":
		s.Resource = c.ARN("secretsmanager", "secret:"+id)
		s.Also = s.Resource + "-??????"
	}
	return []wire.Subject{s}
}

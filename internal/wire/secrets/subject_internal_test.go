package secrets

import (
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestSubjects_NameSecrets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		operation string
		in        any
		want      string
	}{
		{"GetSecretValue", &struct{ SecretId string }{"db"}, "secretsmanager:GetSecretValue secret:db"},
		{"ListSecrets", &struct{}{}, "secretsmanager:ListSecrets *"},
	} {
		var got []string
		for _, s := range subjects(&wire.Call{Operation: c.operation, Region: "us-east-1", Caller: wire.Caller{Account: "1"}}, c.in) {
			got = append(got, s.Action+" "+strings.TrimPrefix(s.Resource, "arn:aws:secretsmanager:us-east-1:1:"))
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: got %s", c.operation, text)
		}
	}
}

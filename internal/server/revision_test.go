package server_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
)

func TestDeploy_AVariablesNewValueIsANewRevision(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	for _, step := range []struct {
		name, table, region string
		changed             bool
		want                string
	}{
		{"first", "users-a", "us-east-1", true, "users-a us-east-1"},
		{"the same", "users-a", "us-east-1", false, "users-a us-east-1"},
		{"another table", "users-b", "us-east-1", true, "users-b us-east-1"},
		{"another region", "users-b", "eu-west-1", true, "users-b eu-west-1"},
	} {
		a, tree := shop("shop", "dev", "exports.hello = async () => process.env.TABLE + ' ' + process.env.AWS_REGION;")
		a.Region = step.region
		a.Functions[0].Env["TABLE"] = app.Attr("Users", "Ref")
		a.Resources = []app.Resource{{ID: "Users", Kind: app.Table, Type: "AWS::DynamoDB::Table", Name: app.Lit(step.table)}}
		d, err := n.deploy(t, a, tree)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(d.Changed, "hello"); got != step.changed {
			t.Errorf("%s: changed %v", step.name, d.Changed)
		}
		n.answers(t, step.want)
	}
}

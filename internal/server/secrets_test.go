package server_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
)

func TestSecrets_AreSealedAndSurviveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := open(t, dir)
	c := n.aws(t)
	if status, text := c.json(t, "ssm", "AmazonSSM.PutParameter", `{"Name":"/shop/key","Value":"very-plain-text","Type":"SecureString"}`, nil); status != 200 {
		t.Fatal(text)
	}
	if status, text := c.json(t, "secretsmanager", "secretsmanager.CreateSecret", `{"Name":"shop/db","SecretString":"{\"pw\":\"very-plain-text\"}"}`, nil); status != 200 {
		t.Fatal(text)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("very-plain-text")) {
			t.Errorf("%s holds the secret as it is", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c = open(t, dir).aws(t)
	var p struct{ Parameter struct{ Value string } }
	if status, text := c.json(t, "ssm", "AmazonSSM.GetParameter", `{"Name":"/shop/key","WithDecryption":true}`, &p); p.Parameter.Value != "very-plain-text" {
		t.Error(status, text)
	}
	var s struct{ SecretString string }
	if status, text := c.json(t, "secretsmanager", "secretsmanager.GetSecretValue", `{"SecretId":"shop/db"}`, &s); s.SecretString != `{"pw":"very-plain-text"}` {
		t.Error(status, text)
	}
}

func TestSecrets_ReachVariablesOfFunctions(t *testing.T) {
	t.Parallel()
	n := open(t, t.TempDir())
	c := n.aws(t)
	c.json(t, "ssm", "AmazonSSM.PutParameter", `{"Name":"/shop/key","Value":"k1","Type":"SecureString"}`, nil)
	c.json(t, "secretsmanager", "secretsmanager.CreateSecret", `{"Name":"shop/db","SecretString":"{\"pw\":\"p1\",\"port\":5432}"}`, nil)
	a, tree := shop("shop", "dev", `exports.hello = async () => [process.env.KEY, process.env.PW, process.env.PORT, process.env.OWN, process.env.MADE, process.env.NONE].join();`)
	a.Resources = []app.Resource{
		{ID: "Own", Kind: app.Foreign, Type: "AWS::SSM::Parameter", Properties: map[string]any{"Name": "/own/p", "Type": "String", "Value": "o1"}},
		{ID: "Made", Kind: app.Secret, Type: "AWS::SecretsManager::Secret", Properties: map[string]any{
			"GenerateSecretString": map[string]any{"SecretStringTemplate": `{"user":"ann"}`, "GenerateStringKey": "pw", "PasswordLength": 12, "ExcludePunctuation": "true"},
		}},
	}
	a.Functions[0].Env = map[string]app.Value{
		"KEY": app.SecretRef("ssm:/shop/key"), "PW": app.SecretRef("secretsmanager:shop/db:SecretString:pw"), "PORT": app.SecretRef("secretsmanager:shop/db:SecretString:port"),
		"OWN":  app.SecretRef("ssm:/own/p:1"),
		"MADE": app.SecretOf(app.Template(app.Lit("secretsmanager:"), app.Attr("Made", "Ref"), app.Lit(":SecretString:user"))), "NONE": app.SecretRef("ssm:/nobody"),
	}
	d, err := n.deploy(t, a, tree)
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(d.Warnings, "\n"); !strings.Contains(all, "variable NONE of hello is left unset: there is no parameter /nobody") || strings.Contains(all, "KEY") {
		t.Error(all)
	}
	invoke := func() string {
		resp, body := c.do(t, "lambda", "POST", "/2015-03-31/functions/hello/invocations", nil, "")
		if resp.StatusCode != 200 {
			t.Fatal(resp.Status, body)
		}
		return body
	}
	if got := invoke(); got != `"k1,p1,5432,o1,ann,"` {
		t.Error(got)
	}
	if _, body := c.do(t, "lambda", "GET", "/2015-03-31/functions/hello/configuration", nil, ""); strings.Contains(body, "k1") || !strings.Contains(body, "{{resolve:ssm:/shop/key}}") {
		t.Error("who may see the function sees the secret: ", body)
	}
	var made struct{ SecretString string }
	c.json(t, "secretsmanager", "secretsmanager.GetSecretValue", `{"SecretId":"shop-dev-Made"}`, &made)
	if len(made.SecretString) != len(`{"pw":"123456789012","user":"ann"}`) {
		t.Error(made.SecretString)
	}
	// What was changed stays until its declaration changes.
	c.json(t, "ssm", "AmazonSSM.PutParameter", `{"Name":"/own/p","Value":"o2","Overwrite":true}`, nil)
	for _, w := range []struct{ declared, want string }{{"o1", "o2"}, {"o3", "o3"}} {
		a.Resources[0].Properties["Value"] = w.declared
		if _, err := n.deploy(t, a, tree); err != nil {
			t.Fatal(err)
		}
		var p struct{ Parameter struct{ Value string } }
		c.json(t, "ssm", "AmazonSSM.GetParameter", `{"Name":"/own/p"}`, &p)
		if p.Parameter.Value != w.want {
			t.Errorf("declared as %s it is %s, want %s", w.declared, p.Parameter.Value, w.want)
		}
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	if status, text := c.json(t, "ssm", "AmazonSSM.GetParameter", `{"Name":"/own/p"}`, nil); status != 400 || !strings.Contains(text, "ParameterNotFound") {
		t.Error("the declared parameter outlives its stack: ", text)
	}
	if status, text := c.json(t, "ssm", "AmazonSSM.GetParameter", `{"Name":"/shop/key"}`, nil); status != 200 {
		t.Error("what an operator made went with a stack: ", text)
	}
}

func TestSecrets_TwoWritersMakeAVersionEach(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir()).aws(t)
	c.json(t, "ssm", "AmazonSSM.PutParameter", `{"Name":"n","Value":"0","Type":"String"}`, nil)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 5 {
				if status, text := c.json(t, "ssm", "AmazonSSM.PutParameter", fmt.Sprintf(`{"Name":"n","Value":"%d-%d","Overwrite":true}`, w, i), nil); status != 200 {
					t.Error(text)
				}
			}
		})
	}
	wg.Wait()
	var p struct {
		Parameters []struct {
			Version int
			Value   string
		}
	}
	c.json(t, "ssm", "AmazonSSM.GetParameterHistory", `{"Name":"n"}`, &p)
	seen := map[string]bool{}
	for i, v := range p.Parameters {
		if seen[v.Value] = true; v.Version != i+1 {
			t.Errorf("version %d stands at %d", v.Version, i)
		}
	}
	if len(seen) != 21 {
		t.Errorf("%d values were kept of 21", len(seen))
	}
}

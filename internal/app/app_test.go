package app_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
)

func TestApp_JSONRoundTrips(t *testing.T) {
	t.Parallel()
	reserved := 0
	arn := app.Template(app.Lit("arn:"), app.Lit("aws:"), app.Attr("Table", "Arn"), app.Lit("/*"))
	a := &app.App{
		Name: "shop", Stage: "dev", Source: "serverless.yml",
		Functions: []app.Function{{
			Key: "get", Name: "shop-dev-get", Runtime: "nodejs22.x", Handler: "h.get", MemoryMB: 128, TimeoutSec: 3,
			Env: map[string]app.Value{"T": app.Attr("Table", "Ref"), "A": arn, "S": app.SecretRef("ssm:/x"), "E": app.Lit(""),
				"P": app.Pick(arn, "/", 1), "B": app.Template(app.Lit("x"), app.Base64(app.SecretOf(app.Attr("Sec", "Ref"))))},
			Reserved: &reserved, Extra: map[string]any{"VpcConfig": map[string]any{"SubnetIds": []any{app.Replace(arn, ",", ";")}}},
		}},
		APIs:      []app.API{{ID: "Api", Kind: app.HTTP, Stage: "$default"}},
		Routes:    []app.Route{{API: "Api", Method: "GET", Path: "/x", Function: "get"}},
		Triggers:  []app.Trigger{{Function: "get", Kind: "sqs", Source: app.Import("q"), Settings: map[string]any{"arn": arn, "n": []any{"x", app.Attr("Q", "Arn")}}}},
		Resources: []app.Resource{{ID: "Table", Kind: app.Table, Properties: map[string]any{"N": map[string]any{"V": arn}}}},
		Roles:     []app.Role{{ID: "R", Statements: []map[string]any{{"Resource": []any{arn}}}, Trust: []map[string]any{{"Principal": arn}}, ARN: arn}},
	}
	if v := a.Validate(); len(v) > 0 {
		t.Fatalf("Validate: %v", v)
	}
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	back, err := app.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, back) {
		again, _ := json.Marshal(back)
		t.Errorf("round trip differs:\n%s\n%s", data, again)
	}
	if _, err := app.Decode([]byte(`{"name":"x","surprise":1}`)); err == nil {
		t.Error("an unknown field is accepted")
	}
}

func TestValue_ResolvesAndFolds(t *testing.T) {
	t.Parallel()
	r := app.Resolver{
		Attr: func(id, attr string) (string, error) {
			if id == "T" {
				return "<" + attr + ">", nil
			}
			return "", errors.New("no " + id)
		},
	}
	v := app.Template(app.Lit("a"), app.Lit("b"), app.Template(app.Lit("c"), app.Attr("T", "Arn")), app.Value{}, app.Lit("z"))
	if got, err := v.Resolve(r); err != nil || got != "abc<Arn>z" {
		t.Errorf("Resolve = %q, %v", got, err)
	}
	for name, row := range map[string]struct {
		v    app.Value
		want string
	}{
		"pick":    {app.Pick(v, "b", 1), "c<Arn>z"},
		"replace": {app.Replace(v, "a", "-"), "-bc<Arn>z"},
		"base64":  {app.Base64(app.Template(app.Attr("T", "x"))), "PHg+"},
		"folded":  {app.Pick(app.Lit("a/b"), "/", 1), "b"},
	} {
		if got, err := row.v.Resolve(r); err != nil || got != row.want {
			t.Errorf("%s: Resolve = %q, %v, want %q", name, got, err, row.want)
		}
	}
	if _, err := app.Pick(v, "b", 9).Resolve(r); err == nil {
		t.Error("a part that is not there resolves")
	}
	if got := v.String(); got != "abc${T.Arn}z" {
		t.Errorf("String = %q", got)
	}
	if got, ok := app.Template(app.Lit("a"), app.Lit("b")).Literal(); !ok || got != "ab" {
		t.Errorf("folded literal = %q, %v", got, ok)
	}
	if _, err := app.Template(app.Lit("a"), app.Attr("Nope", "Ref")).Resolve(r); err == nil {
		t.Error("an unknown reference resolves")
	}
}

func TestValidate_NamesEveryBrokenRule(t *testing.T) {
	t.Parallel()
	a := &app.App{
		Name: "9bad", Stage: "a b",
		Functions: []app.Function{
			{Key: "f", Name: "x", MemoryMB: 128, TimeoutSec: 3},
			{Key: "f", Name: "bad name", MemoryMB: 0, TimeoutSec: 0},
		},
		APIs:     []app.API{{ID: "A"}, {ID: "A"}},
		Routes:   []app.Route{{API: "B", Method: "get", Path: "/", Function: "nope"}, {API: "A", Method: "GET", Path: "/"}},
		Triggers: []app.Trigger{{Function: "nope", Kind: "sqs"}},
	}
	all := strings.Join(a.Validate(), "\n")
	for _, want := range []string{"app name", "stage", "share the name", `"bad name"`, "memory 0", "timeout 0", "two APIs", `no API "B"`,
		`no function "nope"`, "upper case", "leads nowhere", "trigger sqs"} {
		if !strings.Contains(all, want) {
			t.Errorf("no complaint about %s in:\n%s", want, all)
		}
	}
}

package server

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/wire"
)

func TestAuthorize_AsksTheFunctionsRole(t *testing.T) {
	t.Parallel()
	s := &Server{}
	a := &app.App{
		Name: "shop", Stage: "dev",
		Functions: []app.Function{{ID: "F", Key: "f", Name: "shop-dev-f", Role: "R"}, {ID: "G", Key: "g", Name: "shop-dev-g", Role: "Elsewhere"}, {ID: "H", Key: "h", Name: "shop-dev-h"}},
		Resources: []app.Resource{{ID: "Jobs", Type: "AWS::SQS::Queue", Name: app.Lit("jobs")}},
		Roles: []app.Role{
			{ID: "R", Managed: []app.Value{app.Lit("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")}, Statements: []map[string]any{
				{"Effect": "Allow", "Action": []any{"sqs:SendMessage"}, "Resource": []any{map[string]any{"$attr": "Jobs.Arn"}}},
				{"Effect": "Deny", "Action": "sqs:PurgeQueue", "Resource": "*"},
			}},
			{ID: "Elsewhere", ARN: app.Lit("arn:aws:iam::1:role/x")},
		},
	}
	key := state.StackKey{Tenant: tenant, App: "shop", Stage: "dev"}
	s.stacks.set(key, &serving{roles: resolver{app: a, account: "000000000000"}.roles()})
	w := &wires{s: s}
	later := time.Now().Add(time.Hour)
	s.whose.mu.known = map[thing]owned{{"sqs", "jobs"}: {by: stackID(key), at: later}, {"sqs", "other"}: {at: later}, {"s3", "b"}: {at: later}}
	ask := func(mode, function, action, resource string) string {
		s.o.Config = &config.Config{IAM: mode}
		c := &wire.Call{Service: &wire.Service{Name: "sqs"}, Request: httptest.NewRequest("POST", "/", nil),
			Caller: wire.Caller{Tenant: tenant, App: "shop", Stage: "dev", Function: function, ARN: "arn:aws:sts::1:assumed-role/r/f"}}
		if err := w.authorize(t.Context(), c, []wire.Subject{{Action: action, Resource: resource}}); err != nil {
			return err.Error()
		}
		return ""
	}
	for _, c := range []struct{ mode, function, action, resource, want string }{
		{config.IAMEnforce, "shop-dev-f", "sqs:SendMessage", "arn:aws:sqs:eu-west-1:999999999999:jobs", ""},
		{config.IAMEnforce, "shop-dev-f", "s3:GetObject", "arn:aws:s3:::b/k", ""},
		{config.IAMEnforce, "shop-dev-f", "s3:PutObject", "arn:aws:s3:::b/k", "User: arn:aws:sts::1:assumed-role/r/f is not authorized to perform: s3:PutObject on resource: arn:aws:s3:::b/k because no identity-based policy allows the s3:PutObject action"},
		{config.IAMEnforce, "shop-dev-f", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:other", "because no identity-based policy allows the sqs:SendMessage action"},
		{config.IAMEnforce, "shop-dev-f", "sqs:ListQueues", "*", "perform: sqs:ListQueues because"},
		{config.IAMOff, "shop-dev-f", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:other", ""},
		{config.IAMOff, "shop-dev-f", "sqs:PurgeQueue", "arn:aws:sqs:us-east-1:1:jobs", "with an explicit deny in an identity-based policy"},
		{config.IAMWarn, "shop-dev-f", "sqs:PurgeQueue", "arn:aws:sqs:us-east-1:1:jobs", "with an explicit deny"},
		{config.IAMEnforce, "shop-dev-g", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:jobs", "it exists outside of the app"},
		{config.IAMWarn, "shop-dev-g", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:jobs", ""},
		{config.IAMEnforce, "shop-dev-h", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:jobs", ""}, // the format knows no roles
		{config.IAMEnforce, "", "sqs:SendMessage", "arn:aws:sqs:us-east-1:1:jobs", ""},           // a key
	} {
		if got := ask(c.mode, c.function, c.action, c.resource); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestReadRole_SaysWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	values := app.Resolver{Attr: func(id, attr string) (string, error) {
		return "", errs.New(errs.NotFound, "%s.%s is not known", id, attr)
	}}
	r := readRole(&app.Role{ID: "R", Managed: []app.Value{app.Lit("arn:aws:iam::1:policy/own")}, Statements: []map[string]any{
		{"Effect": "Allow", "Action": "s3:*", "Resource": app.Attr("Bucket", "Arn")}, {"Effect": "Maybe"},
	}}, values)
	for _, want := range []string{"arn:aws:iam::1:policy/own", "statement 1: Bucket.Arn is not known", `statement 2: statement 1 of the policy: Effect is "Maybe"`} {
		if !strings.Contains(r.unknown, want) {
			t.Errorf("got %s", r.unknown)
		}
	}
}

func BenchmarkAuthorize(b *testing.B) {
	s := &Server{}
	s.o.Config = &config.Config{IAM: config.IAMWarn}
	a := &app.App{Name: "shop", Stage: "dev", Functions: []app.Function{{ID: "F", Key: "f", Name: "shop-dev-f", Role: "R"}},
		Roles: []app.Role{{ID: "R", Statements: []map[string]any{{"Effect": "Allow", "Action": []any{"dynamodb:PutItem"}, "Resource": "arn:aws:dynamodb:*:*:table/orders"}}}}}
	key := state.StackKey{Tenant: tenant, App: "shop", Stage: "dev"}
	s.stacks.set(key, &serving{roles: resolver{app: a, account: "000000000000"}.roles()})
	s.whose.mu.known = map[thing]owned{{"dynamodb", "table/orders"}: {by: stackID(key), at: time.Now().Add(time.Hour)}}
	w := &wires{s: s}
	c := &wire.Call{Service: &wire.Service{Name: "dynamodb"}, Request: httptest.NewRequest("POST", "/", nil), Now: time.Now(),
		Caller: wire.Caller{Tenant: tenant, App: "shop", Stage: "dev", Function: "shop-dev-f", ARN: "arn:aws:sts::1:assumed-role/r/f"}}
	about := []wire.Subject{{Action: "dynamodb:PutItem", Resource: "arn:aws:dynamodb:eu-west-1:000000000000:table/orders"}}
	b.ReportAllocs()
	for b.Loop() {
		if err := w.authorize(b.Context(), c, about); err != nil {
			b.Fatal(err)
		}
	}
}

package server

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/gateway"
	"github.com/ebb-run/ebb/internal/state"
)

// resolver answers what only a deploy knows: names, ARNs and addresses of what an App declares.
type resolver struct {
	app     *app.App
	account string
	gateway string // URL
	secret  func(name string) (string, error)
}

func (s *Server) resolver(d *state.Deployment) resolver {
	return resolver{app: d.App, account: s.o.Config.Account, gateway: s.stackURL(d.Stack), secret: func(name string) (string, error) { return s.secretOf(d.Stack, name) }}
}

// unset is a variable that cannot be resolved, and is left out.
type unset struct{ name, why string }

// env resolves a Function's variables.
func (r resolver) env(f *app.Function) (env []string, left []unset) {
	for _, k := range slices.Sorted(maps.Keys(f.Env)) {
		v, err := f.Env[k].Resolve(r.values())
		if err != nil {
			left = append(left, unset{k, err.Error()})
			continue
		}
		env = append(env, k+"="+v)
	}
	return env, left
}

func (r resolver) values() app.Resolver {
	return app.Resolver{
		Attr:   r.attr,
		Secret: r.secret,
		Import: func(name string) (string, error) {
			return "", errs.New(errs.NotFound, "import %s is declared, not yet active", name)
		},
	}
}

// attr gives an attribute of what the logical ID names.
func (r resolver) attr(id, attr string) (string, error) {
	reg := region(r.app)
	for i := range r.app.Functions {
		if f := &r.app.Functions[i]; f.ID == id {
			switch attr {
			case "Ref":
				return f.Name, nil
			case "Arn":
				return arn.Function(reg, r.account, f.Name).String(), nil
			case "FunctionUrl":
				return r.gateway + "/_url/" + f.Key + "/", nil
			}
		}
	}
	if api := r.app.API(id); api != nil {
		switch attr {
		case "Ref":
			return gateway.APIID(tenant, r.app.Name, r.app.Stage, id), nil
		case "ApiEndpoint":
			return r.gateway, nil
		case "FunctionUrl":
			return r.gateway + "/", nil
		}
	}
	for i := range r.app.Resources {
		if res := &r.app.Resources[i]; res.ID == id {
			return r.resource(res, attr)
		}
	}
	for _, role := range r.app.Roles {
		if role.ID == id {
			name := role.Name
			if name == "" {
				name = r.app.Name + "-" + r.app.Stage + "-" + role.ID
			}
			if attr == "Arn" {
				return arn.New("iam", "", r.account, "role/"+name).String(), nil
			}
			return name, nil
		}
	}
	return "", errs.New(errs.NotFound, "%s.%s is not known", id, attr)
}

// arnForms gives, by type, the service and the resource part of an ARN; the name goes where %s stands.
var arnForms = map[string][2]string{
	"AWS::DynamoDB::Table":             {"dynamodb", "table/%s"},
	"AWS::SQS::Queue":                  {"sqs", "%s"},
	"AWS::SNS::Topic":                  {"sns", "%s"},
	"AWS::Kinesis::Stream":             {"kinesis", "stream/%s"},
	"AWS::Events::EventBus":            {"events", "event-bus/%s"},
	"AWS::SecretsManager::Secret":      {"secretsmanager", "secret:%s"},
	"AWS::Logs::LogGroup":              {"logs", "log-group:%s:*"},
	"AWS::StepFunctions::StateMachine": {"states", "stateMachine:%s"},
	"AWS::Cognito::UserPool":           {"cognito-idp", "userpool/%s"},
}

func (r resolver) resource(res *app.Resource, attr string) (string, error) {
	reg := region(r.app)
	name, err := r.physicalName(res)
	if err != nil {
		return "", err
	}
	full := name
	if form, ok := arnForms[res.Type]; ok {
		full = arn.New(form[0], reg, r.account, fmt.Sprintf(form[1], name)).String()
	} else if res.Kind == app.Bucket {
		full = "arn:aws:s3:::" + name
	}
	if p := res.Properties[attr]; res.Type == "AWS::SSM::Parameter" && (attr == "Type" || attr == "Value") {
		plain, err := r.plain(p)
		text, _ := plain.(string)
		return text, err
	}
	switch attr {
	case "Ref":
		switch res.Type {
		case "AWS::SQS::Queue":
			return "https://sqs." + reg + ".amazonaws.com/" + r.account + "/" + name, nil
		case "AWS::SNS::Topic", "AWS::SecretsManager::Secret", "AWS::StepFunctions::StateMachine":
			return full, nil
		}
		return name, nil
	case "Arn", "TopicArn", "Id": // Id is a secret's
		if full == name {
			return "", errs.New(errs.NotFound, "the ARN of %s (%s) is not known", res.ID, res.Type)
		}
		return full, nil
	case "QueueName", "TopicName", "Name":
		return name, nil
	case "QueueUrl":
		return "https://sqs." + reg + ".amazonaws.com/" + r.account + "/" + name, nil
	case "StreamArn":
		return full + "/stream/1970-01-01T00:00:00.000", nil
	case "DomainName", "RegionalDomainName":
		if res.Kind == app.Bucket {
			return name + ".s3." + reg + ".amazonaws.com", nil
		}
	case "WebsiteURL":
		return "http://" + name + ".s3-website-" + reg + ".amazonaws.com", nil
	}
	return "", errs.New(errs.NotFound, "attribute %s of %s (%s) is not known", attr, res.ID, res.Type)
}

// named are the properties that name Resources that the model has no kind of.
var named = map[string]string{"AWS::SSM::Parameter": "Name", "AWS::Logs::LogGroup": "LogGroupName"} // never written

// physicalName is a Resource's declared name, or one made of Stack and logical ID, as CloudFormation makes one.
func (r resolver) physicalName(res *app.Resource) (string, error) {
	if !res.Name.IsZero() {
		return res.Name.Resolve(r.values())
	}
	if by := named[res.Type]; by != "" && res.Properties[by] != nil {
		var p struct{ Name string }
		err := r.properties(map[string]any{"Name": res.Properties[by]}, &p)
		return p.Name, err
	}
	name := r.app.Name + "-" + r.app.Stage + "-" + res.ID
	if res.Kind == app.Bucket {
		name = strings.ToLower(name)
	}
	return name, nil
}

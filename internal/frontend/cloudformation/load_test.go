package cloudformation_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

func TestLoad_EndsOnTextBombs(t *testing.T) {
	t.Parallel()
	sub := `"` + strings.Repeat("x", 100) + `"`
	join := sub
	str := sub
	for range 40 {
		sub = fmt.Sprintf(`!Sub ["${a}${a}${a}${a}", {a: %s}]`, sub)
		join = fmt.Sprintf(`!Join ["", [%s, "%s"]]`, join, strings.Repeat("y", 20))
		str = fmt.Sprintf(`{"Fn::ToJsonString": {a: %s}}`, str)
	}
	var lists strings.Builder
	fmt.Fprintf(&lists, "Parameters: {L: {Type: CommaDelimitedList, Default: \"%s\"}}\n", strings.Repeat("a,", 50_000))
	lists.WriteString("Resources: {R: {Type: \"X::Y::Z\", Properties: {P: [")
	for range 2000 {
		lists.WriteString("!Ref L, ")
	}
	lists.WriteString("]}}}\n")
	for name, doc := range map[string]string{
		"sub":    "Resources: {}\nOutputs: {X: {Value: " + sub + "}}",
		"quotes": "Resources: {}\nOutputs: {X: {Value: " + str + "}}",
		"lists":  lists.String(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			a, l := load(doc)
			if a != nil || len(l) == 0 || l[0].Code != "too-large" {
				t.Errorf("got %.300v", l)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	if _, l := load("Resources: {}\nOutputs: {X: {Value: " + join + "}}"); l.HasErrors() {
		t.Errorf("a long but harmless template is refused: %v", l)
	}
}

func TestLoad_ReportsCircles(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ doc, want string }{
		"ref":     {"Resources: {A: {Type: T, Properties: {x: !Ref B}}, B: {Type: T, Properties: {x: !GetAtt A.Arn}}}", "A → B → A"},
		"sub":     {"Resources: {A: {Type: T, Properties: {x: !Sub '${A}'}}}", "A → A"},
		"depends": {"Resources: {A: {Type: T, DependsOn: B}, B: {Type: T, DependsOn: [C]}, C: {Type: T, Properties: {x: !Ref A}}}", "A → B → C → A"},
		"stage": {"Resources: {A: {Type: AWS::ApiGatewayV2::Stage, Properties: {StageName: !Ref B}}, B: {Type: AWS::ApiGatewayV2::Stage, Properties: {StageName: !Ref A}}}",
			"A → B → A"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, l := load(row.doc)
			if !l.HasErrors() || !strings.Contains(fmt.Sprint(l), "resources need each other: "+row.want) {
				t.Errorf("got %v", l)
			}
		})
	}
	if _, l := load("Resources: {A: {Type: T, Properties: {x: !Ref B, y: !Ref B}}, B: {Type: T, DependsOn: C}, C: {Type: T}}"); len(l) > 0 {
		t.Errorf("a chain is taken for a circle: %v", l)
	}
}

func TestLoad_TakesWhatTheProjectFileSays(t *testing.T) {
	t.Parallel()
	n, _ := cloudformation.ParseDoc("t.yaml", []byte(`
Resources:
  HelloLambdaFunction:
    Type: AWS::Lambda::Function
    Properties: {FunctionName: shop-dev-hello, Runtime: nodejs22.x, Handler: h.hello, Code: {S3Bucket: !Ref Bucket, S3Key: x.zip}}
  Bucket: {Type: AWS::S3::Bucket}
  May:
    Type: AWS::Lambda::Permission
    Properties: {FunctionName: !GetAtt HelloLambdaFunction.Arn, Principal: alexa-appkit.amazon.com, Action: "lambda:InvokeFunction"}
`))
	declared := app.Trigger{Function: "hello", Kind: "alexaSkill", Enabled: true}
	a, l := cloudformation.Load(cloudformation.Template{Root: n}, cloudformation.Input{
		Name: "shop", Stage: "dev", Region: "us-east-1", Account: "123456789012", Stack: "shop-dev", Source: "test",
		Functions: map[string]cloudformation.FunctionInfo{"HelloLambdaFunction": {Key: "hello", Package: app.Package{Patterns: []string{"!x"}}}},
		Declared:  []app.Trigger{declared},
	})
	if len(l) > 0 {
		t.Fatal(l)
	}
	f := a.Function("hello")
	if f == nil || f.ID != "HelloLambdaFunction" || f.Name != "shop-dev-hello" || !reflect.DeepEqual(f.Package.Patterns, []string{"!x"}) {
		t.Errorf("function = %+v", f)
	}
	if len(a.Triggers) != 1 || !reflect.DeepEqual(a.Triggers[0], declared) {
		t.Errorf("triggers = %+v", a.Triggers)
	}
}

func TestLoad_EveryReferenceLeadsIntoTheApp(t *testing.T) {
	t.Parallel()
	a, l := load(`
Resources:
  Fn: {Type: AWS::Lambda::Function, Properties: {Runtime: x, Handler: x, Code: ., Environment: {Variables: {D: !Ref Dep, V: !Ref V}}}}
  Api: {Type: AWS::ApiGateway::RestApi, Properties: {Name: a}}
  Dep: {Type: AWS::ApiGateway::Deployment, Properties: {RestApiId: !Ref Api, StageName: s, Description: !Ref Path}}
  Path: {Type: AWS::ApiGateway::Resource, Properties: {RestApiId: !Ref Api, ParentId: !GetAtt Api.RootResourceId, PathPart: p}}
  V: {Type: AWS::Lambda::Version, Properties: {FunctionName: !GetAtt Fn.Arn}}
`)
	_ = l // Fn needs V and V needs Fn: that is a circle
	if a != nil {
		t.Fatal("a circle is accepted")
	}
	a, l = load(`
Resources:
  Fn: {Type: AWS::Lambda::Function, Properties: {Runtime: x, Handler: x, Code: ., Environment: {Variables: {D: !Ref Dep}}}}
  Api: {Type: AWS::ApiGateway::RestApi, Properties: {Name: a}}
  Dep: {Type: AWS::ApiGateway::Deployment, Properties: {RestApiId: !Ref Api, StageName: s, Description: !Ref Path}}
  Path: {Type: AWS::ApiGateway::Resource, Properties: {RestApiId: !Ref Api, ParentId: !GetAtt Api.RootResourceId, PathPart: p}}
  Unused: {Type: AWS::ApiGateway::Resource, Properties: {RestApiId: !Ref Api, ParentId: !GetAtt Api.RootResourceId, PathPart: q}}
`)
	if l.HasErrors() {
		t.Fatal(l)
	}
	var ids []string
	for _, r := range a.Resources {
		ids = append(ids, r.ID)
	}
	if !reflect.DeepEqual(ids, []string{"Dep", "Path"}) {
		t.Errorf("resources = %v", ids)
	}
}

func TestLoad_RefusesWhatIsNoTemplate(t *testing.T) {
	t.Parallel()
	for _, doc := range []string{"[]", "a", "", "Resources: []", "Outputs: {}", "Resources: {A: {Type: 'AWS::Serverless::Function'}}", "Transform: AWS::Serverless-2016-10-31\nResources: {}"} {
		if a, l := load(doc); a != nil || !l.HasErrors() {
			t.Errorf("%q is accepted: %v", doc, l)
		}
	}
	if a, l := cloudformation.Load(cloudformation.Template{}, cloudformation.Input{}); a != nil || !l.HasErrors() {
		t.Error("no document is accepted")
	}
}

func TestLoad_HoldsParametersAgainstTheirDeclaration(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ decl, value, want string }{
		"number":          {"{Type: Number, MinValue: 1, MaxValue: 9}", "5", ""},
		"not a number":    {"{Type: Number}", "five", "is not a number"},
		"too small":       {"{Type: Number, MinValue: 1}", "0", "is less than 1"},
		"too large":       {"{Type: Number, MaxValue: 1.5}", "2", "is more than 1.5"},
		"allowed":         {"{Type: String, AllowedValues: [a, 1, true]}", "1", ""},
		"not allowed":     {"{Type: String, AllowedValues: [a, 1, true]}", "2", "is not one of a, 1, true"},
		"list allowed":    {"{Type: CommaDelimitedList, AllowedValues: [a, b]}", "b, a", ""},
		"list not":        {"{Type: CommaDelimitedList, AllowedValues: [a, b]}", "b,c", "is not one of a, b"},
		"pattern":         {"{Type: String, AllowedPattern: '[a-z]+'}", "abc", ""},
		"pattern not":     {"{Type: String, AllowedPattern: '[a-z]+'}", "abc1", "does not match [a-z]+"},
		"foreign pattern": {"{Type: String, AllowedPattern: '(?!x).*'}", "y", ""},
		"short":           {"{Type: String, MinLength: 3}", "äö", "is shorter than 3"},
		"long":            {"{Type: String, MaxLength: 2}", "äö", ""},
		"too long":        {"{Type: String, MaxLength: 2}", "äöü", "is longer than 2"},
		"no type":         {"{Default: x}", "x", "has no Type"},
		"odd key":         {"{Type: String, Defualt: x}", "x", `a parameter has no key "Defualt"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, _ := cloudformation.ParseDoc("t.yaml", []byte("Parameters:\n  P: "+row.decl+"\nResources: {}\nOutputs: {O: {Value: !Ref P}}\n"))
			_, l := cloudformation.Load(cloudformation.Template{Root: n}, cloudformation.Input{Name: "a", Stage: "dev", Params: map[string]string{"P": row.value}})
			if row.want == "" && len(l) > 0 || row.want != "" && (len(l) != 1 || !strings.Contains(l[0].Message, row.want) || l[0].Line != 2) {
				t.Errorf("got %v, want %q", l, row.want)
			}
		})
	}
}

func TestLoad_NamesWhatOtherStacksImport(t *testing.T) {
	t.Parallel()
	a, l := load("Resources: {Q: {Type: AWS::SQS::Queue}}\nOutputs:\n  A: {Value: !Ref Q, Export: {Name: !Sub '${AWS::StackName}-q'}}\n  B: {Value: x}\n")
	if len(l) > 0 || !reflect.DeepEqual(a.Exports, map[string]string{"app-dev-q": "A"}) {
		t.Errorf("exports = %v, %v", a, l)
	}
	if _, l := load("Resources: {}\nOutputs:\n  A: {Value: x, Export: {Name: n}}\n  B: {Value: y, Export: {Name: n}}\n"); !l.HasErrors() {
		t.Error("one name for two outputs is accepted")
	}
}

func TestLoad_SaysAFaultOnceHoweverManyLookAtIt(t *testing.T) {
	t.Parallel()
	_, l := load(`
Resources:
  St: {Type: AWS::ApiGatewayV2::Stage, Properties: {StageName: !Ref Nowhere, ApiId: x}}
  U: {Type: AWS::Lambda::Url, Properties: {TargetFunctionArn: !GetAtt Gone.Arn, AuthType: NONE}}
Outputs:
  A: {Value: !Ref St}
  B: {Value: !Sub "${St} ${U.FunctionUrl}"}
`)
	count := 0
	for _, d := range l {
		if d.Code == "unknown-ref" {
			count++
		}
	}
	if count != 2 {
		t.Errorf("%d complaints: %v", count, l)
	}
}

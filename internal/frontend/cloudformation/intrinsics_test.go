package cloudformation_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/diag"
	"github.com/ebb-run/ebb/internal/frontend/cloudformation"
)

const head = `
Parameters:
  P: {Type: String, Default: pval}
  L: {Type: CommaDelimitedList, Default: "a,b"}
  Empty: {Type: CommaDelimitedList, Default: ""}
  S: {Type: "AWS::SSM::Parameter::Value<String>", Default: /s}
  Ls: {Type: "AWS::SSM::Parameter::Value<List<String>>", Default: /ls}
  N: {Type: Number, Default: 7}
Mappings: {M: {us-east-1: {k: v, list: [x, y]}}}
Conditions:
  T: !Equals [a, a]
  F: !Not [!Condition T]
Resources:
  R: {Type: AWS::SQS::Queue}
  St: {Type: AWS::ApiGatewayV2::Stage, Properties: {StageName: !Ref P, ApiId: !Ref A}}
  A: {Type: AWS::ApiGatewayV2::Api, Properties: {Name: a, ProtocolType: HTTP}}
`

func load(doc string) (*app.App, diag.List) {
	n, l := cloudformation.ParseDoc("t.yaml", []byte(doc))
	if n == nil {
		return nil, l
	}
	a, more := cloudformation.Load(cloudformation.Template{Root: n}, cloudformation.Input{
		Name: "app", Stage: "dev", Region: "us-east-1", Account: "123456789012", Stack: "app-dev", Source: "test"})
	return a, append(l, more...)
}

// TestIntrinsics_Evaluate evaluates each expression as an output.
func TestIntrinsics_Evaluate(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ expr, want string }{
		"ref parameter":            {`!Ref P`, `"pval"`},
		"ref number":               {`!Ref N`, `"7"`},
		"ref resource":             {`!Ref R`, `{"$attr":"R.Ref"}`},
		"ref stage":                {`!Ref St`, `"pval"`},
		"ref list":                 {`!Ref L`, `"a,b"`},
		"ref ssm":                  {`!Ref S`, `{"$secret":"ssm:/s"}`},
		"ref long form":            {`{Ref: R}`, `{"$attr":"R.Ref"}`},
		"region":                   {`!Ref AWS::Region`, `"us-east-1"`},
		"account":                  {`!Ref AWS::AccountId`, `"123456789012"`},
		"partition":                {`!Ref AWS::Partition`, `"aws"`},
		"suffix":                   {`!Ref AWS::URLSuffix`, `"amazonaws.com"`},
		"stack name":               {`!Ref AWS::StackName`, `"app-dev"`},
		"stack id":                 {`!Ref AWS::StackId`, `"arn:aws:cloudformation:us-east-1:123456789012:stack/app-dev/0"`},
		"getatt":                   {`!GetAtt R.Arn`, `{"$attr":"R.Arn"}`},
		"getatt list":              {`{"Fn::GetAtt": [R, Arn]}`, `{"$attr":"R.Arn"}`},
		"getatt text":              {`{"Fn::GetAtt": R.Arn}`, `{"$attr":"R.Arn"}`},
		"getatt nested":            {`!GetAtt R.Outputs.X`, `{"$attr":"R.Outputs.X"}`},
		"sub":                      {`!Sub "${P}-${R}-${R.Arn}-${AWS::Region}"`, `{"$template":["pval-",{"$attr":"R.Ref"},"-",{"$attr":"R.Arn"},"-us-east-1"]}`},
		"sub literal":              {`!Sub "${!P} $P {P} ${P}"`, `"${P} $P {P} pval"`},
		"sub unclosed":             {`!Sub "a${P"`, `"a${P"`},
		"sub own variables":        {`!Sub ["${P}${x}", {x: !GetAtt R.Arn, P: mine}]`, `{"$template":["mine",{"$attr":"R.Arn"}]}`},
		"sub no value":             {`!Sub "a${AWS::NoValue}b"`, `"ab"`},
		"sub list":                 {`!Sub "${L}"`, `"a,b"`},
		"join":                     {`!Join ["-", [a, !Ref P, 3, true]]`, `"a-pval-3-true"`},
		"join parameter list":      {`!Join ["/", !Ref L]`, `"a/b"`},
		"join no value":            {`!Join ["-", [a, !Ref AWS::NoValue, b]]`, `"a-b"`},
		"join empty":               {`!Join ["-", !Ref Empty]`, `""`},
		"join late":                {`!Join ["", [a, !Ref R]]`, `{"$template":["a",{"$attr":"R.Ref"}]}`},
		"join late list":           {`!Join [";", !Ref Ls]`, `{"$call":["replace",{"$secret":"ssm:/ls"},",",";"]}`},
		"join attribute list":      {`!Join [";", !GetAtt R.Names]`, `{"$call":["replace",{"$attr":"R.Names"},",",";"]}`},
		"split and select":         {`!Select [1, !Split ["|", "a|b|c"]]`, `"b"`},
		"split and select late":    {`!Select ["1", !Split ["/", !GetAtt R.Arn]]`, `{"$call":["pick",{"$attr":"R.Arn"},"/","1"]}`},
		"select":                   {`!Select [0, [x, y]]`, `"x"`},
		"select late attribute":    {`!Select [0, !GetAtt R.Names]`, `{"$call":["pick",{"$attr":"R.Names"},",","0"]}`},
		"find in map":              {`!FindInMap [M, !Ref AWS::Region, k]`, `"v"`},
		"find in map list":         {`!Select [1, !FindInMap [M, us-east-1, list]]`, `"y"`},
		"find in map default":      {`!FindInMap [M, x, k, {DefaultValue: !Ref P}]`, `"pval"`},
		"if true":                  {`!If [T, yes-1, !Ref Nope]`, `"yes-1"`},
		"if false":                 {`!If [F, a, !Sub "${P}"]`, `"pval"`},
		"and":                      {`{"Fn::And": [{Condition: T}, {"Fn::Equals": [!Ref P, pval]}]}`, `"true"`},
		"or":                       {`{"Fn::Or": [{Condition: F}, {"Fn::Not": [{Condition: T}]}]}`, `"false"`},
		"equals number":            {`{"Fn::Equals": [!Ref N, 7]}`, `"true"`},
		"equals list":              {`{"Fn::Equals": [!Ref Empty, !Ref L]}`, `"false"`},
		"import":                   {`!ImportValue x`, `{"$import":"x"}`},
		"import sub":               {`{"Fn::ImportValue": !Sub "${P}-x"}`, `{"$import":"pval-x"}`},
		"base64":                   {`{"Fn::Base64": !Sub "${P}"}`, `"cHZhbA=="`},
		"base64 late":              {`!Base64 {Ref: R}`, `{"$call":["base64",{"$attr":"R.Ref"}]}`},
		"cidr":                     {`!Join [" ", !Cidr [10.0.255.0/16, 2, 5]]`, `"10.0.0.0/27 10.0.0.32/27"`},
		"cidr carries":             {`!Select [3, !Cidr [10.0.0.0/8, 4, 15]]`, `"10.1.128.0/17"`},
		"cidr v6":                  {`!Select [1, !Cidr ["2001:db8::/56", 2, 64]]`, `"2001:db8:0:1::/64"`},
		"azs":                      {`!Join [",", !GetAZs eu-west-1]`, `"eu-west-1a,eu-west-1b,eu-west-1c"`},
		"azs here":                 {`!Select [2, {"Fn::GetAZs": !Ref AWS::Region}]`, `"us-east-1c"`},
		"length":                   {`{"Fn::Length": [1, 2, 3]}`, `"3"`},
		"to json":                  {`{"Fn::ToJsonString": {b: !Ref R, a: [1, x, null, 1.5, false]}}`, `{"$template":["{\"b\":\"",{"$attr":"R.Ref"},"\",\"a\":[1,\"x\",null,1.5,false]}"]}`},
		"dynamic ssm":              {`"{{resolve:ssm:/a/b:3}}"`, `{"$secret":"ssm:/a/b:3"}`},
		"dynamic ssm-secure":       {`"{{resolve:ssm-secure:/a}}"`, `{"$secret":"ssm:/a"}`},
		"dynamic in text":          {`"u:{{resolve:secretsmanager:db:SecretString:pw}}@{{resolve:ssm:h}}"`, `{"$template":["u:",{"$secret":"secretsmanager:db:SecretString:pw"},"@",{"$secret":"ssm:h"}]}`},
		"dynamic by reference":     {`!Sub "{{resolve:secretsmanager:${R}:SecretString:pw}}"`, `{"$call":["secret",{"$template":["secretsmanager:",{"$attr":"R.Ref"},":SecretString:pw"]}]}`},
		"dynamic unclosed":         {`"{{resolve:ssm:x"`, `"{{resolve:ssm:x"`},
		"dynamic across parameter": {`!Join ["", ["{{resolve:ssm:/", !Ref P, "}}"]]`, `{"$secret":"ssm:/pval"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, l := load(head + "Outputs:\n  X:\n    Value: " + row.expr + "\n")
			if l.HasErrors() {
				t.Fatal(l)
			}
			got, _ := json.Marshal(a.Outputs["X"])
			if string(got) != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestIntrinsics_RefuseWhatCannotMeanAnything(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ expr, want string }{
		"ref nowhere":        {`!Ref PP`, `Ref names "PP", which the template does not declare`},
		"ref a list":         {`{Ref: [a]}`, `Ref wants one text`},
		"sub nowhere":        {`!Sub "${Nope}"`, `Fn::Sub names "Nope"`},
		"sub empty name":     {`!Sub "${}"`, `Fn::Sub names ""`},
		"sub a map":          {`{"Fn::Sub": {a: b}}`, `Fn::Sub wants a text`},
		"getatt nowhere":     {`!GetAtt RR.Arn`, `Fn::GetAtt names "RR"`},
		"getatt parameter":   {`!GetAtt P.Arn`, `Fn::GetAtt names "P"`},
		"getatt no attr":     {`!GetAtt R`, `Fn::GetAtt wants a logical ID and an attribute`},
		"join one":           {`!Join ["-"]`, `Fn::Join wants a list of 2 arguments`},
		"join maps":          {`!Join ["-", [{a: b}]]`, `Fn::Join wants a list of texts`},
		"join a text":        {`!Join ["-", abc]`, `Fn::Join wants a delimiter and a list`},
		"split without sep":  {`!Select [0, !Split ["", abc]]`, `Fn::Split wants a delimiter`},
		"select beyond":      {`!Select [2, [a, b]]`, `Fn::Select asks for item 2 of a list of 2`},
		"select negative":    {`!Select [-1, [a, b]]`, `Fn::Select wants an index`},
		"map missing":        {`!FindInMap [MM, a, b]`, `there is no mapping "MM"`},
		"map key missing":    {`!FindInMap [M, us-east-1, kk]`, `there is no second-level key "kk"`},
		"map late":           {`!FindInMap [M, !Ref R, k]`, `Fn::FindInMap wants a text that is known before the deploy, not ${R.Ref}`},
		"if without name":    {`!If [Nope, a, b]`, `there is no condition "Nope"`},
		"if two":             {`!If [T, a]`, `Fn::If wants a list of 3 arguments`},
		"condition function": {`{"Fn::Not": [x]}`, `a condition must be one of`},
		"import late":        {`!ImportValue {Ref: R}`, `Fn::ImportValue wants a text that is known`},
		"cidr no block":      {`!Select [0, !Cidr [x, 1, 8]]`, `Fn::Cidr wants an address block`},
		"cidr too many":      {`!Select [0, !Cidr [10.0.0.0/24, 5, 7]]`, `Fn::Cidr wants between 1 and 256 blocks`},
		"length of text":     {`{"Fn::Length": abc}`, `Fn::Length wants one list`},
		"no such function":   {`{"Fn::Getatt": [R, Arn]}`, `there is no intrinsic function Fn::Getatt`},
		"foreach":            {`{"Fn::ForEach::X": [a, b, c]}`, `Fn::ForEach is not read`},
		"dynamic unknown":    {`"{{resolve:vault:x}}"`, `names no known service`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, l := load(head + "Outputs:\n  X:\n    Value: " + row.expr + "\n")
			if a != nil || !l.HasErrors() {
				t.Fatalf("accepted: %v", l)
			}
			if len(l) != 1 || !strings.Contains(l[0].Message, row.want) || l[0].Line < 19 || l[0].Col == 0 {
				t.Errorf("got %v, want %s", l, row.want)
			}
		})
	}
}

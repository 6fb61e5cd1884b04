package lambda

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/arn"
	"github.com/ebb-run/ebb/internal/wire"
)

type (
	variables     struct{ Variables map[string]string }
	mode          struct{ Mode string }
	size          struct{ Size int }
	layer         struct{ Arn string }
	target        struct{ TargetArn string }
	snapStart     struct{ ApplyOn, OptimizationStatus string }
	logging       struct{ LogFormat, LogGroup string }
	configuration struct {
		FunctionName, FunctionArn, Runtime, Role, Handler, Description, Version, CodeSha256, RevisionId, State, LastUpdateStatus, PackageType, LastModified string
		CodeSize                                                                                                                                            int64 `wire:",always"`
		Timeout, MemorySize                                                                                                                                 int
		Environment                                                                                                                                         *variables
		TracingConfig                                                                                                                                       *mode
		Layers                                                                                                                                              []layer
		Architectures                                                                                                                                       []string
		EphemeralStorage                                                                                                                                    *size
		DeadLetterConfig                                                                                                                                    *target
		SnapStart                                                                                                                                           *snapStart
		LoggingConfig                                                                                                                                       *logging
	}
)

// configured writes a Function as clients read it.
func configured(c *wire.Call, d *Description, qualifier string) *configuration {
	full, version := functionARN(c, d.Function), latest
	if qualifier != "" {
		full += ":" + qualifier
		if qualifier != latest {
			version = "1"
		}
	}
	out := &configuration{
		FunctionName: d.Name, FunctionArn: full, Runtime: d.Runtime, Role: d.Role, Handler: d.Handler, Description: d.Text, Version: version, CodeSha256: digest64(d.Code),
		RevisionId: uuidOf(d.Revision), State: "Active", LastUpdateStatus: "Successful", PackageType: "Zip", LastModified: d.Changed.UTC().Format("2006-01-02T15:04:05.000+0000"),
		CodeSize: d.CodeSize, Timeout: d.TimeoutSec, MemorySize: d.MemoryMB, TracingConfig: &mode{"PassThrough"}, Architectures: []string{d.Arch},
		EphemeralStorage: &size{512}, SnapStart: &snapStart{"None", "Off"}, LoggingConfig: &logging{"Text", "/aws/lambda/" + d.Name},
	}
	if d.TmpMB > 0 {
		out.EphemeralStorage.Size = d.TmpMB
	}
	if d.Arch == "" {
		out.Architectures[0] = "x86_64"
	}
	if len(d.Env) > 0 {
		out.Environment = &variables{d.Env}
	}
	if d.DeadLetter != "" {
		out.DeadLetterConfig = &target{d.DeadLetter}
	}
	for _, l := range d.Layers {
		out.Layers = append(out.Layers, layer{l})
	}
	return out
}

// digest64 writes a SHA-256 as AWS does.
func digest64(text string) string {
	sum, err := hex.DecodeString(strings.TrimPrefix(text, "sha256:"))
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(sum)
}

// uuidOf makes the form of a UUID of a digest.
func uuidOf(digest string) string {
	h := strings.TrimPrefix(digest, "sha256:")
	if len(h) < 32 {
		return ""
	}
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:32]
}

type named struct{ FunctionName, Qualifier string }

type code struct{ RepositoryType, Location string }

type concurrency struct{ ReservedConcurrentExecutions *int }

type functionOutput struct {
	Configuration *configuration
	Code          *code
	Tags          map[string]string
	Concurrency   *concurrency
}

func (s *service) getFunction(ctx context.Context, c *wire.Call, in *named) (*functionOutput, error) {
	d, qualifier, err := s.described(ctx, c, "lambda:GetFunction", in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	out := &functionOutput{Configuration: configured(c, d, qualifier), Code: &code{RepositoryType: "S3"}}
	if len(d.Tags) > 0 {
		out.Tags = d.Tags
	}
	if d.Reserved != nil {
		out.Concurrency = &concurrency{d.Reserved}
	}
	return out, nil
}

func (s *service) getConfiguration(ctx context.Context, c *wire.Call, in *named) (*configuration, error) {
	d, qualifier, err := s.described(ctx, c, "lambda:GetFunctionConfiguration", in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	return configured(c, d, qualifier), nil
}

type namedOnly struct{ FunctionName string }

func (s *service) getConcurrency(ctx context.Context, c *wire.Call, in *namedOnly) (*concurrency, error) {
	d, _, err := s.described(ctx, c, "lambda:GetFunctionConcurrency", in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	return &concurrency{d.Reserved}, nil
}

type destination struct{ Destination string }

type destinations struct{ OnSuccess, OnFailure *destination }

type eventInvoke struct {
	FunctionArn              string
	LastModified             time.Time
	MaximumRetryAttempts     *int
	MaximumEventAgeInSeconds *int
	DestinationConfig        *destinations
}

func (s *service) getEventInvoke(ctx context.Context, c *wire.Call, in *named) (*eventInvoke, error) {
	d, qualifier, err := s.described(ctx, c, "lambda:GetFunctionEventInvokeConfig", in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	if qualifier == "" {
		qualifier = latest
	}
	full := functionARN(c, d.Function) + ":" + qualifier
	if d.MaxRetries == nil && d.MaxAgeSec == 0 && d.OnSuccess == "" && d.OnFailure == "" {
		return nil, wire.Errorf("ResourceNotFoundException", "The function %s doesn't have an EventInvokeConfig", full).With(http.StatusNotFound)
	}
	out := &eventInvoke{FunctionArn: full, LastModified: d.Changed, MaximumRetryAttempts: d.MaxRetries, DestinationConfig: &destinations{&destination{d.OnSuccess}, &destination{d.OnFailure}}}
	if d.MaxAgeSec > 0 {
		out.MaximumEventAgeInSeconds = &d.MaxAgeSec
	}
	return out, nil
}

type urlConfig struct{ FunctionUrl, FunctionArn, AuthType, InvokeMode, CreationTime, LastModifiedTime string }

func (s *service) getURL(ctx context.Context, c *wire.Call, in *named) (*urlConfig, error) {
	d, _, err := s.described(ctx, c, "lambda:GetFunctionUrlConfig", in.FunctionName, in.Qualifier)
	if err != nil {
		return nil, err
	}
	if d.URL == "" {
		return nil, wire.Errorf("ResourceNotFoundException", "The resource you requested does not exist.").With(http.StatusNotFound)
	}
	at := d.Changed.UTC().Format("2006-01-02T15:04:05.000000Z")
	out := &urlConfig{FunctionUrl: d.URL, FunctionArn: functionARN(c, d.Function), AuthType: strings.ToUpper(d.URLAuth), InvokeMode: "BUFFERED", CreationTime: at, LastModifiedTime: at}
	if d.URLAuth == "iam" {
		out.AuthType = "AWS_IAM"
	}
	if d.URLStream {
		out.InvokeMode = "RESPONSE_STREAM"
	}
	return out, nil
}

// pageSize is the most Functions of one answer: Lambda API, "ListFunctions".
const pageSize = 50

// page gives the part of n items that a request asks for, and where the next begins. A marker is the number of the first item.
func page(n int, marker string, most *int) (from, to int, next string, err error) {
	limit := pageSize
	if most != nil {
		limit = min(*most, pageSize)
	}
	if marker != "" {
		raw, bad := base64.RawURLEncoding.DecodeString(marker)
		from, err = strconv.Atoi(string(raw))
		if bad != nil || err != nil || from < 0 {
			return 0, 0, "", wire.Errorf("InvalidParameterValueException", "Invalid marker: %s", marker)
		}
	}
	from = min(from, n)
	if to = min(from+limit, n); to < n {
		next = base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(to)))
	}
	return from, to, next, nil
}

type listInput struct {
	Marker          string
	MaxItems        *int
	FunctionVersion string
}

type listOutput struct {
	Functions  []configuration `wire:",always"`
	NextMarker string
}

func (s *service) listFunctions(ctx context.Context, c *wire.Call, in *listInput) (*listOutput, error) {
	list, err := s.b.Describe(ctx, c.Caller.App, "")
	if err != nil {
		return nil, err
	}
	out := &listOutput{Functions: []configuration{}}
	from, to, next, err := page(len(list), in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	out.NextMarker = next
	for i := range list[from:to] {
		d := &list[from+i]
		qualifier := ""
		if in.FunctionVersion == "ALL" {
			qualifier = latest
		}
		out.Functions = append(out.Functions, *configured(c, d, qualifier))
	}
	return out, nil
}

type versionsInput struct {
	FunctionName, Marker string
	MaxItems             *int
}

type versionsOutput struct {
	Versions   []configuration
	NextMarker string
}

func (s *service) listVersions(ctx context.Context, c *wire.Call, in *versionsInput) (*versionsOutput, error) {
	d, _, err := s.described(ctx, c, "lambda:ListVersionsByFunction", in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	out := &versionsOutput{Versions: []configuration{*configured(c, d, latest)}}
	if len(d.Aliases) > 0 {
		out.Versions = append(out.Versions, *configured(c, d, "1"))
	}
	return out, nil
}

type alias struct{ AliasArn, Name, FunctionVersion, Description, RevisionId string }

func aliasOf(c *wire.Call, d *Description, name string) alias {
	return alias{AliasArn: functionARN(c, d.Function) + ":" + name, Name: name, FunctionVersion: "1", RevisionId: uuidOf(d.Revision)}
}

type aliasInput struct{ FunctionName, Name string }

func (s *service) getAlias(ctx context.Context, c *wire.Call, in *aliasInput) (*alias, error) {
	d, _, err := s.described(ctx, c, "lambda:GetAlias", in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(d.Aliases, in.Name) {
		return nil, wire.Errorf("ResourceNotFoundException", "Cannot find alias arn: %s:%s", functionARN(c, d.Function), in.Name).With(http.StatusNotFound)
	}
	a := aliasOf(c, d, in.Name)
	return &a, nil
}

type aliasesInput struct {
	FunctionName, FunctionVersion, Marker string
	MaxItems                              *int
}

type aliasesOutput struct {
	Aliases    []alias `wire:",always"`
	NextMarker string
}

func (s *service) listAliases(ctx context.Context, c *wire.Call, in *aliasesInput) (*aliasesOutput, error) {
	d, _, err := s.described(ctx, c, "lambda:ListAliases", in.FunctionName, "")
	if err != nil {
		return nil, err
	}
	out := &aliasesOutput{Aliases: []alias{}}
	if in.FunctionVersion != "" && in.FunctionVersion != "1" {
		return out, nil
	}
	for _, name := range d.Aliases {
		out.Aliases = append(out.Aliases, aliasOf(c, d, name))
	}
	return out, nil
}

type tagsInput struct{ Resource string }

type tagsOutput struct {
	Tags map[string]string `wire:",always"`
}

func (s *service) listTags(ctx context.Context, c *wire.Call, in *tagsInput) (*tagsOutput, error) {
	if _, err := arn.Parse(in.Resource); err != nil {
		return nil, wire.Errorf("InvalidParameterValueException", "Invalid ARN: %s", in.Resource)
	}
	d, _, err := s.described(ctx, c, "lambda:ListTags", in.Resource, "")
	if err != nil {
		return nil, err
	}
	out := &tagsOutput{Tags: d.Tags}
	if out.Tags == nil {
		out.Tags = map[string]string{}
	}
	return out, nil
}

type policyOutput struct{ Policy string }

// getPolicy tells that there is none: who may invoke is not said by resource policies here.
func (s *service) getPolicy(ctx context.Context, c *wire.Call, in *named) (*policyOutput, error) {
	if _, _, err := s.described(ctx, c, "lambda:GetPolicy", in.FunctionName, in.Qualifier); err != nil {
		return nil, err
	}
	return nil, wire.Errorf("ResourceNotFoundException", "The resource you requested does not exist.").With(http.StatusNotFound)
}

// Command plaingo is a function that calls AWS with Go's SDKs, as they are, and says who it was there.
package main

import (
	"context"
	"os"
	"strings"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	v1aws "github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/session"
	v1sts "github.com/aws/aws-sdk-go/service/sts"
)

func main() { lambda.Start(handle) }

func handle(ctx context.Context) (map[string]string, error) {
	out := map[string]string{"home": os.Getenv("HOME")}
	note := func(name string, f func() (string, error)) {
		text, err := f()
		if err != nil {
			text = "failed: " + err.Error()
		}
		out[name] = text
	}
	note("own v2", func() (string, error) { return second(ctx) })
	note("own v1", first)
	// Without an address in a variable it is the proxy that brings them here.
	endpoint := os.Getenv("AWS_ENDPOINT_URL")
	_ = os.Unsetenv("AWS_ENDPOINT_URL")
	note("own v2 by name", func() (string, error) { return second(ctx) })
	_ = os.Setenv("AWS_ENDPOINT_URL", endpoint)
	note("profile", func() (string, error) { return profile(ctx, "default") })
	note("process", func() (string, error) { return profile(ctx, "process") })
	// Without its own credentials a client looks everywhere.
	kept := map[string]string{}
	for _, kv := range os.Environ() {
		if name, value, _ := strings.Cut(kv, "="); name == "AWS_ACCESS_KEY_ID" || name == "AWS_SECRET_ACCESS_KEY" || name == "AWS_SESSION_TOKEN" {
			kept[name] = value
			_ = os.Unsetenv(name)
		}
	}
	note("none v2", func() (string, error) { return second(ctx) })
	note("none v1", first)
	for name, value := range kept {
		_ = os.Setenv(name, value)
	}
	return out, nil
}

func second(ctx context.Context, more ...func(*config.LoadOptions) error) (string, error) {
	c, err := config.LoadDefaultConfig(ctx, more...)
	if err != nil {
		return "", err
	}
	r, err := sts.NewFromConfig(c).GetCallerIdentity(ctx, nil)
	if err != nil {
		return "", err
	}
	return aws.ToString(r.Arn), nil
}

func first() (string, error) {
	s, err := session.NewSessionWithOptions(session.Options{SharedConfigState: session.SharedConfigEnable})
	if err != nil {
		return "", err
	}
	r, err := v1sts.New(s).GetCallerIdentity(nil)
	if err != nil {
		return "", err
	}
	return v1aws.StringValue(r.Arn), nil
}

func profile(ctx context.Context, name string) (string, error) {
	return second(ctx, config.WithSharedConfigProfile(name))
}

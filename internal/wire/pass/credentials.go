package pass

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/ebb-run/ebb/internal/errs"
)

// Env is the source of credentials that the server's environment is.
const Env = "env"

// Credentials gives those of a source: "env", or "profile:NAME" of AWS's shared configuration files, whatever that gets them by.
func Credentials(ctx context.Context, source string, env func(string) (string, bool)) (aws.CredentialsProvider, error) {
	if name, ok := strings.CutPrefix(source, "profile:"); ok && name != "" {
		c, err := config.LoadDefaultConfig(ctx, config.WithSharedConfigProfile(name))
		if err != nil {
			return nil, errs.New(errs.Invalid, "setting aws-pass-credentials: %w", err)
		}
		return c.Credentials, nil
	}
	if source != Env {
		return nil, errs.New(errs.Invalid, "setting aws-pass-credentials: %q is neither env nor profile:NAME", source)
	}
	get := func(name string) string { v, _ := env(name); return v }
	c := aws.Credentials{AccessKeyID: get("AWS_ACCESS_KEY_ID"), SecretAccessKey: get("AWS_SECRET_ACCESS_KEY"), SessionToken: get("AWS_SESSION_TOKEN"), Source: Env}
	if !c.HasKeys() {
		return nil, errs.New(errs.Invalid, "setting aws-pass: the environment has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY").
			WithHint("Set them for ebb alone, or name a profile: --aws-pass-credentials profile:NAME.")
	}
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c, nil }), nil
}

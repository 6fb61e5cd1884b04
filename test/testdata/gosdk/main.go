// Command gosdk is a client of AWS's services written with both Go SDKs. As a program it does a round of every service at an endpoint:
// gosdk URL ACCESS-KEY SECRET. As a function it uses them as they are, with no endpoint in its code.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go/aws/session"
)

func main() {
	if os.Getenv("AWS_LAMBDA_RUNTIME_API") != "" {
		lambda.Start(handle)
		return
	}
	for name, round := range map[string]func(ctx context.Context, url, key, secret string) error{"v1": byV1, "v2": byV2} {
		if err := round(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Println(name+":", err)
			os.Exit(1)
		}
		fmt.Println("all by", name)
	}
}

func handle(ctx context.Context) (string, error) {
	s, err := session.NewSession()
	if err != nil {
		return "", err
	}
	one, err := v1Queue(s, "inside")
	if err != nil {
		return "", fmt.Errorf("v1: %w", err)
	}
	two, err := inside(ctx)
	if err != nil {
		return "", fmt.Errorf("v2: %w", err)
	}
	return one + ", " + two, nil
}

// all runs functions until one fails, and says which.
func all(list ...func() error) error {
	for i, f := range list {
		if err := f(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func expect(err error, ok bool, got any) error {
	if err == nil && !ok {
		_, file, line, _ := runtime.Caller(1)
		return errors.New(fmt.Sprint(file, ":", line, ": got ", got))
	}
	return err
}

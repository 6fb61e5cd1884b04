// A handler on the stock library.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name string `json:"name"`
	Do   string `json:"do"`
	N    int    `json:"n"`
}

func handle(ctx context.Context, e event) (any, error) {
	lc, _ := lambdacontext.FromContext(ctx)
	switch e.Do {
	case "fail":
		return nil, errors.New("no luck")
	case "panic":
		panic("at the disco")
	case "exit":
		fmt.Println("leaving")
		os.Exit(3)
	case "big":
		return strings.Repeat("x", e.N), nil
	case "stream":
		return io.MultiReader(strings.NewReader("a"), strings.NewReader("bc")), nil
	case "context":
		deadline, ok := ctx.Deadline()
		return []any{lc.AwsRequestID, lc.InvokedFunctionArn, ok && time.Until(deadline) > 5*time.Second, lc.ClientContext.Custom["k"],
			lambdacontext.FunctionName, lambdacontext.MemoryLimitInMB, os.Getenv("_X_AMZN_TRACE_ID") != "" || ctx.Value("x-amzn-trace-id") != nil}, nil
	case "print":
		fmt.Println("printed")
	}
	return map[string]string{"message": "hello " + e.Name}, nil
}

func main() {
	switch os.Getenv("MODE") {
	case "echo":
		lambda.Start(func(e json.RawMessage) (json.RawMessage, error) { return e, nil })
	case "fail":
		lambda.Start(func() error { return errors.New("no luck") })
	case "exit":
		lambda.Start(func() { os.Exit(3) })
	case "hang":
		lambda.Start(func() { time.Sleep(time.Minute) })
	}
	lambda.Start(handle)
}

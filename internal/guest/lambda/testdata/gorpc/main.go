// A handler on a library that knows only net/rpc.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name string `json:"name"`
	Do   string `json:"do"`
}

func handle(ctx context.Context, e event) (interface{}, error) {
	switch e.Do {
	case "fail":
		return nil, errors.New("no luck")
	case "panic":
		panic("at the disco")
	case "exit":
		os.Exit(3)
	case "context":
		lc, _ := lambdacontext.FromContext(ctx)
		deadline, ok := ctx.Deadline()
		return []interface{}{lc.AwsRequestID, lc.InvokedFunctionArn, ok && time.Until(deadline) > 5*time.Second, lc.ClientContext.Custom["k"]}, nil
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

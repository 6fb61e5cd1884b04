// A handler on the stock library.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-lambda-go/lambdaurl"
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

// serve streams through lambdaurl.
func serve(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: "c", Value: "1"})
	w.Header().Set("X-Query", r.URL.Query().Get("q"))
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusAccepted)
	io.WriteString(w, "first,")
	switch os.Getenv("THEN") {
	case "wait": // for the host to have the first part
		f, err := os.Open(os.Getenv("FIFO"))
		if err != nil {
			panic(err)
		}
		f.Close()
	case "long":
		for range 20 {
			if _, err := io.WriteString(w, strings.Repeat("x", 100_000)); err != nil {
				return
			}
		}
	case "forever":
		for {
			io.WriteString(w, "x")
			time.Sleep(time.Millisecond)
		}
	}
	io.WriteString(w, "second")
}

// extend runs an internal extension beside the runtime.
func extend() {
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2020-01-01/extension/"
	ask := func(method, path, body, name, value string) *http.Response {
		req, err := http.NewRequest(method, api+path, strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		req.Header.Set(name, value)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 200 {
			panic(fmt.Sprint(resp, err))
		}
		return resp
	}
	resp := ask("POST", "register", `{"events":["INVOKE"]}`, "Lambda-Extension-Name", "inner")
	id := resp.Header.Get("Lambda-Extension-Identifier")
	resp.Body.Close()
	go func() {
		for {
			resp := ask("GET", "event/next", "", "Lambda-Extension-Identifier", id)
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			fmt.Printf("extension got %s\n", b)
		}
	}()
}

type broken struct{}

func (broken) Error() string            { return "it broke" }
func (broken) Read([]byte) (int, error) { return 0, broken{} }

// respond streams a reader.
func respond(e events.LambdaFunctionURLRequest) (*events.LambdaFunctionURLStreamingResponse, error) {
	return &events.LambdaFunctionURLStreamingResponse{StatusCode: 203, Headers: map[string]string{"X-A": "b"}, Cookies: []string{"c=1"},
		Body: io.MultiReader(strings.NewReader("half"), broken{})}, nil
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
	case "url":
		lambdaurl.Start(http.HandlerFunc(serve))
	case "extension":
		extend()
		lambda.Start(func(e json.RawMessage) (json.RawMessage, error) { return e, nil })
	case "respond":
		lambda.Start(respond)
	}
	lambda.Start(handle)
}

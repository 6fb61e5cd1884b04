// Command bootstrap is the benchmarks' handler of events and queues under the stock client of the Runtime API.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

// one says when it began where the event asks for that, and takes its time where it is told to.
func one(_ context.Context, e events.EventBridgeEvent) error {
	began := time.Now()
	if strings.HasPrefix(e.ID, "when-") {
		fmt.Printf("began %s %d\n", e.ID, began.UnixNano())
	}
	var d struct {
		Sleep int `json:"sleep"` // ms
	}
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return err
	}
	time.Sleep(time.Duration(d.Sleep) * time.Millisecond)
	return nil
}

func batch(_ context.Context, e events.SQSEvent) error {
	for _, m := range e.Records {
		if m.Body == "" {
			return fmt.Errorf("message %s has no body", m.MessageId)
		}
	}
	return nil
}

func main() {
	if strings.Contains(os.Getenv("AWS_LAMBDA_FUNCTION_NAME"), "batch") {
		lambda.Start(batch)
		return
	}
	lambda.Start(one)
}

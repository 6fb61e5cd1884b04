// Package strict decodes the events of the golden files into the types of aws-lambda-go, unknown fields refused.
package strict

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
)

// AWS sends, and documents, these members that the types do not have.
var unknown = map[string][]string{
	"rest": {"requestContext.deploymentId", "requestContext.identity.principalOrgId"},
	"v1":   {"version", "requestContext.identity.principalOrgId", "requestContext.identity.cognitoAmr"},
	"v2":   nil,
	"url":  {"routeKey", "requestContext.routeKey", "requestContext.stage"},
}

func TestEvents_DecodeStrictly(t *testing.T) {
	for name, row := range map[string]struct {
		kind string
		into func() any
	}{
		"rest.json":         {"rest", func() any { return new(events.APIGatewayProxyRequest) }},
		"rest-bare.json":    {"rest", func() any { return new(events.APIGatewayProxyRequest) }},
		"http-v1.json":      {"v1", func() any { return new(events.APIGatewayProxyRequest) }},
		"http-v1-bare.json": {"v1", func() any { return new(events.APIGatewayProxyRequest) }},
		"http-v2.json":      {"v2", func() any { return new(events.APIGatewayV2HTTPRequest) }},
		"http-v2-bare.json": {"v2", func() any { return new(events.APIGatewayV2HTTPRequest) }},
		"url.json":          {"url", func() any { return new(events.LambdaFunctionURLRequest) }},
		"url-bare.json":     {"url", func() any { return new(events.LambdaFunctionURLRequest) }},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile("../" + name)
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			for _, path := range unknown[row.kind] {
				at, parts := m, strings.Split(path, ".")
				for _, p := range parts[:len(parts)-1] {
					at = at[p].(map[string]any)
				}
				last := parts[len(parts)-1]
				if _, ok := at[last]; !ok {
					t.Errorf("no %s", path)
				}
				delete(at, last)
			}
			data, err = json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(bytes.NewReader(data))
			dec.DisallowUnknownFields()
			if err := dec.Decode(row.into()); err != nil {
				t.Error(err)
			}
		})
	}
}

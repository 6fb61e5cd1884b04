package dynamodb

import (
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestSubjects_NameTablesAndIndexes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ operation, body, want string }{
		{"ListTables", `{}`, "dynamodb:ListTables *"},
		{"PutItem", `{"TableName":"t"}`, "dynamodb:PutItem table/t"},
		{"Query", `{"TableName":"t","IndexName":"i"}`, "dynamodb:Query table/t/index/i"},
		{"TagResource", `{"ResourceArn":"arn:aws:dynamodb:eu-west-1:9:table/t"}`, "dynamodb:TagResource table/t"},
		{"BatchWriteItem", `{"RequestItems":{"a":[],"arn:aws:dynamodb:eu-west-1:9:table/b":[]}}`, "dynamodb:BatchWriteItem table/a, dynamodb:BatchWriteItem table/b"},
		{"TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"a"}},{"Put":{"TableName":"a"}},{"ConditionCheck":{"TableName":"b"}}]}`, "dynamodb:ConditionCheckItem table/b, dynamodb:PutItem table/a"},
		{"TransactGetItems", `{}`, ""},
		{"GetRecords", `{"ShardIterator":"x"}`, ""},
		{"DescribeStream", `{"StreamArn":"arn:aws:dynamodb:us-east-1:1:table/t/stream/x"}`, "dynamodb:DescribeStream table/t/stream/x"},
	} {
		n, err := parseJSON([]byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range subjects(&wire.Call{Operation: c.operation, Region: "us-east-1", Caller: wire.Caller{Account: "1"}}, n) {
			got = append(got, s.Action+" "+strings.TrimPrefix(s.Resource, "arn:aws:dynamodb:us-east-1:1:"))
		}
		slices.Sort(got)
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: got %s", c.operation, text)
		}
	}
}

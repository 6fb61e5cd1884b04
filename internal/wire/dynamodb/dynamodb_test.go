package dynamodb_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/postgres"
	"github.com/ebb-run/ebb/internal/store/sqlite"
	"github.com/ebb-run/ebb/internal/testkit/pgserver"
	"github.com/ebb-run/ebb/internal/wire/dynamodb"
	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

type client struct {
	t *testing.T
	e *wiretest.Endpoint
	s store.Tables
}

// overPostgres has all tests and benchmarks of the package keep their tables in PostgreSQL.
var overPostgres = flag.Bool("dynamodb.postgres", false, "run over PostgreSQL instead of SQLite")

var server pgserver.Shared

func TestMain(m *testing.M) {
	code := m.Run()
	server.Stop()
	os.Exit(code)
}

// tables opens a store that the test has to itself.
func tables(t testing.TB) store.Tables {
	t.Helper()
	var s interface {
		store.Tables
		io.Closer
	}
	var err error
	if *overPostgres {
		pg := server.Get(t)
		s, err = postgres.Open(t.Context(), pg.URL(pg.Database(t)), postgres.Options{})
	} else {
		var o sqlite.Options
		if os.Getenv("EBB_BENCH_SEALED") != "" {
			o.Seal = seal.New().Box("tables")
		}
		s, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "tables.db"), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func serve(t *testing.T) *client {
	t.Helper()
	s := tables(t)
	return &client{t, wiretest.New(t, dynamodb.New(s), dynamodb.NewStreams(s)), s}
}

// call asks for an operation and returns what was answered.
func (c *client) call(op, body string) (status int, answer string) {
	c.t.Helper()
	target := "DynamoDB_20120810."
	switch op {
	case "ListStreams", "DescribeStream", "GetShardIterator", "GetRecords":
		target = "DynamoDBStreams_20120810."
	}
	resp, answer := c.e.JSON(c.t, "dynamodb", target+op, body)
	return resp.StatusCode, answer
}

// ok asks for what must be answered.
func (c *client) ok(op, body string) string {
	c.t.Helper()
	status, answer := c.call(op, body)
	if status != 200 {
		c.t.Fatalf("%s %s: %d %s", op, body, status, answer)
	}
	return answer
}

const things = `{"TableName":"things","BillingMode":"PAY_PER_REQUEST","AttributeDefinitions":[{"AttributeName":"h","AttributeType":"S"},{"AttributeName":"r","AttributeType":"N"},{"AttributeName":"g","AttributeType":"S"}],
"KeySchema":[{"AttributeName":"h","KeyType":"HASH"},{"AttributeName":"r","KeyType":"RANGE"}],
"LocalSecondaryIndexes":[{"IndexName":"local","KeySchema":[{"AttributeName":"h","KeyType":"HASH"},{"AttributeName":"g","KeyType":"RANGE"}],"Projection":{"ProjectionType":"KEYS_ONLY"}}],
"GlobalSecondaryIndexes":[{"IndexName":"global","KeySchema":[{"AttributeName":"g","KeyType":"HASH"},{"AttributeName":"r","KeyType":"RANGE"}],"Projection":{"ProjectionType":"INCLUDE","NonKeyAttributes":["x"]}}],
"StreamSpecification":{"StreamEnabled":true,"StreamViewType":"NEW_AND_OLD_IMAGES"}}`

func put(h string, r int, more string) string {
	return fmt.Sprintf(`{"TableName":"things","Item":{"h":{"S":%q},"r":{"N":"%d"}%s}}`, h, r, more)
}

func TestItems_KeepEveryKindOfValue(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.ok("CreateTable", things)
	const values = `"b":{"B":"AP8="},"bool":{"BOOL":false},"bs":{"BS":["AQ==","Ag=="]},"big":{"N":"12345678901234567890123456789012345678"},"l":{"L":[{"N":"1"},{"M":{"x":{"NULL":true}}}]},"ns":{"NS":["1","2.5"]},"s":{"S":"ü\"\n"},"ss":{"SS":["a"]},"small":{"N":"0.` + "00000001" + `"}`
	c.ok("PutItem", put("a", 1, ","+values))
	got := c.ok("GetItem", `{"TableName":"things","Key":{"h":{"S":"a"},"r":{"N":"1.0"}}}`)
	var a, b any
	if json.Unmarshal([]byte(got), &a) != nil || json.Unmarshal([]byte(`{"Item":{"h":{"S":"a"},"r":{"N":"1"},`+values+`}}`), &b) != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("got %s", got)
	}
	if got := c.ok("GetItem", `{"TableName":"arn:aws:dynamodb:eu-west-1:123456789012:table/things","Key":{"h":{"S":"none"},"r":{"N":"1"}}}`); got != "{}" {
		t.Errorf("an item that is not there: %s", got)
	}
}

func TestRequests_AreRefusedInDynamoDBsWords(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.ok("CreateTable", things)
	const validation = "com.amazon.coral.validate#ValidationException"
	for _, x := range []struct{ op, body, kind, message string }{
		{"GetItem", `{`, "com.amazon.coral.service#SerializationException", ""},
		{"GetItem", `{"TableName":5}`, "com.amazon.coral.service#SerializationException", "NUMBER_VALUE cannot be converted to String"},
		{"GetItem", `{"TableName":"a;"}`, validation, `3 validation errors detected: Value 'a;' at 'tableName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+; Value 'a;' at 'tableName' failed to satisfy constraint: Member must have length greater than or equal to 3; Value null at 'key' failed to satisfy constraint: Member must not be null`},
		{"GetItem", `{"TableName":"none","Key":{"h":{"S":"a"}}}`, "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "Requested resource not found"},
		{"DescribeTable", `{"TableName":"none"}`, "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "Requested resource not found: Table: none not found"},
		{"GetItem", `{"TableName":"things","Key":{"h":{"S":"a"}}}`, validation, "The provided key element does not match the schema"},
		{"PutItem", `{"TableName":"things","Item":{"h":{"S":"a"},"r":{"N":"x"}}}`, validation, "The parameter cannot be converted to a numeric value: x"},
		{"PutItem", `{"TableName":"things","Item":{"h":{"S":"a"},"r":{"N":"1e126"}}}`, validation, "Number overflow. Attempting to store a number with magnitude larger than supported range"},
		{"PutItem", `{"TableName":"things","Item":{"h":{"S":"a"}}}`, validation, "One or more parameter values were invalid: Missing the key r in the item"},
		{"PutItem", put("a", 1, `,"g":{"N":"1"}`), validation, "One or more parameter values were invalid: Type mismatch for Index Key g Expected: S Actual: N IndexName: local"},
		{"PutItem", put("a", 1, `,"x":{"S":"`+strings.Repeat("x", 410_000)+`"}`), validation, "Item size has exceeded the maximum allowed size"},
		{"PutItem", put("a", 1, `,"x":`+strings.Repeat(`{"L":[`, 40)+strings.Repeat(`]}`, 40)), validation, "Nesting Levels have exceeded supported limits"},
		{"UpdateItem", `{"TableName":"things","Key":{"h":{"S":"a"},"r":{"N":"1"}},"UpdateExpression":"SET h = :v","ExpressionAttributeValues":{":v":{"S":"x"}}}`, validation, "One or more parameter values were invalid: Cannot update attribute h. This attribute is part of the key"},
		{"UpdateItem", `{"TableName":"things","Key":{"h":{"S":"a"},"r":{"N":"1"}},"UpdateExpression":"SET v = :v"}`, validation, "Invalid UpdateExpression: An expression attribute value used in expression is not defined; attribute value: :v"},
		{"Query", `{"TableName":"things","KeyConditionExpression":"r = :v","ExpressionAttributeValues":{":v":{"N":"1"}}}`, validation, "Query condition missed key schema element: h"},
		{"Query", `{"TableName":"things","IndexName":"none","KeyConditionExpression":"h = :v","ExpressionAttributeValues":{":v":{"S":"1"}}}`, validation, "The table does not have the specified index: none"},
		{"Scan", `{"TableName":"things","Segment":1}`, validation, "The TotalSegments parameter is required but was not present in the request when Segment parameter is present"},
		{"CreateTable", things, "com.amazonaws.dynamodb.v20120810#ResourceInUseException", "Table already exists: things"},
		{"BatchGetItem", `{"RequestItems":{"things":{"Keys":[{"h":{"S":"a"},"r":{"N":"1"}},{"h":{"S":"a"},"r":{"N":"1.0"}}]}}}`, validation, "Provided list of item keys contains duplicates"},
	} {
		status, answer := c.call(x.op, x.body)
		var got map[string]string
		_ = json.Unmarshal([]byte(answer), &got)
		if status != 400 || got["__type"] != x.kind || got["message"]+got["Message"] != x.message {
			t.Errorf("%s %.80s: %d %s", x.op, x.body, status, answer)
		}
	}
}

func TestQuery_FollowsIndexesPageByPage(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.ok("CreateTable", things)
	for i := range 7 {
		c.ok("PutItem", put("a", i, fmt.Sprintf(`,"g":{"S":"g%d"},"x":{"N":"%d"},"y":{"S":"hidden"}`, i%2, i)))
	}
	var seen []string
	start := ""
	for range 10 {
		answer := c.ok("Query", `{"TableName":"things","IndexName":"global","KeyConditionExpression":"g = :g and r < :r","FilterExpression":"x <> :no","ExpressionAttributeValues":{":g":{"S":"g0"},":r":{"N":"6"},":no":{"N":"2"}},"ScanIndexForward":false,"Limit":1`+start+`}`)
		var got struct {
			Items               []map[string]map[string]string
			LastEvaluatedKey    json.RawMessage
			Count, ScannedCount int
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Fatal(err)
		}
		for _, it := range got.Items {
			seen = append(seen, it["r"]["N"])
			if len(it) != 4 {
				t.Errorf("the index shows %v", it)
			}
		}
		if got.LastEvaluatedKey == nil {
			break
		}
		start = `,"ExclusiveStartKey":` + string(got.LastEvaluatedKey)
	}
	if fmt.Sprint(seen) != "[4 0]" {
		t.Errorf("saw %v", seen)
	}
	whole := c.ok("Query", `{"TableName":"things","IndexName":"local","Select":"ALL_ATTRIBUTES","KeyConditions":{"h":{"ComparisonOperator":"EQ","AttributeValueList":[{"S":"a"}]},"g":{"ComparisonOperator":"BEGINS_WITH","AttributeValueList":[{"S":"g1"}]}}}`)
	if strings.Count(whole, "hidden") != 3 {
		t.Errorf("whole items of a local index: %s", whole)
	}
}

// Of many callers who put the same item if it is not there, one does.
func TestConditions_HoldAgainstOthers(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.ok("CreateTable", things)
	var won, lost atomic.Int32
	var group sync.WaitGroup
	for i := range 12 {
		group.Go(func() {
			body := strings.TrimSuffix(put("once", 1, fmt.Sprintf(`,"x":{"N":"%d"}`, i)), "}") + `,"ConditionExpression":"attribute_not_exists(h)","ReturnValuesOnConditionCheckFailure":"ALL_OLD"}`
			switch status, answer := c.call("PutItem", body); {
			case status == 200:
				won.Add(1)
			case strings.Contains(answer, "#ConditionalCheckFailedException") && strings.Contains(answer, `"Item":{"h":{"S":"once"}`):
				lost.Add(1)
			default:
				t.Error(answer)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 || lost.Load() != 11 {
		t.Errorf("%d put it, %d were told that it is there", won.Load(), lost.Load())
	}
}

func TestTransactions_AreWholeAndOnceForAToken(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.ok("CreateTable", things)
	item := func(h string) string { return `{"h":{"S":"` + h + `"},"r":{"N":"1"}}` }
	status, answer := c.call("TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"things","Item":`+item("a")+`}},{"ConditionCheck":{"TableName":"things","Key":`+item("b")+`,"ConditionExpression":"attribute_exists(h)"}}]}`)
	if status != 400 || !strings.Contains(answer, `"CancellationReasons":[{"Code":"None"},{"Code":"ConditionalCheckFailed","Message":"The conditional request failed"}]`) || !strings.Contains(answer, "specific reasons [None, ConditionalCheckFailed]") {
		t.Errorf("%d %s", status, answer)
	}
	add := func(by string) string {
		return `{"ClientRequestToken":"token","TransactItems":[{"Update":{"TableName":"things","Key":` + item("n") + `,"UpdateExpression":"ADD n :n","ExpressionAttributeValues":{":n":{"N":"` + by + `"}}}}]}`
	}
	c.ok("TransactWriteItems", add("1"))
	c.ok("TransactWriteItems", add("1"))
	if _, answer := c.call("TransactWriteItems", add("2")); !strings.Contains(answer, "IdempotentParameterMismatchException") {
		t.Errorf("another request with the token: %s", answer)
	}
	got := c.ok("TransactGetItems", `{"TransactItems":[{"Get":{"TableName":"things","Key":`+item("a")+`}},{"Get":{"TableName":"things","Key":`+item("n")+`}}]}`)
	if got != `{"Responses":[{},{"Item":{"h":{"S":"n"},"n":{"N":"1"},"r":{"N":"1"}}}]}` {
		t.Error(got)
	}
	if got := c.ok("ListTables", `{}`); got != `{"TableNames":["things"]}` {
		t.Errorf("what the service keeps for itself shows: %s", got)
	}
}

func TestStreams_TellEveryChangeInOrder(t *testing.T) {
	t.Parallel()
	c := serve(t)
	c.ok("CreateTable", things)
	var listed struct{ Streams []struct{ StreamArn string } }
	if err := json.Unmarshal([]byte(c.ok("ListStreams", `{"TableName":"things"}`)), &listed); err != nil || len(listed.Streams) != 1 {
		t.Fatalf("%+v %v", listed, err)
	}
	arn := listed.Streams[0].StreamArn
	var described struct {
		StreamDescription struct {
			StreamStatus string
			Shards       []struct {
				ShardID string `json:"ShardId"`
			}
		}
	}
	if err := json.Unmarshal([]byte(c.ok("DescribeStream", `{"StreamArn":"`+arn+`"}`)), &described); err != nil || len(described.StreamDescription.Shards) != 1 {
		t.Fatalf("%+v %v", described, err)
	}
	iterator := func(kind string) string {
		var got struct{ ShardIterator string }
		_ = json.Unmarshal([]byte(c.ok("GetShardIterator", `{"StreamArn":"`+arn+`","ShardId":"`+described.StreamDescription.Shards[0].ShardID+`","ShardIteratorType":"`+kind+`"}`)), &got)
		return got.ShardIterator
	}
	c.ok("PutItem", put("a", 1, ""))
	latest := iterator("LATEST")
	c.ok("PutItem", put("a", 1, `,"x":{"N":"2"}`))
	c.ok("DeleteItem", `{"TableName":"things","Key":{"h":{"S":"a"},"r":{"N":"1"}}}`)
	names := func(iterator string, limit int) (all []string, next string) {
		var got struct {
			Records []struct {
				EventName string `json:"eventName"`
			}
			NextShardIterator string
		}
		_ = json.Unmarshal([]byte(c.ok("GetRecords", fmt.Sprintf(`{"ShardIterator":%q,"Limit":%d}`, iterator, limit))), &got)
		for _, r := range got.Records {
			all = append(all, r.EventName)
		}
		return all, got.NextShardIterator
	}
	first, next := names(iterator("TRIM_HORIZON"), 2)
	rest, _ := names(next, 10)
	if fmt.Sprint(first, rest) != "[INSERT MODIFY] [REMOVE]" {
		t.Errorf("%v %v", first, rest)
	}
	if late, _ := names(latest, 10); fmt.Sprint(late) != "[MODIFY REMOVE]" {
		t.Errorf("from the latest: %v", late)
	}
	if status, answer := c.call("GetRecords", `{"ShardIterator":"xx"}`); status != 400 || !strings.Contains(answer, "Invalid ShardIterator") {
		t.Errorf("%d %s", status, answer)
	}
}

func TestDeclared_ReadsTemplates(t *testing.T) {
	t.Parallel()
	got, err := dynamodb.Declared("orders", []byte(`{"AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],"KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],
		"ProvisionedThroughput":{"ReadCapacityUnits":"5","WriteCapacityUnits":1},"StreamSpecification":{"StreamViewType":"KEYS_ONLY"},"TimeToLiveSpecification":{"AttributeName":"ttl","Enabled":"true"},
		"SSESpecification":{"SSEEnabled":true},"PointInTimeRecoverySpecification":{"PointInTimeRecoveryEnabled":true},"Tags":[{"Key":"Enabled","Value":"x"}]}`))
	if err != nil || got.Name != "orders" || got.Reads != 5 || got.View != store.KeysOnly || got.TTL != "ttl" || got.Tags["Enabled"] != "x" || got.Key.Hash != (store.Attr{Name: "id", Kind: store.S}) {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := dynamodb.Declared("orders", []byte(`{"KeySchema":[{"AttributeName":"id","KeyType":"HASH"}]}`)); err == nil || !strings.Contains(err.Error(), "attributeDefinitions") {
		t.Errorf("without definitions: %v", err)
	}
}

func TestUnsigned_RequestsAreToldAllThatIsMissing(t *testing.T) {
	t.Parallel()
	c := serve(t)
	for _, x := range []struct{ op, path, authorization, want string }{
		{"ListTables", "/", "", `{"__type":"com.amazon.coral.service#MissingAuthenticationTokenException","message":"Request is missing Authentication Token"}`},
		{"ListTable", "/", "", `{"__type":"com.amazon.coral.service#UnknownOperationException"}`},
		{"ListTables", "/", "AWS4- Signature=b,Credential=a", `{"__type":"com.amazon.coral.service#IncompleteSignatureException","message":"Authorization header requires 'SignedHeaders' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=AWS4- Signature=b,Credential=a"}`},
		{"ListTables", "/?X-Amz-Algorithm=a&X-Amz-Credential=b&X-Amz-Signature=c&X-Amz-Date=d", "", `{"__type":"com.amazon.coral.service#IncompleteSignatureException","message":"AWS query-string parameters must include 'X-Amz-SignedHeaders'. Re-examine the query-string parameters."}`},
		{"ListTables", "/?X-Amz-Algorithm", "X", `{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."}`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.e.URL+x.path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+x.op)
		if x.authorization != "" {
			r.Header.Set("Authorization", x.authorization)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 400 || string(body) != x.want {
			t.Errorf("%s %s: %d %s", x.op, x.path, resp.StatusCode, body)
		}
	}
}

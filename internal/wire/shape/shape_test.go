package shape_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/wire/shape"
)

func names(t testing.TB) (list []string) {
	t.Helper()
	files, err := os.ReadDir("tables")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		list = append(list, strings.TrimSuffix(f.Name(), ".json"))
	}
	return list
}

func bind(t testing.TB, table, operation string, in, out any) *shape.Codec {
	t.Helper()
	tab, err := shape.Load(table)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tab.Bind(operation, reflect.TypeOf(in), reflect.TypeOf(out))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBind_TakesEveryOperationOfEveryTable(t *testing.T) {
	t.Parallel()
	for _, name := range names(t) {
		tab, err := shape.Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		loose := func(r *shape.Ref) reflect.Type {
			if r == nil {
				return nil
			}
			return reflect.TypeFor[map[string]any]()
		}
		for op, o := range tab.Operations {
			if o.HTTP.Method == "" {
				continue
			}
			if _, err := tab.Bind(op, loose(o.Input), loose(o.Output)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestBind_RefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	tab, err := shape.Load("sqs")
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]any{
		"no member": struct{ Nope string }{}, "kind": struct{ QueueUrl int }{}, "kind within": struct{ MessageAttributes map[string]string }{},
	} {
		if _, err := tab.Bind("SendMessage", reflect.TypeOf(in), nil); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if _, err := tab.Bind("Frobnicate", nil, nil); err == nil {
		t.Error("an unknown operation is taken")
	}
}

type item struct {
	S  *string
	N  *string
	B  []byte
	SS []string
	L  []item
	M  map[string]item
}

type put struct {
	TableName    string
	Item         map[string]item
	ReturnValues string
}

func TestRead_JSON(t *testing.T) {
	t.Parallel()
	c := bind(t, "dynamodb", "PutItem", put{}, struct{}{})
	for _, k := range []struct{ name, body, want string }{
		{"whole", `{"TableName":"t","Item":{"a":{"S":"x\u00e4\n"},"b":{"B":"AP8="},"c":{"L":[{"N":"1"},{"M":{"d":{"SS":["p","q"]}}}]}},"Other":{"x":[1,2,{"y":null}]}}`, ""},
		{"nulls", `{"TableName":"t","Item":{"a":{"S":"x","N":null}},"ReturnValues":null}`, ""},
		{"missing", `{"Item":{}}`, "1 validation error detected: Value null at 'tableName' failed to satisfy constraint: Member must not be null"},
		{"empty", ``, "2 validation errors detected: Value null at 'tableName' failed to satisfy constraint: Member must not be null; Value null at 'item' failed"},
		{"enum", `{"TableName":"ttt","Item":{},"ReturnValues":"X"}`, "Value 'X' at 'returnValues' failed to satisfy constraint: Member must satisfy enum value set: ["},
		{"number for text", `{"TableName":5}`, "NUMBER_VALUE cannot be converted to String"},
		{"text for structure", `{"TableName":"t","Item":"x"}`, "Unexpected field type"},
		{"list for structure", `{"TableName":"t","Item":[]}`, "Unrecognized collection type java.util.Map"},
		{"bad base64", `{"TableName":"t","Item":{"a":{"B":"%"}}}`, `"%" is no base64`},
		{"cut", `{"TableName":"t`, "A string has no end"},
		{"two documents", `{"TableName":"t","Item":{}}{}`, "the request had ended"},
		{"comma", `{"TableName":"t",}`, "Unexpected token"},
		{"deep", `{"TableName":"t","Item":{"a":` + strings.Repeat(`{"L":[`, 200), "nested too deep"},
		{"deep unknown", `{"X":` + strings.Repeat(`[`, 200), "nested too deep"},
		{"zero first", `{"X":01}`, "Unexpected token"},
	} {
		var in put
		err := c.Read(&shape.Request{Protocol: shape.JSON, Body: []byte(k.body), Strict: true}, &in)
		if k.want == "" && (err != nil || in.TableName != "t") || k.want != "" && (err == nil || !strings.Contains(err.Error(), k.want)) {
			t.Errorf("%s: %v, want %q", k.name, err, k.want)
		}
		if k.name == "whole" && (*in.Item["a"].S != "xä\n" || string(in.Item["b"].B) != "\x00\xff" || *in.Item["c"].L[0].N != "1" || in.Item["c"].L[1].M["d"].SS[1] != "q") {
			t.Errorf("read %+v", in)
		}
	}
}

func TestWrite_JSONIsWhatEncodingJSONReads(t *testing.T) {
	t.Parallel()
	type out struct{ Attributes map[string]item }
	c := bind(t, "dynamodb", "PutItem", struct{}{}, out{})
	text := "a\"\\\x00\x1f\u2028 ä\xff€"
	a, err := c.Write(shape.JSON, &out{map[string]item{"k": {S: &text, B: []byte{0, 255}, L: []item{}}}}, "id")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Attributes map[string]struct{ S, B string }
	}
	if err := json.Unmarshal(a.Body, &got); err != nil || got.Attributes["k"].S != strings.ToValidUTF8(text, "\ufffd") || got.Attributes["k"].B != "AP8=" || !strings.Contains(string(a.Body), `"L":[]`) {
		t.Errorf("%s: %v", a.Body, err)
	}
}

func TestRoute_FindsOperationsOfBuckets(t *testing.T) {
	t.Parallel()
	tab, err := shape.Load("s3")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, query, header, want string }{
		{"GET", "/", "", "", "ListBuckets"}, {"GET", "/b", "", "", "ListObjects"}, {"GET", "/b/", "list-type=2", "", "ListObjectsV2"}, {"PUT", "/b", "", "", "CreateBucket"},
		{"GET", "/b/a/b%20c", "", "", "GetObject"}, {"GET", "/b/k", "acl", "", "GetObjectAcl"}, {"GET", "/b/k", "uploadId=x", "", "ListParts"}, {"PUT", "/b/k", "", "", "PutObject"},
		{"PUT", "/b/k", "", "X-Amz-Copy-Source", "CopyObject"}, {"PUT", "/b/k", "partNumber=1&uploadId=x", "", "UploadPart"}, {"PUT", "/b/k", "partNumber=1&uploadId=x", "X-Amz-Copy-Source", "UploadPartCopy"},
		{"POST", "/b", "delete", "", "DeleteObjects"}, {"POST", "/b/k", "uploads", "", "CreateMultipartUpload"}, {"POST", "/b/k", "uploadId=x", "", "CompleteMultipartUpload"},
		{"DELETE", "/b/k", "uploadId=x", "", "AbortMultipartUpload"}, {"DELETE", "/b/k", "", "", "DeleteObject"}, {"HEAD", "/b", "", "", "HeadBucket"}, {"HEAD", "/b/k", "", "", "HeadObject"},
		{"PUT", "/b", "notification", "", "PutBucketNotificationConfiguration"}, {"GET", "/b", "lifecycle", "", "GetBucketLifecycleConfiguration"}, {"GET", "/b", "location", "", "GetBucketLocation"},
		{"GET", "/b", "versions", "", "ListObjectVersions"}, {"GET", "/b/k", "x-id=GetObject", "", "GetObject"},
	} {
		q, _ := url.ParseQuery(c.query)
		h := http.Header{}
		if c.header != "" {
			h.Set(c.header, "x")
		}
		op, labels := tab.Route(c.method, c.path, q, h)
		if op == nil || op.Name != c.want {
			t.Errorf("%s %s?%s: %v, want %s", c.method, c.path, c.query, op, c.want)
		} else if c.path == "/b/a/b%20c" && (labels["Bucket"] != "b" || labels["Key"] != "a/b c") {
			t.Errorf("labels %v", labels)
		}
	}
}

func TestRead_RestXML(t *testing.T) {
	t.Parallel()
	type object struct{ Key, VersionId string }
	type remove struct {
		Bucket string
		Delete struct {
			Objects []object
			Quiet   bool
		}
	}
	c := bind(t, "s3", "DeleteObjects", remove{}, struct{}{})
	body := `<?xml version="1.0"?><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key> a&amp;b </Key></Object><Object><Key>c</Key><VersionId>v</VersionId></Object><Quiet>true</Quiet></Delete>`
	var in remove
	err := c.Read(&shape.Request{Protocol: shape.RESTXML, Labels: map[string]string{"Bucket": "b"}, Body: []byte(body), Header: http.Header{}}, &in)
	if err != nil || in.Bucket != "b" || len(in.Delete.Objects) != 2 || in.Delete.Objects[0].Key != " a&b " || in.Delete.Objects[1].VersionId != "v" || !in.Delete.Quiet {
		t.Errorf("%+v %v", in, err)
	}
	for _, bad := range []string{"<Delete>", "x", "<Delete></Other>", "<Delete/><Delete/>", strings.Repeat("<a>", 300), "<Delete><Quiet>maybe</Quiet></Delete>"} {
		var f *shape.Fault
		if err := c.Read(&shape.Request{Protocol: shape.RESTXML, Labels: map[string]string{"Bucket": "b"}, Body: []byte(bad), Header: http.Header{}}, new(remove)); !errors.As(err, &f) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestWrite_RestXML(t *testing.T) {
	t.Parallel()
	type object struct {
		Key          string
		Size         *int64
		LastModified time.Time
	}
	type list struct {
		_        struct{} `wire:",root=ListBucketResult"`
		Name     string
		Contents []object
	}
	c := bind(t, "s3", "ListObjectsV2", struct{}{}, list{})
	n := int64(0)
	a, err := c.Write(shape.RESTXML, &list{Name: "b", Contents: []object{{"a<b", &n, time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)}}}, "id")
	want := `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Contents><Key>a&lt;b</Key><Size>0</Size><LastModified>2026-01-02T03:04:05.006Z</LastModified></Contents></ListBucketResult>`
	if err != nil || !strings.HasSuffix(string(a.Body), want) {
		t.Errorf("%s %v", a.Body, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("dynamodb", "PutItem", `{"TableName":"t","Item":{"a":{"L":[{"S":"x"}]}}}`)
	f.Add("s3", "DeleteObjects", `<Delete><Object><Key>a</Key></Object></Delete>`)
	f.Add("sns", "Publish", `MessageAttributes.entry.1.Name=a&MessageAttributes.entry.1.Value.DataType=String`)
	f.Add("lambda", "CreateFunction", `{"FunctionName":"f","Code":{"ZipFile":"AA=="}}`)
	f.Fuzz(func(t *testing.T, table, operation, body string) {
		tab, err := shape.Load(table)
		if err != nil {
			return
		}
		o := tab.Operations[operation]
		if o == nil || o.Input == nil || o.HTTP.Method == "" {
			return
		}
		c, err := tab.Bind(operation, reflect.TypeFor[map[string]any](), nil)
		if err != nil {
			return
		}
		q, _ := url.ParseQuery(body)
		for _, p := range []shape.Protocol{tab.Metadata.Protocol, shape.Query, shape.JSON} {
			var in map[string]any
			err := c.Read(&shape.Request{Protocol: p, Query: q, Header: http.Header{}, Body: []byte(body), Strict: true}, &in)
			var fault *shape.Fault
			if err != nil && !errors.As(err, &fault) {
				t.Errorf("an error that is no Fault: %v", err)
			}
		}
	})
}

// What an answer says comes back from it, in every protocol, whatever characters it has that the protocol can write.
func FuzzWrite(f *testing.F) {
	for _, text := range []string{"", "text", "<a>&\"'", "]]>", "\u2028 \r\n\t", "\x01", "\xff", "\U0001f600", "\ufffe"} {
		f.Add(text, text)
	}
	type message struct {
		Body       string
		Attributes map[string]string
	}
	type out struct{ Messages []message }
	tab, err := shape.Load("sqs")
	if err != nil {
		f.Fatal(err)
	}
	c, err := tab.Bind("ReceiveMessage", nil, reflect.TypeFor[out]())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body, key string) {
		answer := &out{[]message{{"x" + body, map[string]string{"k" + key: body}}}}
		a, err := c.Write(shape.JSON, answer, "id")
		if err != nil {
			t.Fatal(err)
		}
		var got out
		if err := json.Unmarshal(a.Body, &got); err != nil {
			t.Errorf("%q: %v", a.Body, err)
		} else if utf8.ValidString(body+key) && !reflect.DeepEqual(&got, answer) {
			t.Errorf("%+v became %+v", answer, got)
		}
		if a, err = c.Write(shape.Query, answer, "id"); err != nil {
			t.Fatal(err)
		}
		var text struct {
			Messages []struct {
				Body      string
				Attribute struct{ Name, Value string }
			} `xml:"ReceiveMessageResult>Message"`
		}
		if strings.ContainsFunc(body+key, unwritable) {
			return // AWS writes references to such characters, which readers of XML 1.0 refuse
		}
		if err := xml.Unmarshal(a.Body, &text); err != nil {
			t.Errorf("%q: %v", a.Body, err)
		} else if m := text.Messages[0]; m.Body != "x"+body || m.Attribute.Name != "k"+key || m.Attribute.Value != body {
			t.Errorf("%+v became %+v", answer, m)
		}
	})
}

// unwritable says whether XML 1.0 has no way to write a character: section 2.2, "Characters". Bytes that are no UTF-8 are told by their replacement.
func unwritable(c rune) bool {
	return c < 0x20 && c != '\t' && c != '\n' && c != '\r' || c == 0xfffe || c == 0xffff || c == utf8.RuneError
}

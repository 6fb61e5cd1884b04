package dynamodb

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"hash/crc32"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// Error codes carry the name of the part of AWS that found the fault.
const (
	ofModel    = "com.amazonaws.dynamodb.v20120810#"
	ofValidate = "com.amazon.coral.validate#"
	ofService  = "com.amazon.coral.service#"
)

// service is the API over tables.
type service struct {
	tables store.Tables
	now    func() time.Time
}

// call is one request: who sends it, and its parameters after their check.
type call struct {
	*wire.Call
	n *node
}

// tenant is whose tables a call is about.
func (c *call) tenant() string { return c.Caller.Tenant }

func (c *call) arn(table string) string {
	return "arn:aws:dynamodb:" + c.Region + ":" + c.Caller.Account + ":table/" + table
}

// New returns the service over tables.
func New(tables store.Tables) *wire.Service {
	s := &service{tables: tables, now: time.Now}
	ops := map[string]struct {
		fields []field
		run    func(context.Context, *call) ([]byte, error)
	}{
		"GetItem":            {getItemShape, s.getItem},
		"PutItem":            {putItemShape, s.putItem},
		"DeleteItem":         {deleteItemShape, s.deleteItem},
		"UpdateItem":         {updateItemShape, s.updateItem},
		"Query":              {queryShape, s.query},
		"Scan":               {scanShape, s.scan},
		"BatchGetItem":       {batchGetShape, s.batchGet},
		"BatchWriteItem":     {batchWriteShape, s.batchWrite},
		"TransactGetItems":   {transactGets, s.transactGet},
		"TransactWriteItems": {transactWrites, s.transactWrite},

		"CreateTable":        {createTableShape, s.createTable},
		"UpdateTable":        {updateTableShape, s.updateTable},
		"DescribeTable":      {aTableShape, s.describeTable},
		"DeleteTable":        {aTableShape, s.deleteTable},
		"ListTables":         {listTablesShape, s.listTables},
		"DescribeTimeToLive": {aTableShape, s.describeTTL},
		"UpdateTimeToLive":   {ttlShape, s.updateTTL},
		"TagResource":        {tagShape, s.tag},
		"UntagResource":      {untagShape, s.untag},
		"ListTagsOfResource": {tagsOfShape, s.tagsOf},

		"ExecuteStatement":      {statementShape, s.executeStatement},
		"BatchExecuteStatement": {statementsShape, s.batchExecute},
		"ExecuteTransaction":    {statementTxShape, s.executeTransaction},

		"DescribeLimits":            {nothingShape, s.describeLimits},
		"DescribeEndpoints":         {nothingShape, s.describeEndpoints},
		"DescribeContinuousBackups": {aTableShape, s.describeBackups},
	}
	w := &wire.Service{Name: "dynamodb", TypePrefix: ofModel, Operations: map[string]wire.Operation{}, Render: renderError, Translate: translate, Prepare: prepareCall}
	for name, op := range ops {
		w.Operations[name] = operation(op.fields, op.run)
	}
	return w
}

// prepareCall gives a request an ID of DynamoDB's form, and lets pages of any origin read the answer, as AWS does.
func prepareCall(c *wire.Call) {
	c.RequestID = rand.Text() + rand.Text()
	if c.Request.Header.Get("Origin") != "" {
		c.Header.Set("Access-Control-Allow-Origin", "*")
	}
}

// operation reads a request by its shape and answers with a body that run wrote.
func operation(fields []field, run func(context.Context, *call) ([]byte, error)) wire.Operation {
	return wire.Raw(false, func(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
		n, err := parseJSON(c.Body)
		if err != nil || n.kind != 'o' {
			return nil, &serialization{}
		}
		byARN(n)
		if err := fitFields(n, fields); err != nil {
			return nil, err
		}
		if err := check(n, fields); err != nil {
			return nil, err
		}
		about := subjects(c, n)
		if err := c.Allow(ctx, about...); err != nil {
			return nil, err
		}
		if err := c.Begin(ctx, about...); err != nil {
			return nil, err
		}
		body, err := run(ctx, &call{c, n})
		if err != nil {
			return nil, err
		}
		return &shape.Answer{Status: http.StatusOK, Header: header(c, body), Body: body}, nil
	})
}

// byARN replaces the ARN of a table by its name: any account and region mean the caller's own.
func byARN(n *node) {
	if m := n.get("TableName"); m != nil && strings.HasPrefix(m.text, "arn:") {
		if _, name, ok := strings.Cut(m.text, ":table/"); ok {
			m.text, _, _ = strings.Cut(name, "/")
		}
	}
}

func header(c *wire.Call, body []byte) http.Header {
	kind := "application/json"
	if strings.HasPrefix(c.Request.Header.Get("Content-Type"), "application/x-amz-json-1.0") {
		kind = "application/x-amz-json-1.0"
	}
	return http.Header{"Content-Type": {kind}, "X-Amz-Crc32": {strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10)}}
}

// renderError writes an error with the part of AWS that it comes from.
func renderError(c *wire.Call, e *wire.Error) *shape.Answer {
	if code, msg, ok := unsigned(c, e); ok {
		e = wire.Errorf(code, "%s", msg)
	}
	prefix, message := ofModel, "message"
	switch e.Code {
	case "ValidationException":
		prefix = ofValidate
	case "SerializationException", "AccessDeniedException":
		prefix, message = ofService, "Message"
	case "UnknownOperationException", "InvalidSignatureException", "MissingAuthenticationTokenException", "IncompleteSignatureException", "UnrecognizedClientException", "ExpiredTokenException":
		prefix = ofService
	}
	b := quote([]byte(`{"__type":`), prefix+e.Code)
	if e.Message != "" || prefix == ofModel {
		b = quote(append(quote(append(b, ','), message), ':'), e.Message)
	}
	for k, v := range e.Fields {
		b = append(quote(append(b, ','), k), ':')
		if raw, ok := v.(shape.JSONText); ok {
			b = append(b, raw...)
		}
	}
	b = append(b, '}')
	status := e.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	return &shape.Answer{Status: status, Header: header(c, b), Body: b}
}

// translate gives the store's errors and the checks' the names that clients know.
func translate(_ *wire.Call, err error) *wire.Error {
	var form *serialization
	if errors.As(err, &form) {
		return wire.Errorf("SerializationException", "%s", form.msg)
	}
	var bad *invalid
	if errors.As(err, &bad) {
		return wire.Errorf("ValidationException", "%s", bad.msg)
	}
	switch errs.CodeOf(err) {
	case errs.NotFound:
		return wire.Errorf("ResourceNotFoundException", "Requested resource not found")
	case errs.Exists:
		return wire.Errorf("ResourceInUseException", "")
	case errs.Unsupported:
		return wire.Errorf("ValidationException", "%s", err)
	case errs.Unavailable:
		return wire.Errorf("InternalServerError", "The tables cannot be written now. %s", errs.HintOf(err)).With(http.StatusInternalServerError)
	}
	return nil
}

// fail is a request that breaks a rule.
func fail(msg string) error { return &invalid{msg} }

// table describes the table that a call names.
func (s *service) table(ctx context.Context, c *call) (store.Table, error) {
	return s.tables.Table(ctx, c.tenant(), c.n.str("TableName"))
}

// described writes what encoding/json makes of a value, without its escapes for HTML.
func described(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

// seconds is a time as the JSON protocol has it.
type seconds time.Time

func (t seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Time(t).UnixMilli())/1000, 'f', 3, 64), nil
}

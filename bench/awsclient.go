package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebb-run/ebb/internal/wire/sign"
)

// awsServer is a contender that answers on AWS's wire.
type awsServer struct {
	*server
	endpoint    string // http://host:port
	credentials sign.Credentials
	passing     func() (publisher, error) // what passes messages, where JSON is not spoken
}

// awsClient calls one server over as many connections as there are callers. Every request is signed, as the SDKs do it.
type awsClient struct {
	s    *awsServer
	http *http.Client
}

func (s *awsServer) client() *awsClient {
	t := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}
	return &awsClient{s, &http.Client{Transport: t}}
}

const awsRegion = "us-east-1"

// send makes one call and hands the answer's body, of a status below 300, to take.
func (c *awsClient) send(r *http.Request, body []byte, service string, take func(io.Reader) error) error {
	sign.Sign(r, body, c.s.credentials, awsRegion, service, time.Now())
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 300))
		return fmt.Errorf("%s: %s", answer.Status, text)
	}
	return take(answer.Body)
}

// call speaks one of the JSON protocols.
func (c *awsClient) call(service, target, version string, in any, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequest(http.MethodPost, c.s.endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-"+version)
	r.Header.Set("X-Amz-Target", target)
	return c.send(r, body, service, func(answer io.Reader) error {
		if out == nil {
			_, err := io.Copy(io.Discard, answer)
			return err
		}
		return json.NewDecoder(answer).Decode(out)
	})
}

func (c *awsClient) dynamo(operation string, in, out any) error {
	return c.call("dynamodb", "DynamoDB_20120810."+operation, "1.0", in, out)
}

type (
	object map[string]any
	row    struct{ key, at int64 } // an Item: hash key and range key
)

// rowNumber gives each hash key rowsEach Items.
func rowNumber(n int64) row { return row{n / rowsEach, n % rowsEach} }

func (r row) keys() object {
	return object{"pk": object{"S": "user#" + strconv.FormatInt(r.key, 10)}, "at": object{"N": strconv.FormatInt(r.at, 10)}}
}

// item has about 200 bytes.
func (r row) item() object {
	it := r.keys()
	it["name"] = object{"S": "Ann Example"}
	it["count"] = object{"N": strconv.FormatInt(r.key*31+r.at, 10)}
	it["done"] = object{"BOOL": r.at%2 == 0}
	it["text"] = object{"S": filler[:140]}
	return it
}

const benchTable = "bench"

func (c *awsClient) makeTable(ctx context.Context) error {
	err := c.dynamo("CreateTable", object{
		"TableName": benchTable, "BillingMode": "PAY_PER_REQUEST",
		"AttributeDefinitions": []object{{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "at", "AttributeType": "N"}},
		"KeySchema":            []object{{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}},
	}, nil)
	for deadline := time.Now().Add(soon); err == nil; {
		var out struct {
			Table struct{ TableStatus string }
		}
		if err = c.dynamo("DescribeTable", object{"TableName": benchTable}, &out); err == nil && out.Table.TableStatus == "ACTIVE" {
			return nil
		}
		if err = c.s.pause(ctx, deadline, 10*time.Millisecond); err != nil {
			return fmt.Errorf("the table is %s: %w", out.Table.TableStatus, err)
		}
	}
	return err
}

// fill writes Items in batches of 25 from 8 callers and gives how many a second.
func (c *awsClient) fill(items int) (float64, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	failed := make([]error, 8)
	begun := time.Now()
	for i := range failed {
		wg.Go(func() {
			for {
				from := next.Add(25) - 25
				if from >= int64(items) {
					return
				}
				var puts []object
				for n := from; n < min(from+25, int64(items)); n++ {
					puts = append(puts, object{"PutRequest": object{"Item": rowNumber(n).item()}})
				}
				var out struct{ UnprocessedItems map[string]any }
				failed[i] = c.dynamo("BatchWriteItem", object{"RequestItems": object{benchTable: puts}}, &out)
				if failed[i] == nil && len(out.UnprocessedItems) > 0 {
					failed[i] = errors.New("items were not processed")
				}
				if failed[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return float64(items) / time.Since(begun).Seconds(), firstOf(failed)
}

func (c *awsClient) putItem(r row) error {
	return c.dynamo("PutItem", object{"TableName": benchTable, "Item": r.item()}, nil)
}

func (c *awsClient) getItem(r row) error {
	var out struct{ Item map[string]any }
	err := c.dynamo("GetItem", object{"TableName": benchTable, "Key": r.keys()}, &out)
	if err == nil && len(out.Item) == 0 {
		err = errors.New("the item is not there")
	}
	return err
}

func (c *awsClient) query(key int64, want int) error {
	var out struct{ Count int }
	err := c.dynamo("Query", object{"TableName": benchTable, "KeyConditionExpression": "pk = :k", "ExpressionAttributeValues": object{":k": row{key: key}.keys()["pk"]}}, &out)
	if err == nil && out.Count != want {
		err = fmt.Errorf("%d items, want %d", out.Count, want)
	}
	return err
}

const benchBucket = "bench-bucket"

func (c *awsClient) s3(method, key string, body []byte, take func(io.Reader) error) error {
	r, err := http.NewRequest(method, c.s.endpoint+"/"+benchBucket+key, bytes.NewReader(body))
	if err != nil {
		return err
	}
	return c.send(r, body, "s3", take)
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func (c *awsClient) makeBucket() error { return c.s3(http.MethodPut, "", nil, discard) }

func (c *awsClient) putObject(key string, body []byte) error {
	return c.s3(http.MethodPut, "/"+key, body, discard)
}

func (c *awsClient) getObject(key string, want int64) error {
	return c.s3(http.MethodGet, "/"+key, nil, func(r io.Reader) error {
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != want {
			err = fmt.Errorf("%d bytes, want %d", n, want)
		}
		return err
	})
}

// putLarge puts an object in parts of 64 MiB.
func (c *awsClient) putLarge(key string, size int64) error {
	var made struct{ id string }
	if err := c.s3(http.MethodPost, "/"+key+"?uploads=", nil, func(r io.Reader) error {
		text, err := io.ReadAll(r)
		made.id = between(string(text), "<UploadId>", "</UploadId>")
		return err
	}); err != nil {
		return err
	}
	part := bytes.Repeat(megabyte()[:1<<19], 128)
	var list strings.Builder
	for n := int64(0); n*int64(len(part)) < size; n++ {
		body := part[:min(int64(len(part)), size-n*int64(len(part)))]
		tag, err := c.putPart(key, made.id, n+1, body)
		if err != nil {
			return err
		}
		fmt.Fprintf(&list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n+1, tag)
	}
	return c.s3(http.MethodPost, "/"+key+"?uploadId="+made.id, []byte("<CompleteMultipartUpload>"+list.String()+"</CompleteMultipartUpload>"), discard)
}

func (c *awsClient) putPart(key, upload string, n int64, body []byte) (tag string, err error) {
	r, err := http.NewRequest(http.MethodPut, fmt.Sprintf("%s/%s/%s?partNumber=%d&uploadId=%s", c.s.endpoint, benchBucket, key, n, upload), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	sign.Sign(r, body, c.s.credentials, awsRegion, "s3", time.Now())
	answer, err := c.http.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("part %d: %s: %.300s", n, answer.Status, text)
	}
	return answer.Header.Get("ETag"), nil
}

// between gives the text between two others.
func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	found, _, _ := strings.Cut(rest, after)
	return found
}

func (c *awsClient) sqs(operation string, in, out any) error {
	return c.call("sqs", "AmazonSQS."+operation, "1.0", in, out)
}

func (c *awsClient) makeQueue() (string, error) {
	var out struct{ QueueUrl string }
	err := c.sqs("CreateQueue", object{"QueueName": "bench"}, &out)
	return out.QueueUrl, err
}

// passMessage sends one, receives one, and deletes that.
func (c *awsClient) passMessage(queue, text string) error {
	if err := c.sqs("SendMessage", object{"QueueUrl": queue, "MessageBody": text}, nil); err != nil {
		return err
	}
	var out struct {
		Messages []struct{ ReceiptHandle string }
	}
	for range 5 { // what another caller takes may be what this one sent, which waits for one that is on its way then
		if err := c.sqs("ReceiveMessage", object{"QueueUrl": queue, "MaxNumberOfMessages": 1, "WaitTimeSeconds": 1}, &out); err != nil {
			return err
		}
		if len(out.Messages) > 0 {
			return c.sqs("DeleteMessage", object{"QueueUrl": queue, "ReceiptHandle": out.Messages[0].ReceiptHandle}, nil)
		}
	}
	return errNoMessage
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	evtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	kintypes "github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// inside sends a message as a function does.
func inside(ctx context.Context) (string, error) {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return "", err
	}
	return v2Queue(ctx, c, "inside2")
}

// byV2 does a round of every service with version 2 of the SDK.
func byV2(ctx context.Context, url, key, secret string) error {
	c, err := config.LoadDefaultConfig(ctx, config.WithRegion("eu-west-1"), config.WithBaseEndpoint(url), config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(key, secret, "")))
	if err != nil {
		return err
	}
	c.RetryMaxAttempts = 1
	return all(
		func() error { _, err := v2Queue(ctx, c, "go-v2"); return err },
		func() error { return v2Table(ctx, c) }, func() error { return v2Bucket(ctx, c) },
		func() error {
			who, err := sts.NewFromConfig(c).GetCallerIdentity(ctx, nil)
			return expect(err, err == nil && aws.ToString(who.Arn) != "", who)
		},
		func() error {
			n := sns.NewFromConfig(c)
			t, err := n.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String("go-v2")})
			if err != nil {
				return err
			}
			p, err := n.Publish(ctx, &sns.PublishInput{TopicArn: t.TopicArn, Message: aws.String("m")})
			return expect(err, err == nil && aws.ToString(p.MessageId) != "", p)
		},
		func() error { return v2Stream(ctx, c) },
		func() error {
			p := ssm.NewFromConfig(c)
			if _, err := p.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/go/v2"), Value: aws.String("v"), Type: ssmtypes.ParameterTypeSecureString}); err != nil {
				return err
			}
			got, err := p.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/go/v2"), WithDecryption: aws.Bool(true)})
			return expect(err, err == nil && *got.Parameter.Value == "v", got)
		},
		func() error {
			m := secretsmanager.NewFromConfig(c)
			if _, err := m.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: aws.String("go-v2"), SecretBinary: []byte{0, 255}}); err != nil {
				return err
			}
			v, err := m.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: aws.String("go-v2")})
			return expect(err, err == nil && bytes.Equal(v.SecretBinary, []byte{0, 255}), v)
		},
		func() error {
			r, err := eventbridge.NewFromConfig(c).PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []evtypes.PutEventsRequestEntry{{Source: aws.String("go"), DetailType: aws.String("t"), Detail: aws.String("{}"), Time: aws.Time(time.Now())}}})
			return expect(err, err == nil && r.FailedEntryCount == 0 && len(r.Entries) == 1, r)
		},
		func() error {
			_, err := scheduler.NewFromConfig(c).GetSchedule(ctx, &scheduler.GetScheduleInput{Name: aws.String("none")})
			return failsV2(err, "ResourceNotFoundException")
		},
		func() error {
			_, err := lambda.NewFromConfig(c).Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("none")})
			return failsV2(err, "ResourceNotFoundException")
		},
		func() error { return v2Logs(ctx, c) },
	)
}

func v2Queue(ctx context.Context, cfg aws.Config, name string) (string, error) {
	c := sqs.NewFromConfig(cfg)
	q, err := c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		return "", err
	}
	if _, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: q.QueueUrl, MessageBody: aws.String("by v2 ☃")}); err != nil { // it checks the MD5
		return "", err
	}
	r, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, WaitTimeSeconds: 20})
	if err != nil || len(r.Messages) != 1 {
		return "", fmt.Errorf("got %v %w", r, err)
	}
	_, err = c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: aws.String(*q.QueueUrl + "none"), MessageBody: aws.String("x")})
	if err := failsV2(err, "AWS.SimpleQueueService.NonExistentQueue"); err != nil {
		return "", err
	}
	return *r.Messages[0].Body, nil
}

func v2Table(ctx context.Context, cfg aws.Config) error {
	c, name := dynamodb.NewFromConfig(cfg), aws.String("go-v2")
	if _, err := c.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: name, BillingMode: ddbtypes.BillingModePayPerRequest, AttributeDefinitions: []ddbtypes.AttributeDefinition{{AttributeName: aws.String("k"), AttributeType: ddbtypes.ScalarAttributeTypeS}},
		KeySchema: []ddbtypes.KeySchemaElement{{AttributeName: aws.String("k"), KeyType: ddbtypes.KeyTypeHash}},
	}); err != nil {
		return err
	}
	if err := dynamodb.NewTableExistsWaiter(c).Wait(ctx, &dynamodb.DescribeTableInput{TableName: name}, time.Minute); err != nil {
		return err
	}
	item := map[string]ddbtypes.AttributeValue{"k": &ddbtypes.AttributeValueMemberS{Value: "a"}, "n": &ddbtypes.AttributeValueMemberN{Value: "1.5"}, "b": &ddbtypes.AttributeValueMemberB{Value: []byte{0, 255}}}
	if _, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: item}); err != nil {
		return err
	}
	_, err := c.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: item, ConditionExpression: aws.String("attribute_not_exists(k)")})
	if err := failsV2(err, "ConditionalCheckFailedException"); err != nil {
		return err
	}
	got, err := c.GetItem(ctx, &dynamodb.GetItemInput{TableName: name, Key: map[string]ddbtypes.AttributeValue{"k": item["k"]}}) // it checks the CRC
	if err != nil {
		return err
	}
	b, ok := got.Item["b"].(*ddbtypes.AttributeValueMemberB)
	return expect(nil, ok && bytes.Equal(b.Value, []byte{0, 255}) && len(got.Item) == 3, got.Item)
}

func v2Bucket(ctx context.Context, cfg aws.Config) error {
	c, b := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true }), aws.String("go-v2")
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: b}); err != nil {
		return err
	}
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: aws.String("a b/ü+%"), Body: bytes.NewReader([]byte("object"))}); err != nil { // chunked, with a trailing checksum
		return err
	}
	got, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: aws.String("a b/ü+%")})
	if err != nil {
		return err
	}
	text, err := io.ReadAll(got.Body)
	if err != nil || string(text) != "object" {
		return fmt.Errorf("got %s %w", text, err)
	}
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: aws.String("none")})
	return failsV2(err, "NoSuchKey")
}

func v2Stream(ctx context.Context, cfg aws.Config) error {
	c, name := kinesis.NewFromConfig(cfg), aws.String("go-v2")
	if _, err := c.CreateStream(ctx, &kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int32(1)}); err != nil {
		return err
	}
	put, err := c.PutRecord(ctx, &kinesis.PutRecordInput{StreamName: name, Data: []byte("r"), PartitionKey: aws.String("p")})
	if err != nil {
		return err
	}
	it, err := c.GetShardIterator(ctx, &kinesis.GetShardIteratorInput{StreamName: name, ShardId: put.ShardId, ShardIteratorType: kintypes.ShardIteratorTypeTrimHorizon})
	if err != nil {
		return err
	}
	got, err := c.GetRecords(ctx, &kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	return expect(err, err == nil && len(got.Records) == 1 && string(got.Records[0].Data) == "r", got)
}

func v2Logs(ctx context.Context, cfg aws.Config) error {
	c, g := cloudwatchlogs.NewFromConfig(cfg), aws.String("go-v2")
	if _, err := c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: g}); err != nil {
		return err
	}
	if _, err := c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: g, LogStreamName: g}); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	if _, err := c.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: g, LogStreamName: g, LogEvents: []cwtypes.InputLogEvent{{Timestamp: &now, Message: aws.String("l")}}}); err != nil {
		return err
	}
	got, err := c.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupName: g, LogStreamName: g})
	return expect(err, err == nil && len(got.Events) == 1 && *got.Events[0].Message == "l" && *got.Events[0].Timestamp == now, got)
}

// failsV2 says whether an error has a code.
func failsV2(err error, code string) error {
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		return fmt.Errorf("want %s, got %w", code, err)
	}
	return nil
}

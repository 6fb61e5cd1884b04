package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/awserr"
	"github.com/aws/aws-sdk-go/aws/credentials"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go/service/dynamodb"
	"github.com/aws/aws-sdk-go/service/eventbridge"
	"github.com/aws/aws-sdk-go/service/kinesis"
	"github.com/aws/aws-sdk-go/service/lambda"
	"github.com/aws/aws-sdk-go/service/s3"
	"github.com/aws/aws-sdk-go/service/scheduler"
	"github.com/aws/aws-sdk-go/service/secretsmanager"
	"github.com/aws/aws-sdk-go/service/sns"
	"github.com/aws/aws-sdk-go/service/sqs"
	"github.com/aws/aws-sdk-go/service/ssm"
	"github.com/aws/aws-sdk-go/service/sts"
)

// byV1 does a round of every service with version 1 of the SDK, which knows no AWS_ENDPOINT_URL.
func byV1(_ context.Context, url, key, secret string) error {
	s, err := session.NewSession(&aws.Config{
		Endpoint: &url, Region: aws.String("eu-west-1"), Credentials: credentials.NewStaticCredentials(key, secret, ""), S3ForcePathStyle: aws.Bool(true), MaxRetries: aws.Int(0),
	})
	if err != nil {
		return err
	}
	return all(
		func() error { _, err := v1Queue(s, "go-v1"); return err },
		func() error { return v1Table(s) }, func() error { return v1Bucket(s) },
		func() error {
			who, err := sts.New(s).GetCallerIdentity(&sts.GetCallerIdentityInput{})
			return expect(err, aws.StringValue(who.Arn) != "", who)
		},
		func() error {
			t, err := sns.New(s).CreateTopic(&sns.CreateTopicInput{Name: aws.String("go-v1")})
			if err != nil {
				return err
			}
			p, err := sns.New(s).Publish(&sns.PublishInput{TopicArn: t.TopicArn, Message: aws.String("m")})
			return expect(err, aws.StringValue(p.MessageId) != "", p)
		},
		func() error { return v1Stream(s) },
		func() error {
			_, err := ssm.New(s).PutParameter(&ssm.PutParameterInput{Name: aws.String("/go/v1"), Value: aws.String("v"), Type: aws.String("SecureString")})
			if err != nil {
				return err
			}
			p, err := ssm.New(s).GetParameter(&ssm.GetParameterInput{Name: aws.String("/go/v1"), WithDecryption: aws.Bool(true)})
			return expect(err, err == nil && *p.Parameter.Value == "v", p)
		},
		func() error {
			_, err := secretsmanager.New(s).CreateSecret(&secretsmanager.CreateSecretInput{Name: aws.String("go-v1"), SecretBinary: []byte{0, 255}})
			if err != nil {
				return err
			}
			v, err := secretsmanager.New(s).GetSecretValue(&secretsmanager.GetSecretValueInput{SecretId: aws.String("go-v1")})
			return expect(err, bytes.Equal(v.SecretBinary, []byte{0, 255}), v)
		},
		func() error {
			r, err := eventbridge.New(s).PutEvents(&eventbridge.PutEventsInput{Entries: []*eventbridge.PutEventsRequestEntry{{Source: aws.String("go"), DetailType: aws.String("t"), Detail: aws.String("{}"), Time: aws.Time(time.Now())}}})
			return expect(err, aws.Int64Value(r.FailedEntryCount) == 0 && len(r.Entries) == 1, r)
		},
		func() error {
			_, err := scheduler.New(s).GetSchedule(&scheduler.GetScheduleInput{Name: aws.String("none")})
			return fails(err, "ResourceNotFoundException")
		},
		func() error {
			_, err := lambda.New(s).Invoke(&lambda.InvokeInput{FunctionName: aws.String("none")})
			return fails(err, "ResourceNotFoundException")
		},
		func() error { return v1Logs(s) },
	)
}

// v1Queue sends a message and takes it.
func v1Queue(s *session.Session, name string) (string, error) {
	c := sqs.New(s)
	q, err := c.CreateQueue(&sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		return "", err
	}
	if _, err := c.SendMessage(&sqs.SendMessageInput{QueueUrl: q.QueueUrl, MessageBody: aws.String("by v1 ☃"), MessageAttributes: map[string]*sqs.MessageAttributeValue{"b": {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255}}}}); err != nil {
		return "", err
	}
	r, err := c.ReceiveMessage(&sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, WaitTimeSeconds: aws.Int64(20), MessageAttributeNames: []*string{aws.String("All")}})
	if err != nil {
		return "", err
	}
	if len(r.Messages) != 1 || !bytes.Equal(r.Messages[0].MessageAttributes["b"].BinaryValue, []byte{0, 255}) {
		return "", fmt.Errorf("got %v", r)
	}
	_, err = c.SendMessage(&sqs.SendMessageInput{QueueUrl: aws.String(*q.QueueUrl + "none"), MessageBody: aws.String("x")})
	if err := fails(err, sqs.ErrCodeQueueDoesNotExist); err != nil {
		return "", err
	}
	return *r.Messages[0].Body, nil
}

func v1Table(s *session.Session) error {
	c, name := dynamodb.New(s), aws.String("go-v1")
	if _, err := c.CreateTable(&dynamodb.CreateTableInput{
		TableName: name, BillingMode: aws.String("PAY_PER_REQUEST"), AttributeDefinitions: []*dynamodb.AttributeDefinition{{AttributeName: aws.String("k"), AttributeType: aws.String("S")}},
		KeySchema: []*dynamodb.KeySchemaElement{{AttributeName: aws.String("k"), KeyType: aws.String("HASH")}},
	}); err != nil {
		return err
	}
	if err := c.WaitUntilTableExists(&dynamodb.DescribeTableInput{TableName: name}); err != nil {
		return err
	}
	item := map[string]*dynamodb.AttributeValue{"k": {S: aws.String("a")}, "n": {N: aws.String("1.5")}, "l": {L: []*dynamodb.AttributeValue{{B: []byte{1}}, {NULL: aws.Bool(true)}}}}
	if _, err := c.PutItem(&dynamodb.PutItemInput{TableName: name, Item: item}); err != nil {
		return err
	}
	_, err := c.PutItem(&dynamodb.PutItemInput{TableName: name, Item: item, ConditionExpression: aws.String("attribute_not_exists(k)")})
	if err := fails(err, dynamodb.ErrCodeConditionalCheckFailedException); err != nil {
		return err
	}
	got, err := c.GetItem(&dynamodb.GetItemInput{TableName: name, Key: map[string]*dynamodb.AttributeValue{"k": {S: aws.String("a")}}})
	return expect(err, err == nil && fmt.Sprint(got.Item) == fmt.Sprint(item), got)
}

func v1Bucket(s *session.Session) error {
	c, b := s3.New(s), aws.String("go-v1")
	if _, err := c.CreateBucket(&s3.CreateBucketInput{Bucket: b}); err != nil {
		return err
	}
	if _, err := c.PutObject(&s3.PutObjectInput{Bucket: b, Key: aws.String("a b/ü+%"), Body: bytes.NewReader([]byte("object"))}); err != nil {
		return err
	}
	got, err := c.GetObject(&s3.GetObjectInput{Bucket: b, Key: aws.String("a b/ü+%")})
	if err != nil {
		return err
	}
	text, err := io.ReadAll(got.Body)
	if err != nil || string(text) != "object" {
		return fmt.Errorf("got %s %w", text, err)
	}
	_, err = c.GetObject(&s3.GetObjectInput{Bucket: b, Key: aws.String("none")})
	return fails(err, s3.ErrCodeNoSuchKey)
}

func v1Stream(s *session.Session) error {
	c, name := kinesis.New(s), aws.String("go-v1")
	if _, err := c.CreateStream(&kinesis.CreateStreamInput{StreamName: name, ShardCount: aws.Int64(1)}); err != nil {
		return err
	}
	put, err := c.PutRecord(&kinesis.PutRecordInput{StreamName: name, Data: []byte("r"), PartitionKey: aws.String("p")})
	if err != nil {
		return err
	}
	it, err := c.GetShardIterator(&kinesis.GetShardIteratorInput{StreamName: name, ShardId: put.ShardId, ShardIteratorType: aws.String("TRIM_HORIZON")})
	if err != nil {
		return err
	}
	got, err := c.GetRecords(&kinesis.GetRecordsInput{ShardIterator: it.ShardIterator})
	return expect(err, err == nil && len(got.Records) == 1 && string(got.Records[0].Data) == "r", got)
}

func v1Logs(s *session.Session) error {
	c, g := cloudwatchlogs.New(s), aws.String("go-v1")
	if _, err := c.CreateLogGroup(&cloudwatchlogs.CreateLogGroupInput{LogGroupName: g}); err != nil {
		return err
	}
	if _, err := c.CreateLogStream(&cloudwatchlogs.CreateLogStreamInput{LogGroupName: g, LogStreamName: g}); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	if _, err := c.PutLogEvents(&cloudwatchlogs.PutLogEventsInput{LogGroupName: g, LogStreamName: g, LogEvents: []*cloudwatchlogs.InputLogEvent{{Timestamp: &now, Message: aws.String("l")}}}); err != nil {
		return err
	}
	got, err := c.FilterLogEvents(&cloudwatchlogs.FilterLogEventsInput{LogGroupName: g})
	return expect(err, err == nil && len(got.Events) == 1 && *got.Events[0].Message == "l" && *got.Events[0].Timestamp == now, got)
}

// fails says whether an error has a code.
func fails(err error, code string) error {
	if e, ok := err.(awserr.Error); !ok || e.Code() != code {
		return fmt.Errorf("want %s, got %w", code, err)
	}
	return nil
}

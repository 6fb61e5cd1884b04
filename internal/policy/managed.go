package policy

import "strings"

// managed are policies that AWS keeps, by their names: what of their actions there is anything for here.
var managed = map[string][]string{
	"AdministratorAccess":                  {"*"},
	"PowerUserAccess":                      {"*"},
	"AWSLambdaBasicExecutionRole":          {"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"},
	"AWSLambdaVPCAccessExecutionRole":      {"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "ec2:*NetworkInterface*", "ec2:DescribeSubnets"},
	"AWSLambdaSQSQueueExecutionRole":       {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "logs:*"},
	"AWSLambdaKinesisExecutionRole":        {"kinesis:Describe*", "kinesis:Get*", "kinesis:List*", "kinesis:SubscribeToShard", "logs:*"},
	"AWSLambdaDynamoDBExecutionRole":       {"dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams", "logs:*"},
	"AWSLambdaInvocation-DynamoDB":         {"lambda:InvokeFunction", "dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"},
	"AWSLambdaRole":                        {"lambda:InvokeFunction"},
	"AWSLambda_FullAccess":                 {"lambda:*", "logs:*", "xray:*"},
	"AWSLambda_ReadOnlyAccess":             {"lambda:Get*", "lambda:List*"},
	"AWSXRayDaemonWriteAccess":             {"xray:*"},
	"AWSXrayWriteOnlyAccess":               {"xray:*"},
	"AmazonS3FullAccess":                   {"s3:*"},
	"AmazonS3ReadOnlyAccess":               {"s3:Get*", "s3:List*", "s3:Describe*"},
	"AmazonDynamoDBFullAccess":             {"dynamodb:*"},
	"AmazonDynamoDBReadOnlyAccess":         {"dynamodb:BatchGetItem", "dynamodb:Describe*", "dynamodb:List*", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:PartiQLSelect"},
	"AmazonSQSFullAccess":                  {"sqs:*"},
	"AmazonSQSReadOnlyAccess":              {"sqs:GetQueue*", "sqs:List*"},
	"AmazonSNSFullAccess":                  {"sns:*"},
	"AmazonSNSReadOnlyAccess":              {"sns:Get*", "sns:List*"},
	"AmazonKinesisFullAccess":              {"kinesis:*"},
	"AmazonKinesisReadOnlyAccess":          {"kinesis:Get*", "kinesis:List*", "kinesis:Describe*"},
	"AmazonEventBridgeFullAccess":          {"events:*", "scheduler:*", "schemas:*", "pipes:*"},
	"AmazonEventBridgeReadOnlyAccess":      {"events:Describe*", "events:List*", "events:TestEventPattern"},
	"AmazonEventBridgeSchedulerFullAccess": {"scheduler:*"},
	"AmazonSSMFullAccess":                  {"ssm:*"},
	"AmazonSSMReadOnlyAccess":              {"ssm:Describe*", "ssm:Get*", "ssm:List*"},
	"SecretsManagerReadWrite":              {"secretsmanager:*"},
	"CloudWatchFullAccess":                 {"cloudwatch:*", "logs:*"},
	"CloudWatchLogsFullAccess":             {"logs:*"},
	"CloudWatchLogsReadOnlyAccess":         {"logs:Describe*", "logs:Get*", "logs:List*", "logs:FilterLogEvents"},
}

// Managed gives a policy that AWS keeps, by its ARN. ok is false for those that are not known here.
func Managed(arn string) (p Policy, ok bool) {
	name := arn[strings.LastIndexByte(arn, '/')+1:]
	actions, ok := managed[name]
	if !ok || !strings.HasPrefix(arn, "arn:") || !strings.Contains(arn, ":iam::aws:policy/") {
		return Policy{}, false
	}
	s := statement{name: name, resources: []string{"*"}}
	for _, a := range actions {
		s.actions = append(s.actions, strings.ToLower(a))
	}
	return Policy{[]statement{s}}, true
}

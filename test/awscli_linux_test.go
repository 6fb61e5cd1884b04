package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// awsCLI finds an AWS CLI that has a command; version 2 has more of them than 1.
func awsCLI(t *testing.T, command ...string) string {
	t.Helper()
	var tried []string
	for _, name := range []string{"aws", "/usr/bin/aws", "/usr/local/bin/aws"} {
		path, err := exec.LookPath(name)
		if err != nil || slices.Contains(tried, path) {
			continue
		}
		tried = append(tried, path)
		cmd := exec.CommandContext(t.Context(), path, append(slices.Clone(command), "help")...)
		cmd.Env = append(os.Environ(), "AWS_PAGER=", "PAGER=cat")
		if cmd.Run() == nil {
			return path
		}
	}
	t.Skipf("needs an AWS CLI with %v, as Debian's package awscli has it; found %v", command, tried)
	return ""
}

// cliRound are commands, and what each prints; $NAME is what was printed before.
var cliRound = []struct{ name, command, want string }{
	{"", "s3 mb s3://cli-bucket", "make_bucket: cli-bucket"},
	{"", "s3 cp FOLDER/a.txt s3://cli-bucket/up/a.txt", "upload: "},
	{"", "s3 cp FOLDER/big s3://cli-bucket/big", "upload: "}, // in parts
	{"", "s3 sync FOLDER s3://cli-bucket/all --exclude big", "upload: "},
	{"", "s3 sync FOLDER s3://cli-bucket/all --exclude big", "^$"},
	{"", "s3 ls s3://cli-bucket --recursive", `(?s)all/a\.txt.*all/sub/b\.txt.*big.*up/a\.txt`},
	{"", "s3 cp s3://cli-bucket/big FOLDER/back", "download: "},
	{"", "s3 cp s3://cli-bucket/up/a.txt -", "^text of a$"},
	{"PRESIGNED", "s3 presign s3://cli-bucket/up/a.txt --expires-in 60", "^http.*Signature="},
	{"", "s3 rm s3://cli-bucket --recursive", "delete: s3://cli-bucket/big"},
	{"", "s3 rb s3://cli-bucket", "remove_bucket: cli-bucket"},
	{"", "dynamodb create-table --table-name cli --attribute-definitions AttributeName=k,AttributeType=S --key-schema AttributeName=k,KeyType=HASH --billing-mode PAY_PER_REQUEST", "table/cli"},
	{"", "dynamodb wait table-exists --table-name cli", "^$"},
	{"", `dynamodb put-item --table-name cli --item {"k":{"S":"a"},"n":{"N":"1"}}`, "^$"},
	{"", `dynamodb get-item --table-name cli --key {"k":{"S":"a"}} --query Item.n.N --output text`, "^1$"},
	{"", "dynamodb scan --table-name cli --query Count", "^1$"},
	{"QUEUE", "sqs create-queue --queue-name cli --query QueueUrl --output text", "^http.*/cli$"},
	{"", "sqs send-message --queue-url $QUEUE --message-body hello", "MD5OfMessageBody"},
	{"", "sqs receive-message --queue-url $QUEUE --query Messages[0].Body --output text", "^hello$"},
	{"TOPIC", "sns create-topic --name cli --query TopicArn --output text", "^arn:.*:cli$"},
	{"", "sns publish --topic-arn $TOPIC --message m", "MessageId"},
	{"", `events put-events --entries [{"Source":"cli","DetailType":"t","Detail":"{}"}]`, `"FailedEntryCount": 0`},
	{"", "kinesis create-stream --stream-name cli --shard-count 1", "^$"},
	{"", "kinesis put-record --stream-name cli --partition-key p --data ZGF0YQ==", "SequenceNumber"},
	{"", "ssm put-parameter --name /cli/p --type SecureString --value v", `"Version": 1`},
	{"", "ssm get-parameter --name /cli/p --with-decryption --query Parameter.Value --output text", "^v$"},
	{"", "secretsmanager create-secret --name cli --secret-string s", "secret:cli-"},
	{"", "secretsmanager get-secret-value --secret-id cli --query SecretString --output text", "^s$"},
	{"", "lambda invoke --function-name called-dev-echo FOLDER/out", `"StatusCode": 200`},
	{"", "sts get-caller-identity --query Arn --output text", ":user/deploy$"},
}

func TestWire_TheCLIUsesServices(t *testing.T) {
	t.Parallel()
	cli := awsCLI(t, "sts")
	dir, data := project(t, calledFiles), filepath.Join(t.TempDir(), "data")
	s := ebb.Start(t, dir, data, "up", "--listen", "127.0.0.1:0")
	t.Cleanup(func() { noteAnswered(t, s.Ready.API, data) })
	_, access, secret := accessKey(t, dir, data, "deploy")
	folder := project(t, map[string]string{"a.txt": "text of a", "sub/b.txt": "text of b", "big": strings.Repeat("0123456789abcdef", 10<<20/16)})
	said := map[string]string{"FOLDER": folder}
	for _, c := range cliRound {
		args := []string{"--endpoint-url", s.Ready.AWS}
		for _, word := range strings.Fields(c.command) {
			for name, value := range said {
				word = strings.ReplaceAll(strings.ReplaceAll(word, "$"+name, value), "FOLDER", folder)
			}
			args = append(args, word)
		}
		cmd := exec.CommandContext(t.Context(), cli, args...)
		cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+access, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_DEFAULT_REGION=eu-west-1", "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null", "AWS_MAX_ATTEMPTS=1")
		out, err := cmd.CombinedOutput()
		text := strings.TrimSpace(string(out))
		if err != nil || !regexp.MustCompile(c.want).MatchString(text) {
			t.Errorf("aws %s: %v\n%s", c.command, err, text)
		}
		if c.name != "" {
			said[c.name] = text
		}
		if c.name == "PRESIGNED" {
			if out, err := exec.CommandContext(t.Context(), "curl", "-s", text).CombinedOutput(); err != nil || string(out) != "text of a" {
				t.Errorf("curl of what is presigned: %v %s", err, out)
			}
		}
	}
	big, err := os.ReadFile(filepath.Join(folder, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := os.ReadFile(filepath.Join(folder, "back")); err != nil || string(back) != string(big) {
		t.Errorf("what was copied there and back has %d bytes of %d, %v", len(back), len(big), err)
	}
}

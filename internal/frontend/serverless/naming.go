package serverless

import (
	"regexp"
	"strings"
	"unicode"
)

// Serverless Framework's logical IDs are part of the format: `resources:` may refer to any of them.
// https://www.serverless.com/framework/docs/providers/aws/guide/resources

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

var notAlphanumeric = regexp.MustCompile(`[^0-9A-Za-z]+`)

// alphanumeric drops everything but letters and digits.
func alphanumeric(s string) string { return upperFirst(notAlphanumeric.ReplaceAllString(s, "")) }

// normal is how function and other names go into a logical ID.
func normal(s string) string {
	return upperFirst(strings.NewReplacer("-", "Dash", "_", "Underscore").Replace(s))
}

var pathVar = regexp.MustCompile(`\{(.*)\}`)

// normalPath is how a path goes into a logical ID: "users/{id}" gives "UsersIdVar".
func normalPath(path string) string {
	var b strings.Builder
	for p := range strings.SplitSeq(path, "/") {
		if p == "" {
			continue
		}
		p = strings.ToUpper(p[:1]) + strings.ToLower(p[1:])
		p = pathVar.ReplaceAllString(strings.ReplaceAll(p, "-", "Dash"), "${1}Var")
		b.WriteString(upperFirst(notAlphanumeric.ReplaceAllString(p, "")))
	}
	return b.String()
}

// startCase upper-cases the first letter of each word and joins them: "application/json" gives "ApplicationJson".
func startCase(s string) string {
	var b strings.Builder
	start := true
	var prev rune
	for _, c := range s {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) {
			start = true
			prev = c
			continue
		}
		if start || unicode.IsUpper(c) && unicode.IsLower(prev) || unicode.IsDigit(c) != unicode.IsDigit(prev) {
			c = unicode.ToUpper(c)
		}
		start = false
		prev = c
		b.WriteRune(c)
	}
	return b.String()
}

func logGroupID(fn string) string { return normal(fn) + "LogGroup" }
func lambdaID(fn string) string   { return normal(fn) + "LambdaFunction" }
func layerID(name string) string  { return normal(name) + "LambdaLayer" }
func bucketID(name string) string { return "S3Bucket" + alphanumeric(name) }
func topicID(name string) string  { return "SNSTopic" + alphanumeric(name) }

const (
	roleID             = "IamRoleLambdaExecution"
	deploymentBucketID = "ServerlessDeploymentBucket"
	restAPIID          = "ApiGatewayRestApi"
	httpAPIID          = "HttpApi"
	websocketsAPIID    = "WebsocketsApi"
)

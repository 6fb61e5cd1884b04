package s3

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/ebb-run/ebb/internal/policy"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

func itoa(n int) string { return strconv.Itoa(n) }

// statements are those of a bucket's policy.
type statements []map[string]any

// readPolicy reads a bucket's policy.
func readPolicy(data []byte) (statements, error) {
	var doc struct{ Statement json.RawMessage }
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, malformedPolicy("Policies must be valid JSON and the first byte must be '{'")
	}
	var list statements
	var one map[string]any
	if json.Unmarshal(doc.Statement, &one) == nil && one != nil {
		list = statements{one}
	} else if json.Unmarshal(doc.Statement, &list) != nil || len(list) == 0 {
		return nil, malformedPolicy("Missing required field Statement")
	}
	for _, st := range list {
		for _, field := range []string{"Effect", "Principal", "Action", "Resource"} {
			if st[field] == nil && (field == "Effect" || st["Not"+field] == nil) {
				return nil, malformedPolicy("Missing required field %s", field)
			}
		}
		if e := st["Effect"]; e != "Allow" && e != "Deny" {
			return nil, malformedPolicy("Invalid effect: %v", e)
		}
	}
	return list, nil
}

func malformedPolicy(format string, args ...any) *wire.Error {
	return wire.Errorf("MalformedPolicy", format, args...)
}

func checkPolicy(data []byte) error {
	list, err := readPolicy(data)
	if err != nil {
		return err
	}
	if _, err := policy.Parse(list); err != nil {
		return malformedPolicy("%s", err)
	}
	return nil
}

// everybody says whether a principal is anyone.
func everybody(principal any) bool {
	if m, ok := principal.(map[string]any); ok {
		principal = m["AWS"]
	}
	list, ok := principal.([]any)
	return principal == "*" || ok && slices.Contains(list, any("*"))
}

// public is a statement that lets anyone do something, whatever the request.
func (s statements) public() bool {
	return slices.ContainsFunc(s, func(st map[string]any) bool {
		conditions, _ := st["Condition"].(map[string]any)
		return st["Effect"] == "Allow" && everybody(st["Principal"]) && len(conditions) == 0
	})
}

// forEverybody is the part of a policy that is about those whom it does not name.
func (s statements) forEverybody() (policy.Policy, error) {
	var list statements
	for _, st := range s {
		if not, ok := st["NotPrincipal"]; ok && st["Effect"] == "Deny" && !everybody(not) || everybody(st["Principal"]) {
			list = append(list, st)
		}
	}
	return policy.Parse(list)
}

func statementsOf(b store.Bucket) statements {
	data := b.Documents["policy"]
	if data == nil {
		return nil
	}
	list, err := readPolicy(data)
	if err != nil {
		return nil // of what was put before it was read as it is now
	}
	return list
}

// saysPolicy gives what a bucket's policy says of anyone who does what a request is for.
func saysPolicy(c *wire.Call, b store.Bucket, about wire.Subject) policy.Effect {
	p, err := statementsOf(b).forEverybody()
	if err != nil {
		return policy.Deny // it may hold something that denies
	}
	context := map[string][]string{
		"aws:currenttime": {c.Now.UTC().Format(time.RFC3339)}, "aws:epochtime": {strconv.FormatInt(c.Now.Unix(), 10)}, "aws:sourceip": {sourceIP(c)},
		"aws:securetransport": {strconv.FormatBool(c.Request.TLS != nil)}, "aws:principaltype": {"Anonymous"},
	}
	for key, name := range map[string]string{"aws:useragent": "User-Agent", "aws:referer": "Referer"} {
		if v := header(c, name); v != "" {
			context[key] = []string{v}
		}
	}
	maps.Copy(context, about.Context)
	return p.Decide(policy.Request{Action: about.Action, Resource: about.Resource, Context: context}).Effect
}

// opens says whether anyone may do what a request is for, by a bucket's policy or, where that does not deny it, by an ACL.
func opens(c *wire.Call, b store.Bucket, about wire.Subject, byACL bool) bool {
	noACL, noPolicy := blocks(b)
	says := saysPolicy(c, b, about)
	return says != policy.Deny && (says == policy.Allow && !noPolicy || byACL && !noACL)
}

// blocks says what a bucket's public access block turns off.
func blocks(b store.Bucket) (acls, policies bool) {
	var in struct{ IgnorePublicAcls, RestrictPublicBuckets bool }
	if data := b.Documents["publicaccess"]; data != nil {
		_ = xml.Unmarshal(data, &in) // it was read when it was put
	}
	return in.IgnorePublicAcls, in.RestrictPublicBuckets
}

// unsigned are the operations that may run without a signature, where the bucket lets anyone.
var unsigned = []string{
	"GetObject", "HeadObject", "ListObjects", "ListObjectsV2", "HeadBucket", "ListObjectVersions", "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject",
}

// openTo says whether a canned ACL lets anyone do something.
func openTo(canned, action string) bool {
	switch action {
	case "s3:GetObject", "s3:ListBucket":
		return canned == "public-read" || canned == "public-read-write"
	case "s3:PutObject", "s3:DeleteObject":
		return canned == "public-read-write" // of the bucket
	}
	return false
}

// public refuses what is not for everybody, where nobody has signed.
func (s *service) public(ctx context.Context, c *wire.Call) error {
	if !slices.Contains(unsigned, c.Operation) {
		return nil // the operation has its own rule
	}
	about := subjects(c, nil)[0]
	action := about.Action
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return err
	}
	canned := string(b.Documents["acl"])
	if _, ok := c.Labels["Key"]; ok {
		if canned != "public-read-write" || action == "s3:GetObject" {
			canned = ""
		}
		if info, err := s.Objects.Head(ctx, keyOf(c), c.Query.Get("versionId")); err == nil && action == "s3:GetObject" {
			canned = info.Headers[aclHeader]
		}
	}
	if opens(c, b, about, openTo(canned, action)) {
		return nil
	}
	return accessDenied()
}

func (s *service) getPolicyStatus(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	if b.Documents["policy"] == nil {
		return nil, wire.Errorf("NoSuchBucketPolicy", "The bucket policy does not exist").With(http.StatusNotFound)
	}
	return document(struct {
		XMLName xml.Name `xml:"PolicyStatus"`
		root
		IsPublic bool
	}{root: ns, IsPublic: statementsOf(b).public()})
}

package s3

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

func itoa(n int) string { return strconv.Itoa(n) }

// policy is the part of a bucket's policy that says what is public.
type policy struct {
	Statement oneOrMore[statement]
}

type statement struct {
	Effect                 string
	Principal              json.RawMessage
	NotPrincipal           json.RawMessage
	Action, Resource       oneOrMore[string]
	NotAction, NotResource oneOrMore[string]
	Condition              map[string]any
}

// oneOrMore is a value or a list of them, as policies write both.
type oneOrMore[T any] []T

// UnmarshalJSON reads either.
func (o *oneOrMore[T]) UnmarshalJSON(data []byte) error {
	var list []T
	if json.Unmarshal(data, &list) == nil {
		*o = list
		return nil
	}
	var one T
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*o = []T{one}
	return nil
}

func checkPolicy(data []byte) error {
	var p policy
	if err := json.Unmarshal(data, &p); err != nil || len(p.Statement) == 0 {
		return wire.Errorf("MalformedPolicy", "Missing required field Statement")
	}
	for _, st := range p.Statement {
		switch {
		case st.Effect != "Allow" && st.Effect != "Deny":
			return wire.Errorf("MalformedPolicy", "Invalid effect: %s", st.Effect)
		case st.Principal == nil && st.NotPrincipal == nil:
			return wire.Errorf("MalformedPolicy", "Missing required field Principal")
		case st.Action == nil && st.NotAction == nil:
			return wire.Errorf("MalformedPolicy", "Missing required field Action")
		case st.Resource == nil && st.NotResource == nil:
			return wire.Errorf("MalformedPolicy", "Missing required field Resource")
		}
	}
	return nil
}

// everybody says whether a principal is anyone.
func everybody(raw json.RawMessage) bool {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return one == "*"
	}
	var m map[string]oneOrMore[string]
	if json.Unmarshal(raw, &m) != nil {
		return false
	}
	for _, p := range m["AWS"] {
		if p == "*" {
			return true
		}
	}
	return false
}

// wild says whether a text fits a pattern of policies: * for any run, ? for any one.
func wild(pattern, text string) bool {
	p, t, star, mark := 0, 0, -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// allows says whether the policy lets anyone do something. A statement whose conditions would have to be looked at allows nothing; one that
// may deny does.
func (p policy) allows(action, resource string) bool {
	allowed := false
	for _, st := range p.Statement {
		hit := false
		for _, a := range st.Action {
			for _, r := range st.Resource {
				hit = hit || wild(strings.ToLower(a), strings.ToLower(action)) && wild(r, resource)
			}
		}
		if st.Effect == "Deny" && (hit || st.NotAction != nil || st.NotResource != nil) && (st.NotPrincipal != nil || everybody(st.Principal)) {
			return false
		}
		allowed = allowed || hit && st.Effect == "Allow" && everybody(st.Principal) && len(st.Condition) == 0
	}
	return allowed
}

func policyOf(b store.Bucket) (p policy) {
	if data := b.Documents["policy"]; data == nil || json.Unmarshal(data, &p) != nil {
		return policy{}
	}
	return p
}

// blocks says what a bucket's public access block turns off.
func blocks(b store.Bucket) (acls, policies bool) {
	var in struct{ IgnorePublicAcls, RestrictPublicBuckets bool }
	if data := b.Documents["publicaccess"]; data != nil {
		_ = xml.Unmarshal(data, &in) // it was read when it was put
	}
	return in.IgnorePublicAcls, in.RestrictPublicBuckets
}

// publicAction is what a policy has to allow anyone for an operation to run without a signature; "" where none does.
func publicAction(c *wire.Call) string {
	switch c.Operation {
	case "GetObject", "HeadObject":
		if c.Query.Get("versionId") != "" {
			return "s3:GetObjectVersion"
		}
		return "s3:GetObject"
	case "ListObjects", "ListObjectsV2", "HeadBucket":
		return "s3:ListBucket"
	case "ListObjectVersions":
		return "s3:ListBucketVersions"
	case "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload":
		return "s3:PutObject"
	case "DeleteObject":
		if c.Query.Get("versionId") != "" {
			return "s3:DeleteObjectVersion"
		}
		return "s3:DeleteObject"
	}
	return ""
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
	action := publicAction(c)
	if action == "" {
		return nil // the operation has its own rule
	}
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return err
	}
	resource := "arn:aws:s3:::" + b.Name
	canned := string(b.Documents["acl"])
	if key, ok := c.Labels["Key"]; ok {
		resource += "/" + key
		if canned != "public-read-write" || action == "s3:GetObject" {
			canned = ""
		}
		if info, err := s.Objects.Head(ctx, keyOf(c), c.Query.Get("versionId")); err == nil && action == "s3:GetObject" {
			canned = info.Headers[aclHeader]
		}
	}
	noACL, noPolicy := blocks(b)
	if !noPolicy && policyOf(b).allows(action, resource) || !noACL && openTo(canned, action) {
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
	isPublic := false
	for _, st := range policyOf(b).Statement {
		isPublic = isPublic || st.Effect == "Allow" && everybody(st.Principal) && len(st.Condition) == 0
	}
	return document(struct {
		XMLName xml.Name `xml:"PolicyStatus"`
		root
		IsPublic bool
	}{root: ns, IsPublic: isPublic})
}

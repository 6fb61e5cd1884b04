package s3

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire"
)

func TestSubjects_NameBucketsAndObjects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ operation, bucket, key, query, from, body, want string }{
		{"ListBuckets", "", "", "", "", "", "s3:ListAllMyBuckets *"},
		{"GetObject", "b", "a/k", "", "", "", "s3:GetObject arn:aws:s3:::b/a/k"},
		{"GetObject", "b", "k", "versionId=v", "", "", "s3:GetObjectVersion arn:aws:s3:::b/k"},
		{"HeadObject", "b", "k", "", "", "", "s3:GetObject arn:aws:s3:::b/k"},
		{"UploadPart", "b", "k", "partNumber=1", "", "", "s3:PutObject arn:aws:s3:::b/k"},
		{"CopyObject", "b", "k", "", "/c/a%20b?versionId=v", "", "s3:PutObject arn:aws:s3:::b/k, s3:GetObjectVersion arn:aws:s3:::c/a b"},
		{"ListObjectsV2", "b", "", "prefix=p", "", "", "s3:ListBucket arn:aws:s3:::b map[s3:prefix:[p]]"},
		{"GetBucketCors", "b", "", "", "", "", "s3:GetBucketCors arn:aws:s3:::b"},
		{"PutBucketEncryption", "b", "", "", "", "", "s3:PutEncryptionConfiguration arn:aws:s3:::b"},
		{"DeleteObjects", "b", "", "", "", "<Delete><Object><Key>x</Key></Object><Object><Key>y</Key><VersionId>1</VersionId></Object></Delete>", "s3:DeleteObject arn:aws:s3:::b/x, s3:DeleteObjectVersion arn:aws:s3:::b/y"},
		{"DeleteObjects", "b", "", "", "", "<", ""},
		{opPreflight, "b", "k", "", "", "", ""},
	} {
		r := httptest.NewRequest("GET", "/?"+c.query, nil)
		r.Header.Set("X-Amz-Copy-Source", c.from)
		labels := map[string]string{"Bucket": c.bucket, "Key": c.key}
		var got []string
		for _, s := range subjects(&wire.Call{Operation: c.operation, Labels: labels, Request: r, Query: r.URL.Query(), Body: []byte(c.body)}, nil) {
			text := s.Action + " " + s.Resource
			if len(s.Context) > 0 {
				text += " " + fmt.Sprint(s.Context)
			}
			got = append(got, text)
		}
		if text := strings.Join(got, ", "); text != c.want {
			t.Errorf("%s: got %s", c.operation, text)
		}
	}
}

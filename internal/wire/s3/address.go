package s3

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
)

// Operations that are no names of S3's.
const (
	opPreflight = "Preflight"
	opWebsite   = "Website"
	opForm      = "PostObject"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func isCut(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// hostForm finds the bucket in a host name: bucket.s3.…, bucket.s3-website.…, and, of an endpoint of one's own, bucket.localhost.
func hostForm(host string) (bucket string, website bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return "", false
	}
	labels := strings.Split(host, ".")
	for i := len(labels) - 1; i > 0; i-- { // the last fits: a bucket may have dots, and be called s3
		l := labels[i]
		if l == "s3" || strings.HasPrefix(l, "s3-") {
			return strings.Join(labels[:i], "."), strings.HasPrefix(l, "s3-website")
		}
	}
	if rest, ok := strings.CutSuffix(host, ".localhost"); ok && rest != "s3" {
		return rest, false
	}
	return "", strings.HasPrefix(labels[0], "s3-website")
}

// prepare puts the bucket of a host name before the path.
func prepare(c *wire.Call) {
	if bucket, _ := hostForm(c.Request.Host); bucket != "" {
		c.Path = "/" + url.PathEscape(bucket) + c.Path
	}
}

// find names what the table cannot.
func find(c *wire.Call) string {
	if bucket, website := hostForm(c.Request.Host); website && c.Request.Method != http.MethodOptions {
		c.Labels = map[string]string{"Bucket": bucket}
		return opWebsite
	}
	switch {
	case c.Request.Method == http.MethodOptions:
		bucket, _, _ := strings.Cut(strings.TrimPrefix(c.Path, "/"), "/")
		c.Labels = map[string]string{"Bucket": bucket}
		return opPreflight
	case c.Request.Method == http.MethodGet && c.Path == "/":
		return "ListBuckets"
	case c.Operation == "GetObject" && c.Query.Has("attributes"): // whose header may be missing
		return "GetObjectAttributes"
	case c.Request.Method == http.MethodPost && strings.HasPrefix(c.Request.Header.Get("Content-Type"), "multipart/form-data"):
		c.Labels = map[string]string{"Bucket": strings.Trim(c.Path, "/")}
		return opForm
	}
	return ""
}

// anonymous says what may run without a signature: it is looked at again, when the bucket is known.
func anonymous(c *wire.Call) bool {
	return c.Operation == opPreflight || c.Operation == opWebsite || c.Operation == opForm || slices.Contains(unsigned, c.Operation)
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// ValidBucket says whether a bucket may have the name: S3 guide, "General purpose bucket naming rules".
func ValidBucket(name string) bool {
	if !bucketName.MatchString(name) || strings.Contains(name, "..") {
		return false
	}
	_, err := netip.ParseAddr(name)
	return err != nil
}

// checkAddress checks the bucket and the key of an address.
func checkAddress(c *wire.Call) error {
	bucket, ok := c.Labels["Bucket"]
	if ok && !ValidBucket(bucket) {
		e := wire.Errorf("InvalidBucketName", "The specified bucket is not valid.")
		e.Fields = map[string]any{"BucketName": bucket}
		return e
	}
	key, ok := c.Labels["Key"]
	switch {
	case !ok:
	case len(key) > store.MaxKey:
		e := wire.Errorf("KeyTooLongError", "Your key is too long")
		e.Fields = map[string]any{"Size": len(key), "MaxSizeAllowed": store.MaxKey}
		return e
	case !utf8.ValidString(key):
		return wire.Errorf("InvalidURI", "Couldn't parse the specified URI.")
	}
	if owner := header(c, "X-Amz-Expected-Bucket-Owner"); owner != "" && c.Caller.Account != "" && len(owner) != 12 {
		return wire.Errorf("InvalidBucketOwnerAWSAccountID", "The value of the expected bucket owner parameter must be an AWS account ID")
	}
	return nil
}

// hoist makes headers of the parameters of a presigned URL that stand for some. They were signed with it.
func hoist(c *wire.Call) {
	if c.Claim == nil || !c.Claim.Presigned {
		return
	}
	for k, list := range c.Query {
		low := strings.ToLower(k)
		kept := strings.HasPrefix(low, "x-amz-meta-") || slices.Contains([]string{"x-amz-acl", "x-amz-tagging", "x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-checksum-algorithm", "x-amz-checksum-mode"}, low)
		if c.Claim.Older() { // which signs all that it has there
			kept = kept || low == "content-type"
		}
		if kept && c.Request.Header.Get(k) == "" {
			c.Request.Header.Set(k, list[0])
		}
	}
}

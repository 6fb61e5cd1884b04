package s3_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

// What S3 refuses is refused with its code: S3 API, "Error responses".
func TestRequests_AreRefusedAsS3Does(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	do(t, e, "PUT", "/bucket/k", "data", 200)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     string
		header                   []string
	}{
		{"region that is none", "PUT", "/other", "<CreateBucketConfiguration><LocationConstraint>moon</LocationConstraint></CreateBucketConfiguration>", 400, "InvalidLocationConstraint", nil},
		{"redirect to nowhere", "PUT", "/bucket/r", "", 400, "InvalidRedirectLocation", []string{"X-Amz-Website-Redirect-Location", "elsewhere"}},
		{"lock without a configuration", "PUT", "/bucket/r", "", 400, "InvalidRequest", []string{"X-Amz-Object-Lock-Legal-Hold", "OFF"}},
		{"lock of another mode", "PUT", "/bucket/r", "", 400, "InvalidArgument", []string{"X-Amz-Object-Lock-Mode", "SOFT", "X-Amz-Object-Lock-Retain-Until-Date", "2099-01-01T00:00:00Z"}},
		{"hold that is neither", "PUT", "/bucket/r", "", 400, "InvalidArgument", []string{"X-Amz-Object-Lock-Legal-Hold", "MAYBE"}},
		{"ownership of two kinds", "PUT", "/bucket?ownershipControls", "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>", 400, "MalformedXML", nil},
		{"ownership of none", "PUT", "/bucket?ownershipControls", "<OwnershipControls><Rule><ObjectOwnership>Mine</ObjectOwnership></Rule></OwnershipControls>", 400, "MalformedXML", nil},
		{"part of nothing", "GET", "/bucket/none?partNumber=0", "", 400, "InvalidArgument", nil},
		{"no attribute", "GET", "/bucket/k?attributes", "", 400, "InvalidRequest", nil},
		{"unknown attribute", "GET", "/bucket/none?attributes", "", 400, "InvalidArgument", []string{"X-Amz-Object-Attributes", "ETag,Colour"}},
		{"storage class", "PUT", "/bucket/r", "", 400, "InvalidStorageClass", []string{"X-Amz-Storage-Class", "COLD"}},
		{"client's key", "PUT", "/bucket/r", "", 501, "NotImplemented", []string{"X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256"}},
		{"two checksums", "PUT", "/bucket/r", "", 400, "InvalidRequest", []string{"X-Amz-Checksum-Crc32", "AAAAAA==", "X-Amz-Checksum-Sha1", "2jmj7l5rSw0yVb/vlWAYkK/YBwk="}},
		{"checksum that is none", "PUT", "/bucket/r", "", 400, "InvalidRequest", []string{"X-Amz-Checksum-Xxhash3", "AAAA"}},
		{"checksum of other data", "PUT", "/bucket/r", "data", 400, "BadDigest", []string{"X-Amz-Checksum-Xxhash64", "AAAAAAAAAAA="}},
		{"digest", "PUT", "/bucket/r", "data", 400, "BadDigest", []string{"Content-Md5", "1B2M2Y8AsgTpgAmY7PhCfg=="}},
		{"digest that is none", "PUT", "/bucket/r", "data", 400, "InvalidDigest", []string{"Content-Md5", "x"}},
		{"checksum without a value", "PUT", "/bucket/r", "data", 400, "InvalidRequest", []string{"X-Amz-Checksum-Crc32", ""}},
		{"website by another protocol", "PUT", "/bucket?website", "<WebsiteConfiguration><RedirectAllRequestsTo><HostName>h</HostName><Protocol>ftp</Protocol></RedirectAllRequestsTo></WebsiteConfiguration>", 400, "InvalidRequest", nil},
		{"website of two kinds", "PUT", "/bucket?website", "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RedirectAllRequestsTo><HostName>h</HostName></RedirectAllRequestsTo></WebsiteConfiguration>", 400, "MalformedXML", nil},
		{"redirect by a code that is none", "PUT", "/bucket?website", "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Redirect><HttpRedirectCode>300</HttpRedirectCode></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>", 400, "InvalidRequest", nil},
		{"redirect for an error that is none", "PUT", "/bucket?website", "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Condition><HttpErrorCodeReturnedEquals>200</HttpErrorCodeReturnedEquals></Condition><Redirect><HostName>h</HostName></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>", 400, "InvalidRequest", nil},
		{"redirect by two keys", "PUT", "/bucket?website", "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Redirect><ReplaceKeyWith>a</ReplaceKeyWith><ReplaceKeyPrefixWith>b</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>", 400, "InvalidRequest", nil},
		{"method", "PATCH", "/bucket/k", "", 501, "NotImplemented", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, text := do(t, e, c.method, c.path, c.body, c.status, c.header...); !strings.Contains(text, "<Code>"+c.code+"</Code>") {
				t.Errorf("%s, want %s", text, c.code)
			}
		})
	}
}

func TestSignatures_AreRefusedAsS3Does(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	do(t, e, "PUT", "/bucket/k", "data", 200, "X-Amz-Acl", "public-read")
	ask := func(change func(*http.Request)) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "GET", e.URL+"/bucket/k", nil)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Status[:4] + string(text)
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	sign := func(r *http.Request, with func(*v4.SignerOptions)) {
		r.Header.Set("X-Amz-Content-Sha256", empty)
		k := keys
		if r.Header.Get("X-Other-Key") != "" {
			k.AccessKeyID = "AKIANOBODY"
		}
		if err := signer.SignHTTP(t.Context(), k, r, empty, "s3", wiretest.Region, time.Now(), with); err != nil {
			t.Fatal(err)
		}
	}
	plain := func(*v4.SignerOptions) {}
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   []string
	}{
		{"open", func(*http.Request) {}, []string{"200 data"}},
		{"overrides without a signature", func(r *http.Request) { r.URL.RawQuery = "response-content-type=text/html" }, []string{"400 ", "<Code>InvalidRequest</Code><Message>Request specific response headers cannot be used for anonymous GET requests."}},
		{"unknown key", func(r *http.Request) { r.Header.Set("X-Other-Key", "1"); sign(r, plain) }, []string{"403 ", "<Code>InvalidAccessKeyId</Code>", "<AWSAccessKeyId>AKIANOBODY</AWSAccessKeyId>"}},
		{"header that is not signed", func(r *http.Request) { sign(r, plain); r.Header.Set("X-Amz-Tagging", "a=b") }, []string{"403 ", "<Code>AccessDenied</Code><Message>There were headers present in the request which were not signed</Message><HeadersNotSigned>x-amz-tagging</HeadersNotSigned>"}},
		{"presigned by another algorithm", func(r *http.Request) { r.URL.RawQuery = "X-Amz-Algorithm=ROT13&X-Amz-Signature=0" }, []string{"400 ", "<Code>AuthorizationQueryParametersError</Code>"}},
		{"presigned without a date", func(r *http.Request) {
			r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0&X-Amz-Credential=a&X-Amz-SignedHeaders=host"
		}, []string{"400 ", "<Code>AuthorizationQueryParametersError</Code>"}},
		{"authorization that is none", func(r *http.Request) { r.Header.Set("Authorization", "Basic eA==") }, []string{"400 ", "<Code>AuthorizationHeaderMalformed</Code>"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ask(c.change)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s, want %s", got, want)
				}
			}
		})
	}
}

// A new object has the lock of its bucket; one that comes with its own keeps that.
func TestLock_IsTheBucketsForWhatComesWithoutOne(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	do(t, e, "PUT", "/locked", "", 200, "X-Amz-Bucket-Object-Lock-Enabled", "true")
	for _, bad := range []string{"<Days>0</Days>", "<Days>1</Days><Years>1</Years>", "", "<Years>101</Years>"} {
		do(t, e, "PUT", "/locked?object-lock", "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode>"+bad+"</DefaultRetention></Rule></ObjectLockConfiguration>", 400)
	}
	do(t, e, "PUT", "/locked?object-lock", "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Years>1</Years></DefaultRetention></Rule></ObjectLockConfiguration>", 200)
	do(t, e, "PUT", "/locked/put", "x", 200)
	do(t, e, "PUT", "/locked/copy", "", 200, "X-Amz-Copy-Source", "locked/put")
	_, text := do(t, e, "POST", "/locked/parts?uploads", "", 200)
	id := between(t, text, "<UploadId>", "</UploadId>")
	h, _ := do(t, e, "PUT", "/locked/parts?partNumber=1&uploadId="+id, "x", 200)
	do(t, e, "POST", "/locked/parts?uploadId="+id, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"+h.Get("Etag")+"</ETag></Part></CompleteMultipartUpload>", 200)
	for _, key := range []string{"put", "copy", "parts"} {
		h, _ := do(t, e, "HEAD", "/locked/"+key, "", 200)
		until, err := time.Parse(time.RFC3339, h.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		if h.Get("X-Amz-Object-Lock-Mode") != "COMPLIANCE" || err != nil || until.Before(time.Now().AddDate(0, 11, 0)) || until.After(time.Now().AddDate(1, 0, 1)) {
			t.Errorf("%s: %v", key, h)
		}
		do(t, e, "DELETE", "/locked/"+key+"?versionId="+h.Get("X-Amz-Version-Id"), "", 403, "X-Amz-Bypass-Governance-Retention", "true")
	}
	do(t, e, "PUT", "/locked/own", "x", 200, "X-Amz-Object-Lock-Mode", "GOVERNANCE", "X-Amz-Object-Lock-Retain-Until-Date", "2099-01-01T00:00:00Z")
	if h, _ := do(t, e, "HEAD", "/locked/own", "", 200); h.Get("X-Amz-Object-Lock-Mode") != "GOVERNANCE" || !strings.HasPrefix(h.Get("X-Amz-Object-Lock-Retain-Until-Date"), "2099-01-01") {
		t.Error(h)
	}
}

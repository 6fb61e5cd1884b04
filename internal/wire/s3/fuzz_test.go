package s3_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ebb-run/ebb/internal/checksum"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/s3"
	"github.com/ebb-run/ebb/internal/wire/sign"
	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

// rig answers requests without a network.
type rig struct {
	h       http.Handler
	objects store.Objects
}

func newRig(f testing.TB) *rig {
	f.Helper()
	o := open(f, nil)
	if err := o.CreateBucket(context.Background(), bucket, store.Bucket{}); err != nil {
		f.Fatal(err)
	}
	h, err := wire.New(wire.Options{
		Services: []*wire.Service{s3.New(s3.Options{Objects: o, Authenticate: authenticate})}, Authenticate: authenticate,
		Anonymous: wire.Caller{Tenant: "default", Account: wiretest.Account}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	return &rig{h, o}
}

var (
	signer = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	keys   = aws.Credentials{AccessKeyID: wiretest.AccessKey, SecretAccessKey: wiretest.SecretKey}
)

var credentials = sign.Credentials{AccessKey: wiretest.AccessKey, Secret: wiretest.SecretKey}

func (r *rig) put(t testing.TB, key, data string) {
	t.Helper()
	if _, err := r.objects.Put(context.Background(), store.ObjectKey{Bucket: bucket, Key: key}, store.PutObject{Body: strings.NewReader(data)}); err != nil {
		t.Fatal(err)
	}
}

// send signs a request and gives the answer.
func (r *rig) send(t testing.TB, method string, u *url.URL, header http.Header, body string) *http.Response {
	t.Helper()
	req := &http.Request{Method: method, URL: u, Host: "s3.us-east-1.amazonaws.com", Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), RemoteAddr: "127.0.0.1:1", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	sign.Sign(req, []byte(body), credentials, "us-east-1", "s3", time.Now())
	return r.serve(t, req)
}

// serve wants an answer of S3's: what is refused has its form, and nothing is the server's fault.
func (r *rig) serve(t testing.TB, req *http.Request) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	r.h.ServeHTTP(w, req)
	resp := w.Result()
	if resp.StatusCode < 400 {
		return resp
	}
	var e struct {
		XMLName                  xml.Name `xml:"Error"`
		Code, Message, RequestId string   //nolint:revive // the element's name
	}
	body := w.Body.Bytes()
	if err := xml.Unmarshal(body, &e); req.Method != http.MethodHead && (err != nil || e.Code == "" || e.Message == "" || e.RequestId == "") || e.Code == "InternalError" || resp.StatusCode >= 500 && resp.StatusCode != 501 {
		t.Fatalf("%s %s: %s\n%s", req.Method, req.URL, resp.Status, body)
	}
	return resp
}

func text(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func address(key, query string) *url.URL { return &url.URL{Path: "/bucket" + key, RawQuery: query} }

// What is given of a range is what its Content-Range says, whatever was asked for.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=-5", "bytes=5-", "bytes=100-", "bytes=5-1", "bytes=0-1,3-4", "bytes=-0", "bytes=--1", "items=0-1", "bytes=9223372036854775807-", "bytes=-9223372036854775808", "bytes=+1-2", " bytes=1-2 ", "bytes=0-99999999999999999999"} {
		f.Add(s, "")
	}
	f.Add("", "1")
	f.Add("bytes=0-1", "1")
	f.Add("", "10001")
	r := newRig(f)
	data := strings.Repeat("0123456789", 7)
	r.put(f, "k", data)
	f.Fuzz(func(t *testing.T, rng, part string) {
		q := url.Values{}
		if part != "" {
			q.Set("partNumber", part)
		}
		h := http.Header{}
		if rng != "" {
			h.Set("Range", rng)
		}
		resp := r.send(t, "GET", address("/k", q.Encode()), h, "")
		body := text(t, resp)
		switch resp.StatusCode {
		case 200:
			if body != data {
				t.Errorf("%q: all is %q", rng, body)
			}
		case 206:
			var from, to, size int
			if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size); err != nil || size != len(data) || from < 0 || to >= len(data) || body != data[from:to+1] {
				t.Errorf("%q: %q with %v", rng, body, resp.Header)
			}
		case 400, 416:
		default:
			t.Errorf("%q: %s", rng, resp.Status)
		}
	})
}

// documentsPut are the addresses that take a document, and where one begins.
var documentsPut = []struct{ method, key, query, seed string }{
	{"POST", "", "delete", "<Delete><Object><Key>none</Key></Object><Quiet>true</Quiet></Delete>"},
	{"POST", "/up", "uploadId=UPLOAD", "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"},
	{"PUT", "/k", "tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"},
	{"PUT", "", "tagging", "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"},
	{"PUT", "", "lifecycle", "<LifecycleConfiguration><Rule><Status>Enabled</Status><Filter/><Expiration><Days>9999</Days></Expiration></Rule></LifecycleConfiguration>"},
	{"PUT", "", "cors", "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin><MaxAgeSeconds>1</MaxAgeSeconds></CORSRule></CORSConfiguration>"},
	{"PUT", "", "notification", "<NotificationConfiguration><QueueConfiguration><Queue>arn:aws:sqs:us-east-1:0:q</Queue><Event>s3:ObjectCreated:*</Event><Filter><S3Key><FilterRule><Name>prefix</Name><Value>a</Value></FilterRule></S3Key></Filter></QueueConfiguration></NotificationConfiguration>"},
	{"PUT", "", "website", "<WebsiteConfiguration><IndexDocument><Suffix>i</Suffix></IndexDocument><RoutingRules><RoutingRule><Redirect><HostName>h</HostName></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>"},
	{"PUT", "", "versioning", "<VersioningConfiguration><Status>Off</Status></VersioningConfiguration>"},
	{"PUT", "", "policy", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"*","Condition":{"Null":{"aws:x":true}}}}`},
	{"PUT", "", "acl", "<AccessControlPolicy><AccessControlList><Grant><Grantee><URI>u</URI></Grantee><Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>"},
	{"PUT", "/k", "retention", "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>"},
	{"PUT", "/k", "legal-hold", "<LegalHold><Status>ON</Status></LegalHold>"},
	{"PUT", "", "publicAccessBlock", "<PublicAccessBlockConfiguration><IgnorePublicAcls>true</IgnorePublicAcls></PublicAccessBlockConfiguration>"},
	{"PUT", "", "encryption", "<ServerSideEncryptionConfiguration/>"},
	{"PUT", "", "object-lock", "<ObjectLockConfiguration/>"},
	{"PUT", "", "ownershipControls", "<OwnershipControls/>"},
	{"PUT", "", "logging", "<BucketLoggingStatus/>"},
	{"PUT", "", "accelerate", "<AccelerateConfiguration/>"},
	{"PUT", "", "requestPayment", "<RequestPaymentConfiguration/>"},
	{"PUT", "-new", "", "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>"},
}

// Documents are taken or refused in S3's form; what was taken is acted on, and given back, without a fault.
func FuzzDocuments(f *testing.F) {
	for i, d := range documentsPut {
		f.Add(byte(i), d.seed)
		f.Add(byte(i), d.seed[:len(d.seed)/2])
		f.Add(byte(i), "")
		f.Add(byte(i), "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>")
	}
	f.Add(byte(0), "<Delete><Object><Key></Key></Object></Delete>")
	f.Add(byte(5), "<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>a*</AllowedOrigin><MaxAgeSeconds>99999999999999999999</MaxAgeSeconds></CORSRule></CORSConfiguration>")
	f.Add(byte(9), `{"Statement":[{"Effect":"Deny","NotPrincipal":"*","NotAction":[],"NotResource":"\u0000"}]}`)
	r := newRig(f)
	f.Fuzz(func(t *testing.T, kind byte, body string) {
		d := documentsPut[int(kind)%len(documentsPut)]
		r.put(t, "k", "data")
		u, err := r.objects.CreateUpload(t.Context(), store.ObjectKey{Bucket: bucket, Key: "up"}, store.CreateUpload{})
		if err != nil {
			t.Fatal(err)
		}
		resp := r.send(t, d.method, address(d.key, strings.Replace(d.query, "UPLOAD", u.ID, 1)), nil, body)
		_ = r.objects.AbortUpload(t.Context(), store.ObjectKey{Bucket: bucket, Key: "up"}, u.ID) // gone where it was completed
		if resp.StatusCode < 300 && d.method == "PUT" && d.query != "" {
			if got := r.send(t, "GET", address(d.key, d.query), nil, ""); got.StatusCode >= 500 || d.query != "tagging" && got.StatusCode != 200 && d.query != "retention" && d.query != "legal-hold" {
				t.Errorf("what was taken is given back with %s", got.Status)
			}
		}
		site := &http.Request{Method: "GET", URL: &url.URL{Path: "/a/b"}, Host: "bucket.s3-website.localhost", Header: http.Header{"Origin": {"https://a.example"}}, Body: http.NoBody}
		r.h.ServeHTTP(httptest.NewRecorder(), site)
		r.serve(t, &http.Request{Method: "OPTIONS", URL: address("/k", ""), Host: "localhost", Header: http.Header{"Origin": {"https://a.example"}, "Access-Control-Request-Method": {"GET"}}, Body: http.NoBody})
		r.serve(t, &http.Request{Method: "GET", URL: address("/k", ""), Host: "localhost", Header: http.Header{}, Body: http.NoBody})
		if _, err := s3.Expire(t.Context(), r.objects, bucket, time.Now()); err != nil {
			t.Error(err)
		}
		b, err := r.objects.Bucket(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range s3.NotificationsOf(b).List {
			n.Wants(store.ObjectChange{Key: "k", Event: store.ObjectEvent{Name: "ObjectCreated:Put"}})
		}
		// Each run begins with a bucket that nothing was said of.
		if err := r.objects.SetBucket(t.Context(), bucket, func(b *store.Bucket) error { b.Documents, b.Tags, b.Versioning = nil, nil, ""; return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := r.objects.Update(t.Context(), store.ObjectKey{Bucket: bucket, Key: "k"}, "", store.ObjectEvent{}, func(m *store.ObjectMeta) error { *m = store.ObjectMeta{}; return nil }); err != nil {
			t.Fatal(err)
		}
	})
}

func formPolicy(policy string) map[string]string {
	day := time.Now().UTC().Format("20060102")
	key := []byte("AWS4" + wiretest.SecretKey)
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	for _, part := range []string{day, "us-east-1", "s3", "aws4_request"} {
		key = mac(key, part)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(policy))
	return map[string]string{
		"policy": encoded, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": wiretest.AccessKey + "/" + day + "/us-east-1/s3/aws4_request",
		"x-amz-signature": hex.EncodeToString(mac(key, encoded)),
	}
}

const (
	openPolicy = `{"expiration":"2099-01-01T00:00:00Z","conditions":[{"bucket":"bucket"},["starts-with","$key",""],["starts-with","$x-amz-credential",""],["starts-with","$x-amz-algorithm",""]]}`
	lastPolicy = `{"expiration":"2099-01-01T00:00:00Z","conditions":[{"bucket":"bucket"},["content-length-range",0,5],["eq","$key","k"],["starts-with","$x-amz-credential",""],["starts-with","$x-amz-algorithm",""]]}`
)

// A form whose policy is signed puts the file's bytes under its key, or nothing.
func FuzzForm(f *testing.F) {
	f.Add(openPolicy, "k", "f.txt", "content-type", "text/plain", "data")
	f.Add(openPolicy, "${filename}", "a/b\\c.txt", "x-amz-meta-a", "\r\nX: y", "")
	f.Add(openPolicy, "../${filename}/${filename}", "..", "tagging", "<Tagging/>", "x")
	f.Add(lastPolicy, "k", "f", "x-ignore-a", "b", "123456")
	f.Add(`{"expiration":"2099-01-01T00:00:00Z","conditions":[["eq","key","k"]]}`, "k", "f", "", "", "d")
	f.Add(`{"expiration":"never","conditions":null}`, "k", "f", "success_action_status", "201", "d")
	f.Add(`{"expiration":"2099-01-01T00:00:00Z","conditions":[["content-length-range","-1",1e300],{"a":"b","c":"d"},[]]}`, "k", "f", "success_action_redirect", "http://[::1", "d")
	r := newRig(f)
	f.Fuzz(func(t *testing.T, policy, key, file, name, value, data string) {
		fields := formPolicy(policy)
		fields["key"] = key
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		for _, k := range slices.Sorted(func(yield func(string) bool) {
			for k := range fields {
				if !yield(k) {
					return
				}
			}
		}) {
			_ = w.WriteField(k, fields[k])
		}
		if name != "" {
			_ = w.WriteField(name, value)
		}
		p, err := w.CreateFormFile("file", file)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(p, data)
		_ = w.Close()
		resp := r.serve(t, &http.Request{Method: "POST", URL: address("", ""), Host: "localhost", Header: http.Header{"Content-Type": {w.FormDataContentType()}}, Body: io.NopCloser(&body), ContentLength: int64(body.Len())})
		if resp.StatusCode >= 400 || strings.EqualFold(name, "key") || strings.EqualFold(name, "file") {
			return
		}
		base := strings.ReplaceAll(file, "\\", "/")
		if strings.Contains(key, "${filename}") && base != "" || !utf8.ValidString(key) {
			return // its name is asked for below
		}
		if got := r.send(t, "GET", address("/"+key, ""), nil, ""); got.StatusCode != 200 || text(t, got) != data {
			t.Errorf("the form was taken, and %q is %s", key, got.Status)
		}
	})
}

// Whatever a form's body is, it is answered.
func FuzzFormBody(f *testing.F) {
	f.Add("boundary=B", "--B\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nd\r\n--B--\r\n")
	f.Add("boundary=B", "--B\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n"+strings.Repeat("x", 21<<10))
	f.Add("boundary=", "")
	f.Add("boundary=B", "--B\r\n\r\n--B\r\nContent-Disposition: x; name=file\r\n\r\n")
	r := newRig(f)
	f.Fuzz(func(t *testing.T, params, body string) {
		resp := r.serve(t, &http.Request{Method: "POST", URL: address("", ""), Host: "localhost", Header: http.Header{"Content-Type": {"multipart/form-data; " + params}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))})
		if resp.StatusCode < 400 {
			t.Errorf("a form without a signature was taken: %s", resp.Status)
		}
	})
}

// A body in chunks is taken when it is whole and as its trailer says, and is then what was stored.
func FuzzChunked(f *testing.F) {
	const sum = "x-amz-checksum-crc32:NhCmhg=="
	f.Add("5\r\nhello\r\n0\r\n"+sum+"\r\n\r\n", int64(5), "x-amz-checksum-crc32")
	f.Add("2\r\nhe\r\n3\r\nllo\r\n0\r\n"+sum+"\r\n\r\n", int64(5), "x-amz-checksum-crc32")
	f.Add("5\r\nhello\r\n0\r\n\r\n", int64(5), "x-amz-checksum-crc32")
	f.Add("5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:AAAAAAAAAAA=\r\n\r\n", int64(5), "x-amz-checksum-crc64nvme")
	f.Add("5\r\nhello\r\n0\r\nx-amz-checksum-xxhash128:AA==\r\n", int64(5), "x-amz-checksum-xxhash128")
	f.Add("0\r\n\r\n", int64(0), "")
	f.Add("FFFFFFFFFFFFFFFF\r\n", int64(1)<<62, "x-amz-checksum-sha256")
	f.Add("-5\r\nhello", int64(-5), "x-amz-checksum-nothing")
	r := newRig(f)
	f.Fuzz(func(t *testing.T, body string, length int64, trailer string) {
		h := http.Header{"X-Amz-Decoded-Content-Length": {strconv.FormatInt(length, 10)}, "Content-Encoding": {"aws-chunked"}}
		if trailer != "" {
			h.Set("X-Amz-Trailer", trailer)
		}
		resp := r.stream(t, address("/chunked", ""), h, body)
		if resp.StatusCode != 200 {
			return
		}
		got := text(t, r.send(t, "GET", address("/chunked", ""), nil, ""))
		if int64(len(got)) != length {
			t.Fatalf("%d bytes of %d are stored", len(got), length)
		}
		for _, a := range checksum.All() {
			if !strings.EqualFold(strings.TrimSpace(trailer), "x-amz-checksum-"+string(a)) {
				continue
			}
			sum := checksum.New(a)
			_, _ = io.WriteString(sum, got)
			if want := base64.StdEncoding.EncodeToString(sum.Sum(nil)); !strings.Contains(body, want) {
				t.Errorf("%q was taken with %s of %q", body, a, want)
			}
		}
	})
}

// stream sends a body whose chunks are not signed.
func (r *rig) stream(t testing.TB, u *url.URL, h http.Header, body string) *http.Response {
	t.Helper()
	const streaming = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	req := &http.Request{Method: "PUT", URL: u, Host: "s3.us-east-1.amazonaws.com", Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	h.Set("X-Amz-Content-Sha256", streaming)
	if err := signer.SignHTTP(context.Background(), keys, req, streaming, "s3", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	return r.serve(t, req)
}

// A presigned address opens what was signed, and nothing when anything was added to it.
func FuzzPresigned(f *testing.F) {
	for _, s := range []string{"", "&", "&versionId=null", "&response-content-type=text/html", "&X-Amz-Expires=1", "&X-Amz-Signature=0", "&%", "&x=%zz", "&a=b;c", "#x", "&acl", "&X-Amz-Security-Token=", "%00", "&\u00e9"} {
		f.Add(s)
	}
	r := newRig(f)
	r.put(f, "k", "data")
	f.Fuzz(func(t *testing.T, more string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://s3.us-east-1.amazonaws.com/bucket/k?X-Amz-Expires=60", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		signed, _, err := signer.PresignHTTP(t.Context(), keys, req, "UNSIGNED-PAYLOAD", "s3", "us-east-1", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if req.URL, err = url.Parse(signed); err != nil {
			t.Fatal(err)
		}
		req.URL.RawQuery += more
		resp := r.serve(t, req)
		if resp.StatusCode < 400 && strings.Trim(more, "&") != "" {
			t.Errorf("with %q: %s", more, resp.Status)
		}
		if resp.StatusCode >= 400 && more == "" {
			t.Errorf("as it was signed: %s", resp.Status)
		}
	})
}

// A key is bytes: whatever it looks like, it names one object, and no other.
func FuzzKey(f *testing.F) {
	for _, k := range []string{"a", "a/b", "/a", "//", "..", "../x", "a/../b", "./a", ".", "a//b", "a/", " ", "a+b", "%2F", "%", "\x00", "\x01\x7f", "ä/😀", "\xff", "e\u0301", strings.Repeat("k", 1024), strings.Repeat("k", 1025), strings.Repeat("ä", 512), "?x", "#", "a\nb", "&<>\"'", "\ufeff", "\u2028", "k"} {
		f.Add(k, "data")
	}
	r := newRig(f)
	r.put(f, "other", "stands")
	f.Fuzz(func(t *testing.T, key, data string) {
		if key == "" || key == "other" {
			return
		}
		at := address("/"+key, "")
		resp := r.send(t, "PUT", at, nil, data)
		if valid := utf8.ValidString(key) && len(key) <= store.MaxKey; valid != (resp.StatusCode == 200) {
			t.Fatalf("%q: %s", key, resp.Status)
		}
		if resp.StatusCode != 200 {
			return
		}
		if got := text(t, r.send(t, "GET", at, nil, "")); got != data {
			t.Errorf("%q is %q, want %q", key, got, data)
		}
		var list struct {
			Contents []struct{ Key string }
		}
		if err := xml.Unmarshal([]byte(text(t, r.send(t, "GET", address("", "list-type=2&encoding-type=url"), nil, ""))), &list); err != nil {
			t.Fatal(err)
		}
		want := []string{key, "other"}
		sort.Strings(want)
		var got []string
		for _, c := range list.Contents {
			k, err := url.QueryUnescape(c.Key)
			if err != nil {
				t.Error(err)
			}
			got = append(got, k)
		}
		if !slices.Equal(got, want) {
			t.Errorf("listed %q, want %q", got, want)
		}
		copied := r.send(t, "PUT", address("/other", ""), http.Header{"X-Amz-Copy-Source": {"/bucket/" + url.PathEscape(key)}}, "")
		if got, _ := io.ReadAll(r.send(t, "GET", address("/other", ""), nil, "").Body); copied.StatusCode != 200 || copied.StatusCode == 200 && string(got) != data {
			t.Errorf("a copy of %q: %s", key, copied.Status)
		}
		if r.send(t, "DELETE", at, nil, "").StatusCode != 204 || r.send(t, "HEAD", at, nil, "").StatusCode != 404 {
			t.Errorf("%q is there still", key)
		}
		r.put(t, "other", "stands")
	})
}

// A listing goes through all keys once, in order, in pages of any size; what cannot be read of its parameters is refused.
func FuzzList(f *testing.F) {
	f.Add("", "", "", "2", "")
	f.Add("a/", "/", "a/b", "1", "")
	f.Add("", "b", "", "1000", "url")
	f.Add("\xff", "\x00", "~", "0", "url")
	f.Add("a", "aa", "a", "-1", "other")
	f.Add("", "/", "a/", "99999999999", "")
	r := newRig(f)
	var names []string
	for _, a := range []string{"a", "b", "ä", "a/b", "a/c", "a/b/c", "b/", "/", "aa", "a b"} {
		names = append(names, a)
		r.put(f, a, "")
	}
	sort.Strings(names)
	f.Fuzz(func(t *testing.T, prefix, delimiter, after, most, encoding string) {
		var want []string // as the API documents it
		for _, k := range names {
			rest, ok := strings.CutPrefix(k, prefix)
			if !ok {
				continue
			}
			entry := k
			if i := strings.Index(rest, delimiter); delimiter != "" && i >= 0 {
				entry = k[:len(prefix)+i+len(delimiter)]
			}
			if k > after && !slices.Contains(want, entry) && (entry == k || !strings.HasPrefix(after, entry)) {
				want = append(want, entry)
			}
		}
		q := url.Values{"list-type": {"2"}, "prefix": {prefix}, "delimiter": {delimiter}, "start-after": {after}, "max-keys": {most}, "encoding-type": {encoding}}
		var got []string
		for page := 0; ; page++ {
			resp := r.send(t, "GET", address("", q.Encode()), nil, "")
			body := text(t, resp)
			if resp.StatusCode != 200 {
				n, err := strconv.ParseInt(most, 10, 32)
				if badCount := err != nil || n < 0; !(badCount && most != "" || encoding != "" && encoding != "url") {
					t.Errorf("%v: %s %s", q, resp.Status, body)
				}
				return
			}
			var l struct {
				Contents              []struct{ Key string }
				CommonPrefixes        []struct{ Prefix string }
				IsTruncated           bool
				NextContinuationToken string
			}
			if err := xml.Unmarshal([]byte(body), &l); err != nil {
				t.Fatalf("%v: %v in %s", q, err, body)
			}
			plain := func(s string) string {
				if encoding == "url" {
					s, _ = url.QueryUnescape(s)
				}
				return s
			}
			var here []string
			for _, c := range l.Contents {
				here = append(here, plain(c.Key))
			}
			for _, p := range l.CommonPrefixes {
				here = append(here, plain(p.Prefix))
			}
			sort.Strings(here)
			got = append(got, here...)
			if n, err := strconv.Atoi(most); err == nil && len(here) > n || page > len(names) {
				t.Fatalf("%v: page %d has %q", q, page, here)
			}
			if !l.IsTruncated {
				if n, err := strconv.Atoi(most); err == nil && n == 0 {
					return // a page of nothing says that there is no more
				}
				break
			}
			q.Set("continuation-token", l.NextContinuationToken)
		}
		if !slices.Equal(got, want) && utf8.ValidString(delimiter) {
			t.Errorf("prefix %q, delimiter %q, after %q in pages of %q: %q, want %q", prefix, delimiter, after, most, got, want)
		}
	})
}

// Tokens that ebb did not give are refused or lead to a place in the listing.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "MQ==", "MWE=", "x", "////", "MQ", strings.Repeat("A", 4000), "MWE\n="} {
		f.Add(s)
	}
	r := newRig(f)
	for _, k := range []string{"a", "b", "c"} {
		r.put(f, k, "")
	}
	f.Fuzz(func(t *testing.T, token string) {
		for _, q := range []url.Values{
			{"list-type": {"2"}, "continuation-token": {token}}, {"marker": {token}}, {"versions": {""}, "key-marker": {token}, "version-id-marker": {token}},
			{"uploads": {""}, "key-marker": {token}, "upload-id-marker": {token}},
		} {
			if resp := r.send(t, "GET", address("", q.Encode()), nil, ""); resp.StatusCode != 200 && resp.StatusCode != 400 {
				t.Errorf("%v: %s", q, resp.Status)
			}
		}
		for _, path := range []string{"uploadId=" + url.QueryEscape(token), "versionId=" + url.QueryEscape(token), "uploadId=x&part-number-marker=" + url.QueryEscape(token), "attributes&versionId=" + url.QueryEscape(token)} {
			if resp := r.send(t, "GET", address("/a", path), nil, ""); resp.StatusCode >= 500 {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
	})
}

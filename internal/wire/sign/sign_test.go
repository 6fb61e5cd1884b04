package sign_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ebb-run/ebb/internal/wire/sign"
)

var (
	creds = aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
	day   = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

// served turns a client's request into what a server sees of it.
func served(t testing.TB, r *http.Request) *http.Request {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func hashed(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func request(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func check(r *http.Request, secret string, now time.Time) (*sign.Body, error) {
	s, err := sign.Parse(r)
	if err != nil {
		return nil, err
	}
	return s.Check(r, secret, sign.Options{Now: now, MaxBody: 1 << 20})
}

func kindOf(err error) sign.Kind {
	var f *sign.Fault
	if errors.As(err, &f) {
		return f.Kind
	}
	return ""
}

func TestCheck_TakesWhatTheSDKSigns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, method, url, service, body, token string }{
		{"plain", "POST", "https://sqs.us-east-1.amazonaws.com/", "sqs", `{"a":1}`, ""},
		{"token", "POST", "https://sqs.us-east-1.amazonaws.com/", "sqs", `{"a":1}`, "a+token/="},
		{"port", "POST", "http://127.0.0.1:4566/", "sts", "Action=GetCallerIdentity", ""},
		{"escaped path", "POST", "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A1%3Afunction%3Af/invocations", "lambda", "{}", ""},
		{"query", "GET", "https://lambda.eu-west-1.amazonaws.com/x?b=2&a=1&a=0&e=&s=a%20b&p=%2B%2F", "lambda", "", ""},
		{"key of a bucket", "PUT", "https://b.s3.eu-west-1.amazonaws.com/a%20b/%C3%A4%2B~x//y", "s3", "data", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := request(t, c.method, c.url, c.body)
			who := creds
			who.SessionToken = c.token
			r.Header.Set("X-Amz-Content-Sha256", hashed(c.body))
			r.Header.Set("X-Amz-Meta-Two", "a   b")
			err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = c.service == "s3" }).
				SignHTTP(context.Background(), who, r, hashed(c.body), c.service, "eu-west-1", day)
			if err != nil {
				t.Fatal(err)
			}
			b, err := check(served(t, r), creds.SecretAccessKey, day.Add(time.Minute))
			if err != nil || string(b.Data) != c.body {
				t.Fatalf("%v %v", b, err)
			}
			if _, err := check(served(t, again(t, r, c.body)), creds.SecretAccessKey+"x", day); kindOf(err) != sign.Mismatch {
				t.Errorf("another secret: %v", err)
			}
			for _, d := range []time.Duration{16 * time.Minute, -16 * time.Minute} {
				if _, err := check(served(t, again(t, r, c.body)), creds.SecretAccessKey, day.Add(d)); kindOf(err) != sign.Skewed {
					t.Errorf("%v later: %v", d, err)
				}
			}
		})
	}
}

// again is the request with its body unread.
func again(t testing.TB, r *http.Request, body string) *http.Request {
	t.Helper()
	c := r.Clone(t.Context())
	c.Body, c.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return c
}

func TestCheck_RefusesWhatWasChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   sign.Kind
	}{
		"nothing":         {func(*http.Request) {}, ""},
		"body":            {func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"a":2}`)) }, sign.Payload},
		"method":          {func(r *http.Request) { r.Method = "PUT" }, sign.Mismatch},
		"host":            {func(r *http.Request) { r.Host = "sns.us-east-1.amazonaws.com" }, sign.Mismatch},
		"path":            {func(r *http.Request) { r.URL.Path = "/x" }, sign.Mismatch},
		"query":           {func(r *http.Request) { r.URL.RawQuery = "a=b" }, sign.Mismatch},
		"target":          {func(r *http.Request) { r.Header.Set("X-Amz-Target", "AmazonSQS.PurgeQueue") }, sign.Mismatch},
		"unsigned header": {func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") }, sign.Unsigned},
		"date":            {func(r *http.Request) { r.Header.Set("X-Amz-Date", "20260304T050608Z") }, sign.Mismatch},
		"scope": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "/sqs/", "/sns/", 1))
		}, sign.Mismatch},
		"no signature": {func(r *http.Request) { r.Header.Del("Authorization") }, sign.Missing},
		"half":         {func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a") }, sign.Incomplete},
		"version 2":    {func(r *http.Request) { r.Header.Set("Authorization", "AWS a:b") }, sign.Unsigned},
		"host unsigned": {func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "host;", "", 1))
		}, sign.Unsigned},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const body = `{"a":1}`
			r := request(t, "POST", "https://sqs.us-east-1.amazonaws.com/", body)
			r.Header.Set("X-Amz-Target", "AmazonSQS.SendMessage")
			r.Header.Set("X-Amz-Content-Sha256", hashed(body))
			if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hashed(body), "sqs", "us-east-1", day); err != nil {
				t.Fatal(err)
			}
			c.change(r)
			if _, err := check(served(t, r), creds.SecretAccessKey, day); kindOf(err) != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestCheck_TakesPresignedURLsUntilTheyEnd(t *testing.T) {
	t.Parallel()
	r := request(t, "GET", "https://b.s3.us-east-1.amazonaws.com/a%20b.txt?X-Amz-Expires=3600&versionId=x", "")
	target, _, err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).
		PresignHTTP(t.Context(), creds, r, "UNSIGNED-PAYLOAD", "s3", "us-east-1", day)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		target string
		now    time.Time
		want   sign.Kind
	}{
		"in time": {target, day.Add(59 * time.Minute), ""}, "late": {target, day.Add(61 * time.Minute), sign.Expired}, "early": {target, day.Add(-time.Hour), sign.Skewed},
		"longer": {strings.Replace(target, "Expires=3600", "Expires=36000", 1), day, sign.Mismatch}, "another key": {strings.Replace(target, "b.txt", "c.txt", 1), day, sign.Mismatch},
		"too long": {strings.Replace(target, "Expires=3600", "Expires=9999999", 1), day, sign.Incomplete},
	} {
		_, err := check(served(t, request(t, "GET", c.target, "")), creds.SecretAccessKey, c.now)
		if kindOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// trailerSignature is that of the S3 API, "Signature calculations: trailing headers", which the SDK for Go does not export.
func trailerSignature(previous, lines string) string {
	key := []byte("AWS4" + creds.SecretAccessKey)
	text := "AWS4-HMAC-SHA256-TRAILER\n20260304T050607Z\n20260304/us-east-1/s3/aws4_request\n" + previous + "\n" + hashed(lines)
	for _, part := range []string{"20260304", "us-east-1", "s3", "aws4_request", text} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	return hex.EncodeToString(key)
}

// chunked writes a body in signed chunks, as the SDKs do, and the request around it.
func chunked(t testing.TB, parts []string, trailer string, signed bool) *http.Request {
	t.Helper()
	r := request(t, "PUT", "https://b.s3.us-east-1.amazonaws.com/k", "")
	payload := "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	switch {
	case !signed:
		payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	case trailer != "":
		payload += "-TRAILER"
	}
	r.Header.Set("X-Amz-Content-Sha256", payload)
	r.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(len(strings.Join(parts, ""))))
	if err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), creds, r, payload, "s3", "us-east-1", day); err != nil {
		t.Fatal(err)
	}
	_, seed, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	first, err := hex.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	stream := v4.NewStreamSigner(creds, "s3", "us-east-1", first)
	var b strings.Builder
	for _, p := range append(parts, "") {
		b.WriteString(fmt.Sprintf("%x", len(p)))
		if signed {
			sig, err := stream.GetSignature(t.Context(), nil, []byte(p), day)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString(";chunk-signature=" + hex.EncodeToString(sig))
			first = sig
		}
		b.WriteString("\r\n")
		if p != "" {
			b.WriteString(p + "\r\n")
		}
	}
	if trailer != "" {
		b.WriteString(trailer + "\r\n")
		if signed {
			b.WriteString("x-amz-trailer-signature:" + trailerSignature(hex.EncodeToString(first), trailer+"\n") + "\r\n")
		}
	}
	b.WriteString("\r\n")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(b.String())), int64(b.Len())
	return r
}

func TestCheck_ReadsChunks(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 70_000)
	for _, c := range []struct {
		name, trailer string
		parts         []string
		signed        bool
	}{
		{"signed", "", []string{"hello ", big, "world"}, true}, {"empty", "", nil, true},
		{"signed with trailer", "x-amz-checksum-crc32:AAAAAA==", []string{"hello"}, true}, {"unsigned with trailer", "x-amz-checksum-crc32:AAAAAA==", []string{"hello", big}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := served(t, chunked(t, c.parts, c.trailer, c.signed))
			s, err := sign.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := s.Check(r, creds.SecretAccessKey, sign.Options{Now: day, Stream: true})
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(b.Reader)
			if err != nil || string(data) != strings.Join(c.parts, "") || b.Length != int64(len(data)) {
				t.Fatalf("%d bytes, %v", len(data), err)
			}
			if _, want, _ := strings.Cut(c.trailer, ":"); b.Trailer().Get("x-amz-checksum-crc32") != want {
				t.Errorf("trailer %v", b.Trailer())
			}
		})
	}
}

func TestCheck_EndsChunksThatAreNotWhatWasSigned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old, new string
		want     sign.Kind
	}{
		"byte": {"hello", "hellp", sign.Mismatch}, "shorter": {"5;", "4;", sign.Cut}, "larger than told": {"5;", "ff;", sign.Cut}, "no size": {"5;", ";", sign.Cut},
		"no signature": {";chunk-signature=", ";x=", sign.Incomplete}, "negative": {"5;", "-5;", sign.Cut},
		"trailer": {"crc32:AAAA", "crc32:BAAA", sign.Mismatch}, "no trailer signature": {"x-amz-trailer-signature:", "x-amz-other:", sign.Mismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := chunked(t, []string{"hello"}, "x-amz-checksum-crc32:AAAAAA==", true)
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(body, []byte(c.old)) {
				t.Fatalf("no %q in %s", c.old, body)
			}
			changed := strings.Replace(string(body), c.old, c.new, 1)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(changed)), int64(len(changed))
			if _, err := check(served(t, r), creds.SecretAccessKey, day); kindOf(err) != c.want {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	r := chunked(t, []string{"hello"}, "", true)
	body, _ := io.ReadAll(r.Body)
	for n := range len(body) - 4 { // without the last line's end it is whole
		r := chunked(t, []string{"hello"}, "", true)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body[:n])), int64(n)
		if _, err := check(served(t, r), creds.SecretAccessKey, day); err == nil {
			t.Fatalf("cut after %d bytes: it is taken", n)
		}
	}
}

func TestCheck_BoundsWhatIsBuffered(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 1<<20+1)
	for _, withHash := range []bool{true, false} {
		r := request(t, "POST", "https://sqs.us-east-1.amazonaws.com/", body)
		if withHash {
			r.Header.Set("X-Amz-Content-Sha256", hashed(body))
		}
		if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hashed(body), "sqs", "us-east-1", day); err != nil {
			t.Fatal(err)
		}
		if _, err := check(served(t, r), creds.SecretAccessKey, day); kindOf(err) != sign.TooLarge {
			t.Errorf("with its hash %v: %v", withHash, err)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/20260304/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "1\r\na\r\n0\r\n\r\n")
	f.Add("AWS AKID:c2lnbmF0dXJl", "", "acl&versionId=1", "")
	f.Add("", "", "AWSAccessKeyId=AKID&Signature=c2ln&Expires=1772600000", "")
	f.Add("AWS4-HMAC-SHA256 Credential=a/20260304/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-trailer,Signature=00", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "", "1;chunk-signature=0\r\na\r\n0;chunk-signature=0\r\nx-amz-checksum-crc32:AA==\r\nx-amz-trailer-signature:0\r\n\r\n")
	f.Add("", "", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/20260304/r/s3/aws4_request&X-Amz-Date=20260304T050607Z&X-Amz-SignedHeaders=host&X-Amz-Signature=0", "")
	f.Fuzz(func(t *testing.T, header, hash, query, body string) {
		r := httptest.NewRequest("PUT", "/k", strings.NewReader(body))
		r.URL.RawQuery, r.RequestURI = query, "/k?"+query
		r.Header = http.Header{"Authorization": {header}, "X-Amz-Content-Sha256": {hash}, "X-Amz-Date": {"20260304T050607Z"}, "X-Amz-Decoded-Content-Length": {"1"}}
		if _, err := url.ParseQuery(query); err != nil {
			return
		}
		if b, err := check(r, "secret", day); err == nil {
			t.Errorf("taken: %+v", b)
		}
	})
}

func FuzzChunks(f *testing.F) {
	f.Add("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AA==\r\n\r\n")
	f.Add("5;chunk-signature=a\r\nhello\r\n0\r\n\r\n")
	f.Fuzz(func(t *testing.T, body string) {
		r := chunked(t, []string{"hello"}, "x-amz-a:b", false)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		b, err := check(r, creds.SecretAccessKey, day)
		if err == nil && len(b.Data) != 5 {
			t.Errorf("%d bytes were taken for 5", len(b.Data))
		}
		if err != nil && kindOf(err) == "" {
			t.Errorf("an error that is no fault: %v", err)
		}
	})
}

package pass_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ebb-run/ebb/internal/certs"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store/fs"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/pass"
	"github.com/ebb-run/ebb/internal/wire/s3"
	"github.com/ebb-run/ebb/internal/wire/sign"
	"github.com/ebb-run/ebb/internal/wire/sqs"
)

var (
	operator = aws.Credentials{AccessKeyID: "AKIAOPERATOR", SecretAccessKey: "operators-secret", SessionToken: "operators-token"}
	function = aws.Credentials{AccessKeyID: "ASIAFUNCTION", SecretAccessKey: "functions-secret", SessionToken: "functions-token"}
)

// cloud stands for the real AWS: it checks the operator's signature, and answers with what it got.
type cloud struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string // of requests that were whole and rightly signed
	heads  []http.Header
	urls   []string
	answer http.HandlerFunc // in place of the usual one
}

func newCloud(t *testing.T) (*cloud, *x509.CertPool) {
	t.Helper()
	src, err := certs.OpenCaptured(t.TempDir(), []string{"amazonaws.com"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	c := &cloud{}
	c.Server = httptest.NewUnstartedServer(c)
	c.TLS = src.Config()
	c.StartTLS()
	t.Cleanup(c.Close)
	pool := x509.NewCertPool()
	pool.AddCert(src.CA())
	return c, pool
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	claim, err := sign.Parse(r)
	var body []byte
	if err == nil && (claim.AccessKey != operator.AccessKeyID || claim.Token != operator.SessionToken) {
		err = fmt.Errorf("signed by %s", claim.AccessKey)
	}
	if err == nil {
		var b *sign.Body
		if b, err = claim.Check(r, operator.SecretAccessKey, sign.Options{Now: time.Now(), MaxBody: 64 << 20, Path: r.URL.EscapedPath()}); err == nil {
			body = b.Data
			if sum := b.Trailer().Get("X-Amz-Checksum-Crc32"); sum != "" && sum != crc(body) {
				err = fmt.Errorf("checksum %s", sum)
			}
		}
	}
	if err != nil {
		http.Error(w, "the cloud refuses: "+err.Error(), http.StatusForbidden)
		return
	}
	c.mu.Lock()
	c.bodies, c.heads, c.urls = append(c.bodies, string(body)), append(c.heads, r.Header.Clone()), append(c.urls, "https://"+r.Host+r.RequestURI)
	answer := c.answer
	c.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	_, _ = fmt.Fprintf(w, "%s %d", r.Host, len(body))
}

func crc(b []byte) string {
	h := crc32.NewIEEE()
	_, _ = h.Write(b)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// setup is a Handler in front of a cloud, and what it has told.
type setup struct {
	*httptest.Server
	cloud *cloud
	mu    sync.Mutex
	told  []wire.Passed
	asked []wire.Subject
	deny  error
	log   *bytes.Buffer
	dials []string
}

func start(t *testing.T, services ...string) *setup {
	t.Helper()
	c, roots := newCloud(t)
	s := &setup{cloud: c, log: &bytes.Buffer{}}
	p, err := pass.New(pass.Options{
		Services: services, Roots: roots,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return operator, nil }),
		Dial: func(ctx context.Context, host string, port uint16) (net.Conn, error) {
			s.mu.Lock()
			s.dials = append(s.dials, fmt.Sprintf("%s:%d", host, port))
			s.mu.Unlock()
			return (&net.Dialer{}).DialContext(ctx, "tcp", c.Listener.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	objects, err := fs.Open(t.Context(), t.TempDir(), fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Close() })
	h, err := wire.New(wire.Options{
		Services: []*wire.Service{s3.New(s3.Options{Objects: objects}), sqs.New(nil)}, Passage: p,
		Log: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Authenticate: func(_ context.Context, key, token string) (string, wire.Caller, error) {
			if key != function.AccessKeyID || token != function.SessionToken {
				return "", wire.Caller{}, wire.ErrUnknownKey
			}
			return function.SecretAccessKey, wire.Caller{Tenant: "default", Account: "000000000000", Function: "shop-dev-f"}, nil
		},
		Authorize: func(_ context.Context, _ *wire.Call, about []wire.Subject) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked = append(s.asked, about...)
			return s.deny
		},
		Passed: func(_ *wire.Call, p wire.Passed) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.told = append(s.told, p)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// to makes a request for a name of AWS that arrives here.
func (s *setup) to(t *testing.T, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host, r.URL.Scheme = r.URL.Host, "http"
	return r
}

func signed(t *testing.T, r *http.Request, body, service string) *http.Request {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	if service == "s3" {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	if err := v4.NewSigner().SignHTTP(t.Context(), function, r, hash, service, "eu-west-1", time.Now(), func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" }); err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *setup) do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	addr := s.Listener.Addr().String()
	client := &http.Client{
		Transport: &http.Transport{DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, string(text) + " " + err.Error()
	}
	return resp.StatusCode, string(text)
}

// once wants exactly one request to have been told of.
func (s *setup) once(t *testing.T, want wire.Passed) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // it is told when the answer has ended
		s.mu.Lock()
		told := append([]wire.Passed{}, s.told...)
		s.mu.Unlock()
		if len(told) == 1 && told[0] == want {
			return
		}
		if len(told) > 1 || time.Now().After(end) {
			t.Fatalf("told %+v, want once %+v", told, want)
		}
	}
}

func TestPassage_SignsAnewWhatFunctionsSend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, url, body, service string
		head                       map[string]string
		want                       wire.Passed
		about                      string
	}{
		"an object": {"PUT", "https://shelf.s3.eu-west-1.amazonaws.com/a%20b/c/d%2Be", "hello", "s3", nil,
			wire.Passed{Service: "s3", Operation: "PutObject", Status: 200, Sent: 5}, "s3:PutObject arn:aws:s3:::shelf/a b/c/d+e"},
		"a list": {"GET", "https://shelf.s3.eu-west-1.amazonaws.com/?list-type=2&prefix=a%2Fb", "", "s3", nil,
			wire.Passed{Service: "s3", Operation: "ListObjectsV2", Status: 200}, "s3:ListBucket arn:aws:s3:::shelf"},
		"a model": {"POST", "https://bedrock-runtime.eu-west-1.amazonaws.com/model/anthropic.claude%3A0/invoke", `{"a":1}`, "bedrock", map[string]string{"Content-Type": "application/json"},
			wire.Passed{Service: "bedrock-runtime", Operation: "InvokeModel", Status: 200, Sent: 7}, "bedrock:InvokeModel arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude:0"},
		"a target": {"POST", "https://comprehend.eu-west-1.amazonaws.com/", `{}`, "comprehend", map[string]string{"X-Amz-Target": "Comprehend_20171127.DetectSentiment"},
			wire.Passed{Service: "comprehend", Operation: "DetectSentiment", Status: 200, Sent: 2}, "comprehend:DetectSentiment *"},
		"an object under a target": {"DELETE", "https://shelf.s3.eu-west-1.amazonaws.com/key", "", "s3", map[string]string{"X-Amz-Target": ".PutObject"},
			wire.Passed{Service: "s3", Operation: "DeleteObject", Status: 200}, "s3:DeleteObject arn:aws:s3:::shelf/key"},
		"a queue under a target": {"POST", "https://sqs.eu-west-1.amazonaws.com/", "{}", "sqs", map[string]string{"X-Amz-Target": ".SendMessage"},
			wire.Passed{Service: "sqs", Status: 200, Sent: 2}, "sqs:* *"},
		"a queue": {"POST", "https://sqs.eu-west-1.amazonaws.com/", `{"QueueUrl":"https://sqs.eu-west-1.amazonaws.com/1/jobs","MessageBody":"x"}`, "sqs", map[string]string{"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"},
			wire.Passed{Service: "sqs", Operation: "SendMessage", Status: 200, Sent: 75}, "sqs:SendMessage arn:aws:sqs:eu-west-1:000000000000:jobs"},
		"a path": {"POST", "https://comprehend.eu-west-1.amazonaws.com/v1/x", `{}`, "comprehend", map[string]string{"X-Amz-Target": "Comprehend_20171127.DetectSentiment"},
			wire.Passed{Service: "comprehend", Status: 200, Sent: 2}, "comprehend:* *"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, "s3", "bedrock-runtime", "comprehend", "sqs")
			r := s.to(t, c.method, c.url, c.body)
			for k, v := range c.head {
				r.Header.Set(k, v)
			}
			status, text := s.do(t, signed(t, r, c.body, c.service))
			if status != 200 || len(s.cloud.bodies) != 1 || s.cloud.bodies[0] != c.body || s.cloud.urls[0] != c.url {
				t.Fatalf("%d %s; the cloud has %q %q\n%s", status, text, s.cloud.bodies, s.cloud.urls, s.log)
			}
			for k, list := range s.cloud.heads[0] {
				if all := strings.Join(list, " "); strings.Contains(all, function.AccessKeyID) || strings.Contains(all, function.SessionToken) {
					t.Errorf("%s: %s has something of the function's", k, all)
				}
			}
			c.want.Received = int64(len(text))
			s.once(t, c.want)
			if got := s.asked[0].Action + " " + s.asked[0].Resource; len(s.asked) != 1 || got != c.about {
				t.Errorf("asked %+v, want %s", s.asked, c.about)
			}
			if strings.Contains(s.log.String(), "secret") || strings.Contains(s.log.String(), "token") {
				t.Errorf("the log has something secret: %s", s.log)
			}
		})
	}
}

func TestPassage_RefusesBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	const object = "https://shelf.s3.eu-west-1.amazonaws.com/key"
	for name, c := range map[string]struct {
		request func(t *testing.T, s *setup) *http.Request
		status  int
		says    string
	}{
		"unsigned": {func(t *testing.T, s *setup) *http.Request { return s.to(t, "PUT", object, "hello") }, 403, "AccessDenied"},
		"another key": {func(t *testing.T, s *setup) *http.Request {
			r := signed(t, s.to(t, "PUT", object, "hello"), "hello", "s3")
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), function.AccessKeyID, operator.AccessKeyID, 1))
			return r
		}, 403, "InvalidAccessKeyId"},
		"another path": {func(t *testing.T, s *setup) *http.Request {
			r := signed(t, s.to(t, "PUT", object, "hello"), "hello", "s3")
			r.URL.Path += "s"
			return r
		}, 403, "SignatureDoesNotMatch"},
		"another host": {func(t *testing.T, s *setup) *http.Request {
			r := signed(t, s.to(t, "PUT", object, "hello"), "hello", "s3")
			r.Host = "other.s3.eu-west-1.amazonaws.com"
			return r
		}, 403, "SignatureDoesNotMatch"},
		"a model's other body": {func(t *testing.T, s *setup) *http.Request {
			return signed(t, s.to(t, "POST", "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/invoke", `{"a":2}`), `{"a":1}`, "bedrock")
		}, 403, "The request signature we calculated does not match"},
		"two operations": {func(t *testing.T, s *setup) *http.Request {
			r := s.to(t, "POST", "https://comprehend.eu-west-1.amazonaws.com/", "Action=DeleteAll")
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("X-Amz-Target", "Comprehend_20171127.DetectSentiment")
			return signed(t, r, "Action=DeleteAll", "comprehend")
		}, 400, "InvalidAction"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, "s3", "bedrock-runtime", "comprehend")
			status, text := s.do(t, c.request(t, s))
			if status != c.status || !strings.Contains(text, c.says) {
				t.Errorf("%d %s, want %d %s", status, text, c.status, c.says)
			}
			if len(s.cloud.bodies) != 0 || len(s.dials) != 0 {
				t.Errorf("the cloud was asked: %q", s.dials)
			}
			if len(s.told) != 1 || s.told[0].Status != c.status {
				t.Errorf("told %+v", s.told)
			}
		})
	}
}

// What a role does not allow is not sent; nor is it what services that were not named are asked for, whatever else the request says.
func TestPassage_SendsWhatIsNamedAndAllowed(t *testing.T) {
	t.Parallel()
	s := start(t, "s3")
	s.deny = wire.Errorf("AccessDenied", "the role does not allow it").With(http.StatusForbidden)
	if status, text := s.do(t, signed(t, s.to(t, "GET", "https://shelf.s3.eu-west-1.amazonaws.com/key", ""), "", "s3")); status != 403 || !strings.Contains(text, "the role does not allow it") {
		t.Errorf("%d %s", status, text)
	}
	s.deny = nil
	for _, host := range []string{"comprehend.eu-west-1.amazonaws.com", "s3.ec2-1-2-3-4.compute-1.amazonaws.com", "sts.amazonaws.com"} {
		r := s.to(t, "POST", "https://"+host+"/", "{}")
		r.Header.Set("X-Amz-Target", "Comprehend_20171127.DetectSentiment")
		if status, text := s.do(t, signed(t, r, "{}", "s3")); status < 400 || !strings.Contains(text, "ebb does not have the service") {
			t.Errorf("%s: %d %s", host, status, text)
		}
	}
	for _, host := range []string{"a@b.s3.amazonaws.com", "s3.amazonaws.com:8443", "169.254.169.254/.s3.amazonaws.com", "-.s3.amazonaws.com"} {
		r := signed(t, s.to(t, "GET", "https://s3.amazonaws.com/", ""), "", "s3")
		r.Host = host
		if status, text := s.do(t, r); status < 400 {
			t.Errorf("%s: %d %s", host, status, text)
		}
	}
	if len(s.dials) != 0 {
		t.Errorf("dialled %q", s.dials)
	}
	for _, name := range []string{"sts", "iam", "S3", "", "*", "s3/x"} {
		if _, err := pass.New(pass.Options{Services: []string{name}}); errs.CodeOf(err) != errs.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// upload writes a body in AWS's chunks, signed ones or with a trailer.
func upload(t *testing.T, s *setup, body string, trailer, spoil bool) *http.Request {
	t.Helper()
	r := s.to(t, "PUT", "https://shelf.s3.eu-west-1.amazonaws.com/big", "")
	r.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(len(body)))
	r.Header.Set("Content-Encoding", "aws-chunked")
	payload := "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	if trailer {
		payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
		r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32")
		r.Header.Set("X-Amz-Sdk-Checksum-Algorithm", "CRC32")
	}
	r.Header.Set("X-Amz-Content-Sha256", payload)
	r.Body, r.ContentLength = nil, 0
	at := time.Now()
	if err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), function, r, payload, "s3", "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
	_, seed, _ := strings.Cut(r.Header.Get("Authorization"), "Signature=")
	first, err := hex.DecodeString(seed)
	if err != nil {
		t.Fatal(err)
	}
	stream := v4.NewStreamSigner(function, "s3", "eu-west-1", first)
	var b strings.Builder
	for rest := body; ; {
		part := rest[:min(len(rest), 64<<10)]
		rest = rest[len(part):]
		fmt.Fprintf(&b, "%x", len(part))
		if !trailer {
			sig, err := stream.GetSignature(t.Context(), nil, []byte(part), at)
			if err != nil {
				t.Fatal(err)
			}
			if spoil && rest == "" {
				sig[0]++
			}
			fmt.Fprintf(&b, ";chunk-signature=%x", sig)
		}
		b.WriteString("\r\n")
		if part == "" {
			break
		}
		b.WriteString(part + "\r\n")
	}
	if trailer {
		sum := crc([]byte(body))
		if spoil {
			sum = crc([]byte("other"))
		}
		b.WriteString("x-amz-checksum-crc32:" + sum + "\r\n")
	}
	b.WriteString("\r\n")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(b.String())), int64(b.Len())
	return r
}

func TestPassage_StreamsUploadsAsTheyAreFramed(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789abcdef", 40_000) // 640 KB
	for name, c := range map[string]struct{ trailer, spoil bool }{"signed chunks": {}, "a trailer": {trailer: true}, "a spoilt chunk": {spoil: true}, "a spoilt trailer": {trailer: true, spoil: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, "s3")
			status, text := s.do(t, upload(t, s, body, c.trailer, c.spoil))
			if c.spoil {
				if status < 400 || len(s.cloud.bodies) != 0 {
					t.Errorf("%d %s; the cloud kept %d", status, text, len(s.cloud.bodies))
				}
				return
			}
			if status != 200 || len(s.cloud.bodies) != 1 || s.cloud.bodies[0] != body {
				t.Fatalf("%d %s; the cloud has %d\n%s", status, text, len(s.cloud.bodies), s.log)
			}
			if got := s.cloud.heads[0].Get("Content-Encoding"); c.trailer != (got == "aws-chunked") {
				t.Errorf("Content-Encoding %q", got)
			}
			s.once(t, wire.Passed{Service: "s3", Operation: "PutObject", Status: 200, Sent: int64(len(body)), Received: int64(len(text))})
		})
	}
}

// A stream of events is shown as it comes; one that breaks off is not taken for whole; a redirect is the client's to follow.
func TestPassage_AnswersAsAWSDoes(t *testing.T) {
	t.Parallel()
	s := start(t, "bedrock-runtime", "s3")
	more := make(chan struct{})
	s.cloud.answer = func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		w.(http.Flusher).Flush()
		<-more
		panic(http.ErrAbortHandler)
	}
	r := signed(t, s.to(t, "POST", "https://bedrock-runtime.eu-west-1.amazonaws.com/model/m/converse-stream", "{}"), "{}", "bedrock")
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := r.Write(c); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for one := make([]byte, 256); !bytes.Contains(got, []byte("first")); {
		n, err := c.Read(one)
		if got = append(got, one[:n]...); err != nil {
			t.Fatalf("%q %v", got, err)
		}
	}
	close(more)
	rest, _ := io.ReadAll(c)
	if bytes.Contains(rest, []byte("0\r\n\r\n")) {
		t.Errorf("what broke off was ended as if it were whole: %q", rest)
	}
	s.once(t, wire.Passed{Service: "bedrock-runtime", Operation: "ConverseStream", Status: 200, Sent: 2, Received: 5})

	s.cloud.mu.Lock()
	s.cloud.answer = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://169.254.169.254/latest", http.StatusTemporaryRedirect)
	}
	s.cloud.mu.Unlock()
	if status, text := s.do(t, signed(t, s.to(t, "GET", "https://b.s3.eu-west-1.amazonaws.com/k", ""), "", "s3")); status != http.StatusTemporaryRedirect {
		t.Errorf("%d %s", status, text)
	}
	for _, to := range s.dials {
		if !strings.HasSuffix(to, ".amazonaws.com:443") {
			t.Errorf("dialled %s", to)
		}
	}
}

// A server whose certificate is not AWS's gets nothing.
func TestPassage_ChecksTheCertificate(t *testing.T) {
	t.Parallel()
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	other.TLS = &tls.Config{}
	other.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	other.StartTLS()
	t.Cleanup(other.Close)
	p, err := pass.New(pass.Options{
		Services: []string{"s3"}, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return operator, nil }),
		Dial: func(ctx context.Context, _ string, _ uint16) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", other.Listener.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "https://b.s3.eu-west-1.amazonaws.com/k", nil)
	var done wire.Passed
	if err := p.Send(httptest.NewRecorder(), r, wire.Passing{Region: "eu-west-1", Service: "s3"}, &done); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

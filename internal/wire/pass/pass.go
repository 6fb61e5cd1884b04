// Package pass sends requests on to the real AWS, signed anew with an operator's credentials.
//
// Main type: [Passage], which implements wire.Passage.
//
// Guarantees:
//
//  1. A request goes to the name that it was made for, by HTTPS, and to nowhere else: the name is one of AWS's, its certificate is
//     checked, and redirects are answers like others.
//  2. Nothing of the caller's signature, key or token is sent, and nothing of the operator's is answered or logged.
//  3. Bodies are streamed both ways. One that turns out not to be what was signed ends the request before it is whole.
//
// It knows nothing of who may call what.
package pass

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/wire"
)

// Options say what a Passage needs. Services, Credentials and Dial have no default.
type Options struct {
	Services    []string // names of endpoints: "s3", "bedrock-runtime"
	Credentials aws.CredentialsProvider
	// Dial connects to a name and port; it decides which addresses may be reached.
	Dial  func(ctx context.Context, host string, port uint16) (net.Conn, error)
	Roots *x509.CertPool   // that AWS's certificates come from; nil means the system's
	Now   func() time.Time // nil means time.Now
}

// Passage sends requests on. It may be used concurrently.
type Passage struct {
	o         Options
	transport *http.Transport
	signer    *v4.Signer
}

var _ wire.Passage = (*Passage)(nil)

var serviceRE = regexp.MustCompile(`^[a-z][a-z0-9.-]{0,62}$`)

// handsOut are services whose answers are credentials, which functions would then hold.
var handsOut = []string{"sts", "iam", "sso", "portal.sso", "oidc", "signin", "cognito-identity", "rolesanywhere"} // never written

// New checks the names of the services.
func New(o Options) (*Passage, error) {
	for _, name := range o.Services {
		switch {
		case !serviceRE.MatchString(name):
			return nil, errs.New(errs.Invalid, "setting aws-pass: %q is no name of a service", name).
				WithHint("Give the first label of its endpoint: bedrock-runtime for bedrock-runtime.us-east-1.amazonaws.com.")
		case slices.Contains(handsOut, name):
			return nil, errs.New(errs.Invalid, "setting aws-pass: %s gives out credentials, which functions would then have", name).WithHint("Leave it out: ebb answers sts itself.")
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	p := &Passage{o: o}
	p.signer = v4.NewSigner()
	p.transport = &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return o.Dial(ctx, host, 443)
		},
		TLSClientConfig:     &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 32,
		DisableCompression: true, ForceAttemptHTTP2: true, // answers go on as they are
	}
	return p, nil
}

// Close ends idle connections.
func (p *Passage) Close() error {
	p.transport.CloseIdleConnections()
	return nil
}

// Passes says whether a service is one of those that were named.
func (p *Passage) Passes(service string) bool { return slices.Contains(p.o.Services, service) }

// awsName are the names that requests may go to. A host's address, a port or user information in its place is none.
var awsName = regexp.MustCompile(`^([a-z0-9]([a-z0-9_-]*[a-z0-9])?\.)+(amazonaws\.com|api\.aws)$`)

// Send sends a request, and streams the answer.
func (p *Passage) Send(w http.ResponseWriter, r *http.Request, out wire.Passing, done *wire.Passed) (err error) {
	host := strings.ToLower(strings.TrimSuffix(r.Host, "."))
	if name, port, err := net.SplitHostPort(host); err == nil && (port == "443" || port == "80") {
		host = name
	}
	if !awsName.MatchString(host) {
		return fmt.Errorf("%q is no name of AWS's", r.Host)
	}
	ctx := r.Context()
	got, err := p.o.Credentials.Retrieve(ctx)
	if err != nil {
		return fmt.Errorf("get the operator's credentials: %w", err)
	}
	var sent, received atomic.Int64 // the transport may read a body on beyond the answer
	defer func() { done.Sent, done.Received = sent.Load(), received.Load() }()
	body, failed, err := countedBody(out, r.Header, &sent)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1, // event streams are shown as they come
		ErrorLog:      log.New(io.Discard, "", 0),
		Transport:     p.transport,
		Rewrite:       func(*httputil.ProxyRequest) {},
		ErrorHandler:  func(_ http.ResponseWriter, _ *http.Request, e error) { err = e },
		ModifyResponse: func(resp *http.Response) error {
			done.Status = resp.StatusCode
			resp.Body = &counted{ReadCloser: resp.Body, n: &received, failed: new(atomic.Value)}
			return nil
		},
	}
	q, err := p.signed(r, host, body, out, got)
	if err != nil {
		return err
	}
	proxy.ServeHTTP(w, q)
	if broken := failed(); broken != nil && err != nil {
		err = broken // what the transport makes of it is not what is wrong
	}
	return err
}

// hidden are headers that are the caller's signature, or of the way to here.
var hidden = []string{"Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256", "X-Amz-Decoded-Content-Length", "Expect", "Connection", "Upgrade", "Keep-Alive", "Te", "Trailer",
	"Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Transfer-Encoding", "Content-Length", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} // never written

// signed is the request as it is sent.
func (p *Passage) signed(r *http.Request, host string, body framed, out wire.Passing, c aws.Credentials) (*http.Request, error) {
	q := r.Clone(r.Context())
	for _, option := range strings.Split(r.Header.Get("Connection"), ",") {
		q.Header.Del(strings.TrimSpace(option))
	}
	for _, name := range hidden {
		q.Header.Del(name)
	}
	q.RequestURI, q.Host, q.RemoteAddr = "", host, ""
	q.URL.Scheme, q.URL.Host, q.URL.User = "https", host, nil
	q.URL.RawQuery = unsignedQuery(q.URL.RawQuery)
	q.Form, q.PostForm, q.TransferEncoding, q.Trailer = nil, nil, nil, nil
	q.Body, q.ContentLength = body.ReadCloser, body.length
	dropChunked(q.Header)
	if body.decoded >= 0 {
		q.Header.Set("X-Amz-Decoded-Content-Length", fmt.Sprint(body.decoded))
		q.Header.Add("Content-Encoding", "aws-chunked")
	} else {
		q.Header.Del("X-Amz-Trailer")
	}
	s3 := out.Service == "s3" || out.Service == "s3express" || out.Service == "s3-outposts"
	if s3 || body.hash == unsigned {
		q.Header.Set("X-Amz-Content-Sha256", body.hash)
	}
	err := p.signer.SignHTTP(r.Context(), c, q, body.hash, out.Service, out.Region, p.o.Now(), func(o *v4.SignerOptions) { o.DisableURIPathEscaping = s3 })
	if err != nil {
		return nil, fmt.Errorf("sign for AWS: %w", err)
	}
	return q, nil
}

// unsignedQuery leaves out what a presigned URL's signature is: those of version 4 and S3's older one.
func unsignedQuery(raw string) string {
	older := strings.Contains("&"+raw, "&AWSAccessKeyId=")
	parts := slices.DeleteFunc(strings.Split(raw, "&"), func(part string) bool {
		name, _, _ := strings.Cut(part, "=")
		switch name {
		case "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Content-Sha256":
			return true
		case "AWSAccessKeyId", "Signature", "Expires", "x-amz-security-token":
			return older
		}
		return false
	})
	return strings.Join(parts, "&")
}

// dropChunked leaves the name of AWS's own framing out of what says how a body is encoded.
func dropChunked(h http.Header) {
	var left []string
	for part := range strings.SplitSeq(strings.Join(h.Values("Content-Encoding"), ","), ",") {
		if part = strings.TrimSpace(part); part != "" && !strings.EqualFold(part, "aws-chunked") {
			left = append(left, part)
		}
	}
	h.Del("Content-Encoding")
	for _, one := range left {
		h.Add("Content-Encoding", one)
	}
}

const (
	unsigned        = "UNSIGNED-PAYLOAD"
	unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// framed is a body as it is sent.
type framed struct {
	io.ReadCloser
	length  int64  // -1 when not known
	decoded int64  // of what is in chunks; -1 where there are none
	hash    string // as it is signed
}

// countedBody frames and counts a body. What is read of it in vain is told by failed, once the request has ended.
func countedBody(out wire.Passing, h http.Header, n *atomic.Int64) (body framed, failed func() error, err error) {
	var last atomic.Value
	failed = func() error {
		f, _ := last.Load().(fault)
		return f.err
	}
	plain := &counted{n: n, failed: &last}
	body = framed{ReadCloser: plain, decoded: -1, length: out.Length, hash: unsigned}
	names := trailerNames(h)
	switch {
	case out.Stream != nil && len(names) > 0 && out.Length >= 0:
		plain.ReadCloser = io.NopCloser(out.Stream)
		body.ReadCloser = &chunks{r: plain, names: names, trailer: out.Trailer, chunk: make([]byte, 64<<10)}
		body.length, body.decoded, body.hash = -1, out.Length, unsignedTrailer
		return body, failed, nil
	case out.Stream != nil && out.Length != 0:
		plain.ReadCloser = io.NopCloser(out.Stream)
		if hash := h.Get("X-Amz-Content-Sha256"); len(hash) == sha256.Size*2 { // AWS checks it too, and does not keep what differs
			body.hash = strings.ToLower(hash)
		}
		return body, failed, nil
	case out.Stream != nil: // what ends nothing may be signed too
		if out.Data, err = io.ReadAll(io.LimitReader(out.Stream, 1)); err != nil {
			return body, failed, err
		}
	}
	sum := sha256.Sum256(out.Data)
	body.hash, body.length = hex.EncodeToString(sum[:]), int64(len(out.Data))
	if body.ReadCloser = http.NoBody; len(out.Data) > 0 {
		plain.ReadCloser, body.ReadCloser = io.NopCloser(bytes.NewReader(out.Data)), plain
	}
	return body, failed, nil
}

func trailerNames(h http.Header) []string {
	return strings.FieldsFunc(strings.ToLower(h.Get("X-Amz-Trailer")), func(r rune) bool { return r == ',' || r == ' ' })
}

// fault is an error of whatever type.
type fault struct{ err error }

// counted counts what is read, and remembers what it failed with.
type counted struct {
	io.ReadCloser
	n      *atomic.Int64
	failed *atomic.Value
}

// Read reads and counts.
func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		c.failed.CompareAndSwap(nil, fault{err})
	}
	return n, err
}

// chunks frames a body as AWS reads it with trailers behind it: S3 API, "Trailing headers", unsigned chunks. The trailers are the client's own.
type chunks struct {
	r       io.Reader
	names   []string
	trailer http.Header
	chunk   []byte
	out     []byte // framed, and not yet read
	err     error
}

// Read gives the framed body.
func (c *chunks) Read(b []byte) (int, error) {
	for len(c.out) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		n, err := io.ReadFull(c.r, c.chunk)
		if n > 0 {
			c.out = append(fmt.Appendf(c.out[:0], "%x\r\n", n), c.chunk[:n]...)
			c.out = append(c.out, "\r\n"...)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			c.out = append(c.out, "0\r\n"...)
			for _, name := range c.names {
				c.out = fmt.Appendf(c.out, "%s:%s\r\n", name, c.trailer.Get(name))
			}
			c.out, c.err = append(c.out, "\r\n"...), io.EOF
		case err != nil:
			c.out, c.err = nil, err
		}
	}
	n := copy(b, c.out)
	c.out = c.out[n:]
	return n, nil
}

// Close ends it.
func (c *chunks) Close() error { return nil }

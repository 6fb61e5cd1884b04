// Package sign checks the signatures of requests as AWS's clients make them: Signature Version 4.
//
// Main type: [Signature], what a request says of its signature, read by [Parse] and checked by its method Check.
//
// Guarantees:
//
//  1. Headers, presigned URLs, plain, unsigned and chunked payloads, with and without trailers, are checked as AWS documents them
//     ("Signature Version 4 signing process"; S3 API, "Authenticating Requests"), for any region and service.
//  2. Signatures and hashes are compared in constant time.
//  3. What is not part of the signature but decides what a request does (its host, target, date, token and further x-amz-headers) has to be.
//  4. A body is not buffered beyond the limit it is given. One that is read as it comes ends in an error in place of io.EOF when it is
//     not what was signed: nothing of it may count before.
//
// It holds no keys, and knows nothing of services' error codes.
package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault says why a request is refused.
type Fault struct {
	Kind Kind
	Text string
}

// Kind is what is wrong with a signature.
type Kind string

// The kinds of fault.
const (
	Missing    Kind = "missing"    // the request carries no signature
	Incomplete Kind = "incomplete" // what it carries cannot be read
	Mismatch   Kind = "mismatch"   // it is not that of this request
	Skewed     Kind = "skewed"     // it was made at another time
	Expired    Kind = "expired"    // its presigned URL has ended
	Payload    Kind = "payload"    // the body is not the one that was signed
	Cut        Kind = "cut"        // the body ends early, or its chunks cannot be read
	Unsigned   Kind = "unsigned"   // headers that have to be signed are not
	TooLarge   Kind = "too large"  // the body is
)

// Error gives the text.
func (f *Fault) Error() string { return f.Text }

func fault(k Kind, format string, args ...any) error {
	return &Fault{k, fmt.Sprintf(format, args...)}
}

const (
	algorithm = "AWS4-HMAC-SHA256"
	dateForm  = "20060102T150405Z"
	maxSkew   = 15 * time.Minute
	maxLife   = 7 * 24 * time.Hour

	unsignedPayload   = "UNSIGNED-PAYLOAD"
	streamed          = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamedTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	unsignedTrailer   = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	emptyHash         = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	contentHashHeader = "X-Amz-Content-Sha256"
)

// Signature is what a request says of its signature.
type Signature struct {
	AccessKey string
	Region    string
	Service   string // as it was signed for: "sqs"
	Token     string // session token
	Time      time.Time
	Presigned bool

	date    string // of the scope
	life    time.Duration
	headers []string
	value   string
	payload string // what the request says that its body's hash is
	older   *version2
}

// Parse reads the signature of a request. Without one the Fault's kind is Missing.
func Parse(r *http.Request) (*Signature, error) {
	query := r.URL.Query()
	header := r.Header.Get("Authorization")
	if s, err := parseVersion2(r, query); s != nil || err != nil {
		return s, err
	}
	switch {
	case header != "":
		return parseHeader(r, header)
	case query.Has("X-Amz-Algorithm") || query.Has("X-Amz-Signature"):
		return parseQuery(query, r.Header.Get(contentHashHeader))
	}
	return nil, fault(Missing, "Request is missing Authentication Token")
}

func parseHeader(r *http.Request, header string) (*Signature, error) {
	name, rest, _ := strings.Cut(header, " ")
	if name != algorithm {
		return nil, fault(Incomplete, "Authorization header requires %s; %q is not taken.", algorithm, clip(name))
	}
	s := &Signature{Token: r.Header.Get("X-Amz-Security-Token"), payload: r.Header.Get(contentHashHeader)}
	part := map[string]string{}
	for one := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(one), "=")
		part[k] = v
	}
	for _, k := range []string{"Credential", "SignedHeaders", "Signature"} {
		if part[k] == "" {
			return nil, fault(Incomplete, "Authorization header requires '%s' parameter.", k)
		}
	}
	date := r.Header.Get("X-Amz-Date")
	if date == "" {
		t, err := http.ParseTime(r.Header.Get("Date"))
		if err != nil {
			return nil, fault(Incomplete, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
		}
		date = t.UTC().Format(dateForm)
	}
	return s, s.fill(part["Credential"], part["SignedHeaders"], part["Signature"], date)
}

func parseQuery(q url.Values, hash string) (*Signature, error) {
	s := &Signature{Presigned: true, Token: q.Get("X-Amz-Security-Token"), payload: hash}
	if q.Get("X-Amz-Algorithm") != algorithm {
		return nil, fault(Incomplete, "X-Amz-Algorithm only supports \"%s\"", algorithm)
	}
	for _, k := range []string{"X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date"} {
		if len(q[k]) != 1 || q.Get(k) == "" {
			return nil, fault(Incomplete, "AWS query-string parameters must include '%s'.", k)
		}
	}
	if s.payload == "" {
		s.payload = q.Get(contentHashHeader)
	}
	s.life = maxLife
	if text := q.Get("X-Amz-Expires"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > int(maxLife/time.Second) {
			return nil, fault(Incomplete, "X-Amz-Expires must be a number of seconds of at most a week")
		}
		s.life = time.Duration(n) * time.Second
	} else if q.Get("X-Amz-Expires") == "" {
		s.life = maxSkew
	}
	return s, s.fill(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), q.Get("X-Amz-Date"))
}

func (s *Signature) fill(credential, headers, value, date string) error {
	scope := strings.Split(credential, "/")
	n := len(scope)
	if n < 5 || scope[n-1] != "aws4_request" {
		return fault(Incomplete, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", clip(credential))
	}
	s.AccessKey, s.date, s.Region, s.Service = strings.Join(scope[:n-4], "/"), scope[n-4], scope[n-3], scope[n-2]
	var err error
	if s.Time, err = time.Parse(dateForm, date); err != nil {
		return fault(Incomplete, "Date must be in ISO-8601 'basic format'. Got '%s'.", clip(date))
	}
	if s.date != date[:8] {
		return fault(Mismatch, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s'.", clip(s.date), date[:8])
	}
	s.headers, s.value = strings.Split(headers, ";"), value
	if !slices.IsSorted(s.headers) || slices.ContainsFunc(s.headers, func(h string) bool { return h != strings.ToLower(h) || h == "" }) {
		return fault(Incomplete, "SignedHeaders is not a sorted list of names in small letters")
	}
	return nil
}

// Options say how a request is checked.
type Options struct {
	Now     time.Time
	MaxBody int64 // of a body that is buffered
	// Hold is asked before a body that is buffered gets the memory that n bytes in all need; its error ends the reading. May be nil.
	Hold   func(n int64) error
	Stream bool   // the body is read as it comes
	Path   string // escaped, the bucket first, for signatures of S3's older form
}

// Body is a request's body, without the framing of its chunks.
type Body struct {
	Data   []byte    // whole; nil where it is read as it comes
	Reader io.Reader // nil where it is whole
	Length int64     // -1 when not known

	chunks *chunkReader
}

// Trailer gives the headers behind the body, once it is read to its end.
func (b *Body) Trailer() http.Header {
	if b.chunks == nil {
		return http.Header{}
	}
	return b.chunks.trailer
}

// Check checks the request's signature with the secret that belongs to its access key, and returns its body. The Fault tells why it is refused.
func (s *Signature) Check(r *http.Request, secret string, o Options) (*Body, error) {
	if s.older != nil {
		return s.checkVersion2(r, secret, o)
	}
	if err := s.timely(o.Now); err != nil {
		return nil, err
	}
	if err := s.covers(r); err != nil {
		return nil, err
	}
	payload := s.payload
	var data []byte
	if payload == "" {
		if s.Presigned && s.Service == "s3" {
			payload = unsignedPayload
		} else {
			var err error
			if data, err = ReadBody(r.Body, r.ContentLength, o.MaxBody, o.Hold); err != nil {
				return nil, err
			}
			payload = hashOf(data)
		}
	}
	key := s.key(secret)
	text := strings.Join([]string{algorithm, s.Time.Format(dateForm), s.scope(), hashOf([]byte(s.canonical(r, payload)))}, "\n")
	want := hex.EncodeToString(mac(key, text))
	if !hmac.Equal([]byte(want), []byte(s.value)) {
		return nil, fault(Mismatch, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	if s.payload == "" && payload != unsignedPayload {
		return &Body{Data: data, Length: int64(len(data))}, nil
	}
	return s.body(r, payload, key, o)
}

func (s *Signature) timely(now time.Time) error {
	if s.Presigned {
		if now.Before(s.Time.Add(-maxSkew)) {
			return fault(Skewed, "Request is not valid yet")
		}
		if now.After(s.Time.Add(s.life)) {
			return fault(Expired, "Request has expired")
		}
		return nil
	}
	if d := now.Sub(s.Time); d > maxSkew || d < -maxSkew {
		return fault(Skewed, "The difference between the request time and the current time is too large: %s and %s.", s.Time.Format(dateForm), now.UTC().Format(dateForm))
	}
	return nil
}

// covers says whether everything that has to be signed is.
func (s *Signature) covers(r *http.Request) error {
	if !slices.Contains(s.headers, "host") && !slices.Contains(s.headers, ":authority") {
		return fault(Unsigned, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		low := strings.ToLower(name)
		if !strings.HasPrefix(low, "x-amz-") || low == "x-amz-user-agent" || s.Presigned && low == "x-amz-content-sha256" {
			continue
		}
		if !slices.Contains(s.headers, low) {
			return fault(Unsigned, "There were headers present in the request which were not signed: %s", low)
		}
	}
	return nil
}

func (s *Signature) scope() string {
	return s.date + "/" + s.Region + "/" + s.Service + "/aws4_request"
}

func (s *Signature) key(secret string) []byte {
	k := mac([]byte("AWS4"+secret), s.date)
	k = mac(k, s.Region)
	k = mac(k, s.Service)
	return mac(k, "aws4_request")
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, text)
	return h.Sum(nil)
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// canonical is the text that stands for the request.
func (s *Signature) canonical(r *http.Request, payload string) string {
	var b strings.Builder
	b.WriteString(r.Method + "\n")
	uri := r.RequestURI
	if uri == "" {
		uri = r.URL.RequestURI()
	}
	if rest, ok := strings.CutPrefix(uri, "http"); ok { // the absolute form, for proxies
		if u, err := url.Parse("http" + rest); err == nil {
			uri = u.RequestURI()
		}
	}
	path, query, _ := strings.Cut(uri, "?")
	if path == "" {
		path = "/"
	}
	if s.Service == "s3" || s.Service == "s3express" || s.Service == "s3-outposts" {
		if plain, err := url.PathUnescape(path); err == nil {
			path = plain
		}
	}
	b.WriteString(escape(path, true) + "\n")
	b.WriteString(canonicalQuery(query, s.Presigned) + "\n")
	for _, name := range s.headers {
		b.WriteString(name + ":" + headerValue(r, name) + "\n")
	}
	b.WriteString("\n" + strings.Join(s.headers, ";") + "\n" + payload)
	return b.String()
}

func canonicalQuery(raw string, presigned bool) string {
	var list [][2]string
	for one := range strings.SplitSeq(raw, "&") {
		if one == "" {
			continue
		}
		k, v, _ := strings.Cut(one, "=")
		k, v = unescape(k), unescape(v)
		if presigned && k == "X-Amz-Signature" {
			continue
		}
		list = append(list, [2]string{escape(k, false), escape(v, false)})
	}
	slices.SortFunc(list, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	parts := make([]string, len(list))
	for i, kv := range list {
		parts[i] = kv[0] + "=" + kv[1]
	}
	return strings.Join(parts, "&")
}

func unescape(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

const upperHex = "0123456789ABCDEF"

// escape is URI encoding as AWS does it.
func escape(s string, path bool) string {
	b := make([]byte, 0, len(s)+8)
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' || path && c == '/' {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// headerValue is a header as it was signed: values joined, spaces between words made one.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host", ":authority":
		return r.Host
	case "content-length":
		if r.Header.Get("Content-Length") == "" && r.ContentLength >= 0 {
			return strconv.FormatInt(r.ContentLength, 10)
		}
	case "transfer-encoding":
		if len(r.TransferEncoding) > 0 {
			return strings.Join(r.TransferEncoding, ",")
		}
	}
	list := r.Header.Values(name)
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == '\t' }), " ")
	}
	return strings.Join(out, ",")
}

// firstBody is the memory that a body gets at first: who announces much and sends nothing has no more. It doubles.
const firstBody = 64 << 10

// ReadBody reads a body to its end, of at most most bytes. length is what it is said to have, below zero where that is not known; for hold see [Options].
func ReadBody(r io.Reader, length, most int64, hold func(n int64) error) ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	limit := most + 1
	if length >= 0 && length < limit {
		limit = length + 1 // room to see the end
	}
	var b []byte
	for {
		if int64(len(b)) > most {
			return nil, fault(TooLarge, "The request is larger than %d bytes.", most)
		}
		if len(b) == cap(b) {
			size := min(max(firstBody, 2*int64(cap(b))), max(limit, int64(cap(b))+1))
			if hold != nil {
				if err := hold(size); err != nil {
					return nil, err
				}
			}
			b = append(make([]byte, 0, size), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF) && int64(len(b)) <= most:
			return b, nil
		case errors.Is(err, io.EOF): // said above
		case errors.As(err, new(*Fault)), errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case err != nil:
			return nil, fault(Cut, "The request could not be read to its end.")
		}
	}
}

func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

package s3

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// keptHeaders are given back with an object as they were sent with it.
var keptHeaders = []string{
	"Content-Type", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires", "X-Amz-Website-Redirect-Location", "X-Amz-Storage-Class",
	"X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "X-Amz-Server-Side-Encryption-Bucket-Key-Enabled",
}

const aclHeader = "x-amz-acl" // among an object's headers, and never given back as one

var storageClasses = map[string]bool{
	"STANDARD": true, "REDUCED_REDUNDANCY": true, "STANDARD_IA": true, "ONEZONE_IA": true, "INTELLIGENT_TIERING": true, "GLACIER": true, "DEEP_ARCHIVE": true, "GLACIER_IR": true, "OUTPOSTS": true, "EXPRESS_ONEZONE": true, "SNOW": true,
}

// metaOf reads what a request says of an object.
func metaOf(c *wire.Call) (store.ObjectMeta, error) {
	m := store.ObjectMeta{Headers: map[string]string{}, User: map[string]string{}}
	for _, name := range keptHeaders {
		if v := header(c, name); v != "" {
			m.Headers[strings.ToLower(name)] = strings.ToValidUTF8(v, "\uFFFD")
		}
	}
	if e := m.Headers["content-encoding"]; e != "" { // how it came is not what it is
		var rest []string
		for one := range strings.SplitSeq(e, ",") {
			if one = strings.TrimSpace(one); one != "" && one != "aws-chunked" {
				rest = append(rest, one)
			}
		}
		if m.Headers["content-encoding"] = strings.Join(rest, ","); len(rest) == 0 {
			delete(m.Headers, "content-encoding")
		}
	}
	if class := m.Headers["x-amz-storage-class"]; class != "" {
		if !storageClasses[class] {
			return m, wire.Errorf("InvalidStorageClass", "The storage class you specified is not valid")
		}
		if class == "STANDARD" {
			delete(m.Headers, "x-amz-storage-class")
		}
	}
	if to := m.Headers["x-amz-website-redirect-location"]; to != "" && !strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "http://") && !strings.HasPrefix(to, "https://") {
		return m, wire.Errorf("InvalidRedirectLocation", "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.")
	}
	if header(c, "X-Amz-Server-Side-Encryption-Customer-Algorithm") != "" {
		return m, wire.Errorf("NotImplemented", "ebb does not have encryption with a client's key (SSE-C)").With(http.StatusNotImplemented)
	}
	if acl := header(c, "X-Amz-Acl"); acl != "" && acl != "private" {
		m.Headers[aclHeader] = acl
	}
	size := 0
	for name, list := range c.Request.Header {
		if rest, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-"); ok {
			value := latin(strings.Join(list, ","))
			m.User[rest] = value
			size += len(rest) + len(value)
		}
	}
	if size > 2048 {
		e := wire.Errorf("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
		e.Fields = map[string]any{"Size": size, "MaxSizeAllowed": 2048}
		return m, e
	}
	if text := header(c, "X-Amz-Tagging"); text != "" {
		tags, err := headerTags(text)
		if err != nil {
			return m, err
		}
		m.Tags = tags
	}
	return m, lockOf(c, &m)
}

// latin makes text of a header's bytes: what is not UTF-8 is taken for Latin-1.
func latin(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

func headerTags(text string) (map[string]string, error) {
	form, err := url.ParseQuery(text)
	if err != nil {
		return nil, invalidArgument("x-amz-tagging", text, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	var list []tag
	for _, k := range sortedKeys(form) {
		for _, v := range form[k] {
			list = append(list, tag{k, v})
		}
	}
	return tagMap(list, 10)
}

// lockOf reads the lock that a request puts on an object.
func lockOf(c *wire.Call, m *store.ObjectMeta) error {
	hold := header(c, "X-Amz-Object-Lock-Legal-Hold")
	if m.Hold = hold == "ON"; hold != "" && hold != "ON" && hold != "OFF" {
		return invalidArgument("x-amz-object-lock-legal-hold", hold, "Legal Hold must be either of 'ON' or 'OFF'")
	}
	mode, until := header(c, "X-Amz-Object-Lock-Mode"), header(c, "X-Amz-Object-Lock-Retain-Until-Date")
	if (mode == "") != (until == "") {
		return invalidArgument("x-amz-object-lock-mode", mode, "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied")
	}
	if mode == "" {
		return nil
	}
	return setRetention(m, mode, until, c.Now)
}

// defaultLock is what a bucket's configuration has for new objects.
type defaultLock struct {
	ObjectLockEnabled string
	Rule              *struct {
		DefaultRetention *struct {
			Mode        string
			Days, Years *int
		}
	}
}

func checkObjectLock(data []byte) error {
	var in defaultLock
	if err := xml.Unmarshal(data, &in); err != nil || in.ObjectLockEnabled != "Enabled" {
		return malformedXML()
	}
	if in.Rule == nil {
		return nil
	}
	d := in.Rule.DefaultRetention
	if d == nil || d.Mode != "GOVERNANCE" && d.Mode != "COMPLIANCE" || (d.Days == nil) == (d.Years == nil) {
		return malformedXML()
	}
	for name, n := range map[string]*int{"Days": d.Days, "Years": d.Years} {
		if n != nil && *n <= 0 {
			return invalidArgument(name, itoa(*n), "Default retention period must be a positive integer value.")
		}
		if n != nil && *n > map[string]int{"Days": 36500, "Years": 100}[name] {
			return invalidArgument(name, itoa(*n), "Default retention period too large.")
		}
	}
	return nil
}

// lock gives a new object the lock that its bucket has for those that come without one, and refuses one where the bucket locks nothing.
func (s *service) lock(ctx context.Context, c *wire.Call, m *store.ObjectMeta) error {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return err
	}
	data := b.Documents["object-lock"]
	if data == nil && (m.Mode != "" || header(c, "X-Amz-Object-Lock-Legal-Hold") != "") {
		return wire.Errorf("InvalidRequest", "Bucket is missing Object Lock Configuration")
	}
	var in defaultLock
	if data == nil || m.Mode != "" || xml.Unmarshal(data, &in) != nil || in.Rule == nil || in.Rule.DefaultRetention == nil {
		return nil
	}
	d := in.Rule.DefaultRetention
	m.Mode, m.Until = d.Mode, c.Now.UTC()
	if d.Days != nil {
		m.Until = m.Until.AddDate(0, 0, *d.Days)
	}
	if d.Years != nil {
		m.Until = m.Until.AddDate(*d.Years, 0, 0)
	}
	return nil
}

func setRetention(m *store.ObjectMeta, mode, until string, now time.Time) error {
	if mode != "GOVERNANCE" && mode != "COMPLIANCE" {
		return invalidArgument("x-amz-object-lock-mode", mode, "Unknown wormMode directive.")
	}
	t, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return invalidArgument("x-amz-object-lock-retain-until-date", until, "The retain until date must be provided in ISO 8601 format")
	}
	if !t.After(now) {
		return invalidArgument("x-amz-object-lock-retain-until-date", until, "The retain until date must be in the future!")
	}
	m.Mode, m.Until = mode, t.UTC()
	return nil
}

// conditionOf is what a request asks of the object that it replaces.
func conditionOf(c *wire.Call) (store.ObjectCondition, error) {
	cond := store.ObjectCondition{IfMatch: unquoted(header(c, "If-Match")), IfNoneMatch: unquoted(header(c, "If-None-Match"))}
	if cond.IfNoneMatch != "" && cond.IfNoneMatch != "*" {
		e := wire.Errorf("NotImplemented", "A header you provided implies functionality that is not implemented").With(http.StatusNotImplemented)
		e.Fields = map[string]any{"Header": "If-None-Match"}
		return cond, e
	}
	return cond, nil
}

func unquoted(etag string) string { return strings.Trim(strings.TrimSpace(etag), `"`) }

func (s *service) eventOf(c *wire.Call, name string) store.ObjectEvent {
	return store.ObjectEvent{Name: name, Principal: "AWS:" + c.Caller.UserID, Request: c.RequestID, SourceIP: sourceIP(c)}
}

// sourceIP is where a request comes from.
func sourceIP(c *wire.Call) string {
	if at, err := netip.ParseAddrPort(c.Request.RemoteAddr); err == nil {
		return at.Addr().String()
	}
	return "127.0.0.1" // of functions, whose connections have no address
}

func (s *service) putObject(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	meta, err := metaOf(c)
	if err != nil {
		return nil, err
	}
	cl, err := claimed(c)
	if err != nil {
		return nil, err
	}
	cond, err := conditionOf(c)
	if err != nil {
		return nil, err
	}
	if c.Length < 0 {
		return nil, wire.Errorf("MissingContentLength", "You must provide the Content-Length HTTP header.").With(http.StatusLengthRequired)
	}
	if c.Length > store.MaxPart {
		return nil, store.ErrObjectTooLarge
	}
	if err := s.lock(ctx, c, &meta); err != nil {
		return nil, err
	}
	info, err := s.Objects.Put(ctx, keyOf(c), store.PutObject{
		Body: c.Stream, ObjectMeta: meta, Algorithm: cl.kept(), Condition: cond, Event: s.eventOf(c, "ObjectCreated:Put"),
		Verify: func(sums store.ObjectSums) error { return cl.verify(c, sums) },
	})
	if err != nil {
		return nil, err
	}
	a := done(http.StatusOK)
	answerPut(a.Header, info)
	return a, nil
}

// answerPut says in an answer's header what was put.
func answerPut(h http.Header, info store.ObjectInfo) {
	h["ETag"] = []string{`"` + info.ETag + `"`}
	answerChecksum(h, info.Checksum)
	if info.Version != store.NullVersion {
		h.Set("X-Amz-Version-Id", info.Version)
	}
	for k, v := range info.Headers {
		if strings.HasPrefix(k, "x-amz-server-side-encryption") {
			h.Set(k, v)
		}
	}
}

// continuation hides where a listing goes on.
func continuation(key string) string { return base64.URLEncoding.EncodeToString([]byte("1" + key)) }

func continued(token string) (string, error) {
	raw, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(raw) == 0 || raw[0] != '1' {
		return "", invalidArgument("continuation-token", token, "The continuation token provided is incorrect")
	}
	return string(raw[1:]), nil
}

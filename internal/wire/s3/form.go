package s3

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// maxForm bounds a form without its file: S3 API, "POST Object".
const maxForm = 20 << 10

// form is what a browser sends: fields, in lower case, and a file behind them.
type form struct {
	fields map[string]string
	name   string // of the file
	file   *multipart.Part
}

func readForm(c *wire.Call) (*form, error) {
	malformed := wire.Errorf("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.")
	_, params, err := mime.ParseMediaType(c.Request.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return nil, malformed
	}
	f := &form{fields: map[string]string{}}
	r := multipart.NewReader(c.Stream, params["boundary"])
	for size := 0; ; {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, invalidArgument("file", "0", "POST requires exactly one file upload per request.")
		}
		if err != nil {
			return nil, malformed
		}
		name := strings.ToLower(p.FormName())
		if name == "" {
			return nil, malformed
		}
		if name == "file" {
			f.name, f.file = p.FileName(), p
			return f, nil
		}
		value, err := io.ReadAll(io.LimitReader(p, maxForm))
		if err != nil {
			return nil, malformed
		}
		if size += len(name) + len(value); size > maxForm {
			return nil, wire.Errorf("MaxPostPreDataLengthExceeded", "Your POST request fields preceding the upload file were too large.")
		}
		f.fields[name] = string(value)
	}
}

// postForm takes an upload from a form: S3 API, "POST Object".
func (s *service) postForm(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	f, err := readForm(c)
	if err != nil {
		return nil, err
	}
	key, ok := f.fields["key"]
	if !ok || key == "" {
		return nil, invalidArgument("key", "", "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the fields.")
	}
	key = strings.ReplaceAll(key, "${filename}", path.Base(strings.ReplaceAll(f.name, "\\", "/")))
	f.fields["key"] = key
	c.Labels["Key"] = key
	if err := checkAddress(c); err != nil {
		return nil, err
	}
	least, most, err := s.admitForm(ctx, c, f)
	if err != nil {
		return nil, err
	}
	for name, value := range f.fields { // a field is what a header is elsewhere
		if name != "policy" && !strings.HasPrefix(name, "x-amz-signature") && !strings.ContainsAny(value, "\r\n") {
			c.Request.Header.Set(name, value)
		}
	}
	if f.fields["content-type"] == "" {
		c.Request.Header.Del("Content-Type") // that was the form's
	}
	if acl := f.fields["acl"]; acl != "" {
		c.Request.Header.Set("X-Amz-Acl", acl)
	}
	meta, err := metaOf(c)
	if err != nil {
		return nil, err
	}
	if text := f.fields["tagging"]; text != "" {
		var in tagging
		if err := xml.Unmarshal([]byte(text), &in); err != nil {
			return nil, malformedXML()
		}
		if meta.Tags, err = tagMap(in.Tags, 10); err != nil {
			return nil, err
		}
	}
	c.Length = -1
	cl, err := claimed(c)
	if err != nil {
		return nil, err
	}
	if err := s.lock(ctx, c, &meta); err != nil {
		return nil, err
	}
	info, err := s.Objects.Put(ctx, keyOf(c), store.PutObject{
		Body: io.LimitReader(f.file, most+1), ObjectMeta: meta, Algorithm: cl.kept(), Event: s.eventOf(c, "ObjectCreated:Post"),
		Verify: func(sums store.ObjectSums) error {
			if sums.Size > most {
				return wire.Errorf("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
			}
			if sums.Size < least {
				return wire.Errorf("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
			}
			return cl.verify(c, sums)
		},
	})
	if err != nil {
		return nil, err
	}
	return s.formAnswer(c, f, info)
}

func (s *service) formAnswer(c *wire.Call, f *form, info store.ObjectInfo) (*shape.Answer, error) {
	location := locationOf(c)
	to := f.fields["success_action_redirect"]
	if to == "" {
		to = f.fields["redirect"]
	}
	if u, err := url.Parse(to); to != "" && err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		q := u.Query()
		q.Set("bucket", c.Labels["Bucket"])
		q.Set("key", info.Key)
		q.Set("etag", `"`+info.ETag+`"`)
		u.RawQuery = q.Encode()
		a := done(http.StatusSeeOther)
		a.Header.Set("Location", u.String())
		return a, nil
	}
	a := done(http.StatusNoContent)
	switch f.fields["success_action_status"] {
	case "200":
		a.Status = http.StatusOK
	case "201":
		var err error
		if a, err = document(struct {
			XMLName                     xml.Name `xml:"PostResponse"`
			Location, Bucket, Key, ETag string
		}{Location: location, Bucket: c.Labels["Bucket"], Key: info.Key, ETag: `"` + info.ETag + `"`}); err != nil {
			return nil, err
		}
		a.Status = http.StatusCreated
	}
	answerPut(a.Header, info)
	a.Header.Set("Location", location)
	return a, nil
}

// admitForm checks a form's policy and its signature, and says how long the file may be.
func (s *service) admitForm(ctx context.Context, c *wire.Call, f *form) (least, most int64, err error) {
	encoded := f.fields["policy"]
	if encoded == "" || s.Authenticate == nil {
		return 0, 0, accessDenied()
	}
	if f.fields["awsaccesskeyid"] != "" {
		return s.admitOlder(ctx, c, f)
	}
	credential := strings.Split(f.fields["x-amz-credential"], "/")
	if len(credential) != 5 || f.fields["x-amz-algorithm"] != "AWS4-HMAC-SHA256" {
		return 0, 0, invalidArgument("X-Amz-Credential", f.fields["x-amz-credential"], "Bucket POST must contain a field named 'X-Amz-Credential' of the form <access key>/<date>/<region>/s3/aws4_request")
	}
	secret, who, err := s.Authenticate(ctx, credential[0], f.fields["x-amz-security-token"])
	if err != nil {
		return 0, 0, err
	}
	key := []byte("AWS4" + secret)
	for _, part := range credential[1:] {
		key = hash(key, part)
	}
	want := hex.EncodeToString(hash(key, encoded))
	if !hmac.Equal([]byte(want), []byte(strings.ToLower(f.fields["x-amz-signature"]))) {
		return 0, 0, wire.Errorf("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.").With(http.StatusForbidden)
	}
	return s.admitPolicy(ctx, c, f, who)
}

// admitOlder is admitForm for signatures of S3's older form.
func (s *service) admitOlder(ctx context.Context, c *wire.Call, f *form) (least, most int64, err error) {
	secret, who, err := s.Authenticate(ctx, f.fields["awsaccesskeyid"], f.fields["x-amz-security-token"])
	if err != nil {
		return 0, 0, err
	}
	h := hmac.New(sha1.New, []byte(secret))
	h.Write([]byte(f.fields["policy"]))
	if !hmac.Equal([]byte(base64.StdEncoding.EncodeToString(h.Sum(nil))), []byte(f.fields["signature"])) {
		return 0, 0, wire.Errorf("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.").With(http.StatusForbidden)
	}
	return s.admitPolicy(ctx, c, f, who)
}

// admitPolicy holds a form whose policy was signed by who to it.
func (s *service) admitPolicy(ctx context.Context, c *wire.Call, f *form, who wire.Caller) (least, most int64, err error) {
	c.Caller = who
	if err := c.Allow(ctx, objectSubject("PutObject", c.Labels["Bucket"], f.fields["key"], "")); err != nil {
		return 0, 0, err
	}
	if who.May != nil {
		if err := who.May("s3:PutObject"); err != nil {
			return 0, 0, err
		}
	}
	raw, err := base64.StdEncoding.DecodeString(f.fields["policy"])
	if err != nil {
		return 0, 0, wire.Errorf("InvalidPolicyDocument", "Invalid Policy: Invalid Base64.")
	}
	return checkForm(raw, f.fields, c.Labels["Bucket"], c.Now)
}

func hash(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// checkForm holds the fields of a form to its policy: S3 API, "POST policy".
func checkForm(raw []byte, fields map[string]string, bucket string, now time.Time) (least, most int64, err error) {
	invalid := func(format string, args ...any) error {
		return wire.Errorf("InvalidPolicyDocument", "Invalid Policy: "+format, args...)
	}
	var p struct {
		Expiration string            `json:"expiration"`
		Conditions []json.RawMessage `json:"conditions"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return 0, 0, invalid("Invalid JSON.")
	}
	until, err := time.Parse(time.RFC3339, p.Expiration)
	if err != nil {
		return 0, 0, invalid("Invalid 'expiration' value: '%s'", p.Expiration)
	}
	denied := func(format string, args ...any) error {
		return wire.Errorf("AccessDenied", "Invalid according to Policy: "+format, args...).With(http.StatusForbidden)
	}
	if !now.Before(until) {
		return 0, 0, denied("Policy expired.")
	}
	most = store.MaxPart
	covered := map[string]bool{"policy": true, "x-amz-signature": true, "file": true, "awsaccesskeyid": true, "signature": true}
	value := func(name string) string {
		if name == "bucket" {
			return bucket
		}
		return fields[name]
	}
	for _, c := range p.Conditions {
		op, name, want, low, high, ok := condition(c)
		if !ok {
			return 0, 0, invalid("Invalid condition: %s", c)
		}
		covered[name] = true
		switch {
		case op == "content-length-range":
			least, most = low, min(most, high)
		case op == "eq" && value(name) != want:
			return 0, 0, denied("Policy Condition failed: %s", conditionText(op, name, want))
		case op == "starts-with" && !strings.HasPrefix(value(name), want):
			return 0, 0, denied("Policy Condition failed: %s", conditionText(op, name, want))
		}
	}
	if !covered["bucket"] { // it would be good for all
		return 0, 0, denied("Extra input fields: bucket")
	}
	for name := range fields {
		if !covered[name] && !strings.HasPrefix(name, "x-ignore-") {
			return 0, 0, denied("Extra input fields: %s", name)
		}
	}
	return least, most, nil
}

func conditionText(op, name, want string) string {
	return fmt.Sprintf(`["%s", "$%s", "%s"]`, op, name, want)
}

// condition reads one: {"field": "value"}, ["eq", "$field", "value"], ["content-length-range", 1, 10].
func condition(raw json.RawMessage) (op, name, want string, low, high int64, ok bool) {
	var exact map[string]string
	if json.Unmarshal(raw, &exact) == nil {
		for k, v := range exact {
			return "eq", strings.ToLower(k), v, 0, 0, len(exact) == 1
		}
		return "", "", "", 0, 0, false
	}
	var list []any
	if json.Unmarshal(raw, &list) != nil || len(list) != 3 {
		return "", "", "", 0, 0, false
	}
	op, ok = list[0].(string)
	if !ok {
		return "", "", "", 0, 0, false
	}
	if op = strings.ToLower(op); op == "content-length-range" {
		l, ok1 := number(list[1])
		h, ok2 := number(list[2])
		return op, "", "", l, h, ok1 && ok2
	}
	name, ok1 := list[1].(string)
	want, ok2 := list[2].(string)
	name, dollar := strings.CutPrefix(strings.ToLower(name), "$")
	return op, name, want, 0, 0, ok1 && ok2 && dollar && (op == "eq" || op == "starts-with")
}

func number(v any) (int64, bool) {
	switch v := v.(type) {
	case float64:
		return int64(v), v >= 0 && v < 1<<53
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil && n >= 0
	}
	return 0, false
}

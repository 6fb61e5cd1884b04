package sign

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// version2 is a signature of S3's older form, which SDKs still make for presigned URLs: S3 guide, "Signing and authenticating REST requests
// (Signature Version 2)". It signs less than the newer one: no body, and of the parameters only those in subresources.
type version2 struct {
	expires string // seconds since 1970, of a presigned URL; else ""
}

// subresources are the parameters that are signed.
var subresources = []string{
	"accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "inventory", "lifecycle", "location", "logging", "metrics", "notification", "object-lock", "partNumber",
	"policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "response-cache-control", "response-content-disposition", "response-content-encoding",
	"response-content-language", "response-content-type", "response-expires", "restore", "select", "select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads",
	"versionId", "versioning", "versions", "website", "legal-hold", "retention", "encryption",
}

// Older says whether it is a signature of S3's older form.
func (s *Signature) Older() bool { return s.older != nil }

// parseVersion2 reads a signature of the older form; nil where there is none.
func parseVersion2(r *http.Request, query url.Values) (*Signature, error) {
	s := &Signature{Service: "s3", Region: "us-east-1", payload: unsignedPayload, older: &version2{}}
	if rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS "); ok {
		i := strings.LastIndex(rest, ":")
		if i <= 0 {
			return nil, fault(Incomplete, "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature")
		}
		s.AccessKey, s.value, s.Token = rest[:i], rest[i+1:], r.Header.Get("X-Amz-Security-Token")
		date := r.Header.Get("X-Amz-Date")
		if date == "" {
			date = r.Header.Get("Date")
		}
		var err error
		if s.Time, err = http.ParseTime(date); err != nil {
			if s.Time, err = time.Parse(time.RFC1123Z, date); err != nil {
				return nil, fault(Unsigned, "AWS authentication requires a valid Date or x-amz-date header")
			}
		}
		return s, nil
	}
	if !query.Has("AWSAccessKeyId") || !query.Has("Signature") {
		return nil, nil
	}
	n, err := strconv.ParseInt(query.Get("Expires"), 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return nil, fault(Incomplete, "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")
	}
	s.Presigned, s.AccessKey, s.value, s.older.expires = true, query.Get("AWSAccessKeyId"), query.Get("Signature"), query.Get("Expires")
	s.Time, s.Token = time.Unix(n, 0), r.Header.Get("X-Amz-Security-Token")
	for k, list := range query {
		if strings.EqualFold(k, "X-Amz-Security-Token") {
			s.Token = list[0]
		}
	}
	return s, nil
}

func (s *Signature) checkVersion2(r *http.Request, secret string, o Options) (*Body, error) {
	if s.Presigned {
		if o.Now.After(s.Time) {
			return nil, fault(Expired, "Request has expired")
		}
	} else if err := s.timely(o.Now); err != nil {
		return nil, err
	}
	query := r.URL.Query()
	h := hmac.New(sha1.New, []byte(secret))
	_, _ = io.WriteString(h, s.older.text(r, query, o.Path))
	if !hmac.Equal([]byte(base64.StdEncoding.EncodeToString(h.Sum(nil))), []byte(s.value)) {
		return nil, fault(Mismatch, "The request signature we calculated does not match the signature you provided. Check your key and signing method.")
	}
	payload := unsignedPayload
	if strings.HasPrefix(r.Header.Get(contentHashHeader), unsignedTrailer) {
		payload = unsignedTrailer
	}
	return s.body(r, payload, nil, o)
}

// text is the text that stands for the request. path names the bucket first.
func (v *version2) text(r *http.Request, query url.Values, path string) string {
	value := func(name string) string {
		if h := r.Header.Get(name); h != "" || v.expires == "" {
			return h
		}
		for k, list := range query { // of a presigned URL headers may stand there
			if strings.EqualFold(k, name) {
				return list[0]
			}
		}
		return ""
	}
	amz := map[string]string{}
	if v.expires != "" {
		for k, list := range query {
			if low := strings.ToLower(k); strings.HasPrefix(low, "x-amz-") {
				amz[low] = strings.Join(list, ",")
			}
		}
	}
	for k, list := range r.Header {
		if low := strings.ToLower(k); strings.HasPrefix(low, "x-amz-") {
			for i, one := range list {
				list[i] = strings.TrimSpace(one)
			}
			amz[low] = strings.Join(list, ",")
		}
	}
	date := v.expires
	if date == "" && amz["x-amz-date"] == "" {
		date = r.Header.Get("Date")
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + value("Content-MD5") + "\n" + value("Content-Type") + "\n" + date + "\n")
	var names []string
	for k := range amz {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		b.WriteString(k + ":" + amz[k] + "\n")
	}
	b.WriteString(path)
	mark := "?"
	for _, k := range slices.Sorted(slices.Values(subresources)) {
		if !query.Has(k) {
			continue
		}
		b.WriteString(mark + k)
		if text := query.Get(k); text != "" {
			b.WriteString("=" + text)
		}
		mark = "&"
	}
	return b.String()
}

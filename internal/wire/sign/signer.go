package sign

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Credentials are what requests are signed with.
type Credentials struct{ AccessKey, Secret, Token string }

// Sign signs a request in its header, with the body as it is given.
func Sign(r *http.Request, body []byte, c Credentials, region, service string, now time.Time) {
	now = now.UTC()
	r.Header.Set("X-Amz-Date", now.Format(dateForm))
	if c.Token != "" {
		r.Header.Set("X-Amz-Security-Token", c.Token)
	}
	payload := hashOf(body)
	if service == "s3" {
		r.Header.Set(contentHashHeader, payload)
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	s := &Signature{AccessKey: c.AccessKey, Region: region, Service: service, Time: now, date: now.Format(dateForm)[:8], headers: []string{"host"}}
	for name := range r.Header {
		if low := strings.ToLower(name); strings.HasPrefix(low, "x-amz-") || low == "content-type" {
			s.headers = append(s.headers, low)
		}
	}
	slices.Sort(s.headers)
	text := strings.Join([]string{algorithm, now.Format(dateForm), s.scope(), hashOf([]byte(s.canonical(r, payload)))}, "\n")
	value := hex.EncodeToString(mac(s.key(c.Secret), text))
	r.Header.Set("Authorization", algorithm+" Credential="+c.AccessKey+"/"+s.scope()+", SignedHeaders="+strings.Join(s.headers, ";")+", Signature="+value)
}

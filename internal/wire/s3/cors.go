package s3

import (
	"context"
	"encoding/xml"
	"net/http"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

type corsRule struct {
	AllowedOrigin, AllowedMethod, AllowedHeader, ExposeHeader []string
	MaxAgeSeconds                                             *int
}

type corsConfiguration struct {
	Rules []corsRule `xml:"CORSRule"`
}

var corsMethods = []string{"GET", "PUT", "HEAD", "POST", "DELETE"}

func checkCORS(data []byte) error {
	var in corsConfiguration
	if err := xml.Unmarshal(data, &in); err != nil || len(in.Rules) == 0 || len(in.Rules) > 100 {
		return malformedXML()
	}
	for _, r := range in.Rules {
		if len(r.AllowedMethod) == 0 || len(r.AllowedOrigin) == 0 {
			return malformedXML()
		}
		for _, m := range r.AllowedMethod {
			if !slices.Contains(corsMethods, m) {
				return wire.Errorf("InvalidRequest", "Found unsupported HTTP method in CORS config. Unsupported method is %s", m)
			}
		}
		for _, o := range r.AllowedOrigin {
			if strings.Count(o, "*") > 1 {
				return wire.Errorf("InvalidRequest", "AllowedOrigin \"%s\" can not have more than one wildcard.", o)
			}
		}
		for _, h := range r.AllowedHeader {
			if strings.Count(h, "*") > 1 {
				return wire.Errorf("InvalidRequest", "AllowedHeader \"%s\" can not have more than one wildcard.", h)
			}
		}
	}
	return nil
}

// fits says whether a text fits a pattern with at most one star.
func fits(pattern, text string) bool {
	before, after, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	return len(text) >= len(before)+len(after) && strings.HasPrefix(text, before) && strings.HasSuffix(text, after)
}

// rule is the first that lets a page of an origin do something, or nil.
func (k *corsConfiguration) rule(origin, method string, headers []string) *corsRule {
	for i := range k.Rules {
		r := &k.Rules[i]
		if !slices.Contains(r.AllowedMethod, method) || !slices.ContainsFunc(r.AllowedOrigin, func(p string) bool { return fits(p, origin) }) {
			continue
		}
		all := true
		for _, h := range headers {
			all = all && slices.ContainsFunc(r.AllowedHeader, func(p string) bool { return fits(strings.ToLower(p), strings.ToLower(h)) })
		}
		if all {
			return r
		}
	}
	return nil
}

func (r *corsRule) answer(h http.Header, origin string) {
	h.Set("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method")
	if slices.Contains(r.AllowedOrigin, "*") {
		h.Set("Access-Control-Allow-Origin", "*")
	} else {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Access-Control-Allow-Methods", strings.Join(r.AllowedMethod, ", "))
	if len(r.ExposeHeader) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(r.ExposeHeader, ", "))
	}
}

func (s *service) cors(ctx context.Context, id store.BucketID) (*corsConfiguration, error) {
	b, err := s.Objects.Bucket(ctx, id)
	if err != nil {
		return nil, err
	}
	k := &corsConfiguration{}
	if data := b.Documents["cors"]; data != nil {
		err = xml.Unmarshal(data, k)
	}
	return k, err
}

// allowOrigin says in an answer's header what the page that asks may read.
func (s *service) allowOrigin(ctx context.Context, c *wire.Call) {
	k, err := s.cors(ctx, bucketOf(c))
	if err != nil {
		return // the operation says it
	}
	origin := header(c, "Origin")
	method := c.Request.Method
	if m := header(c, "Access-Control-Request-Method"); m != "" { // S3 looks at it in any request
		method = m
	}
	if r := k.rule(origin, method, requestHeaders(c)); r != nil {
		r.answer(c.Header, origin)
	}
}

// requestHeaders are those that a page would send.
func requestHeaders(c *wire.Call) []string {
	var headers []string
	for one := range strings.SplitSeq(header(c, "Access-Control-Request-Headers"), ",") {
		if one = strings.TrimSpace(one); one != "" {
			headers = append(headers, one)
		}
	}
	return headers
}

func (s *service) preflight(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	origin, method := header(c, "Origin"), header(c, "Access-Control-Request-Method")
	if origin == "" || method == "" {
		return nil, wire.Errorf("BadRequest", "Insufficient information. Origin request header needed.")
	}
	if !slices.Contains(corsMethods, method) {
		return nil, wire.Errorf("BadRequest", "Invalid Access-Control-Request-Method: %s", method)
	}
	refused := wire.Errorf("AccessForbidden", "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.").With(http.StatusForbidden)
	refused.Fields = map[string]any{"Method": method, "ResourceType": "BUCKET"}
	k, err := s.cors(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	if len(k.Rules) == 0 {
		refused.Message = "CORSResponse: CORS is not enabled for this bucket."
		return nil, refused
	}
	headers := requestHeaders(c)
	r := k.rule(origin, method, headers)
	if r == nil {
		return nil, refused
	}
	a := done(http.StatusOK)
	r.answer(a.Header, origin)
	if len(headers) > 0 {
		a.Header.Set("Access-Control-Allow-Headers", strings.ToLower(strings.Join(headers, ", ")))
	}
	if r.MaxAgeSeconds != nil {
		a.Header.Set("Access-Control-Max-Age", itoa(*r.MaxAgeSeconds))
	}
	return a, nil
}

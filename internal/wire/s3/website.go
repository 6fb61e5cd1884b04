package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

type redirect struct {
	HostName, Protocol, ReplaceKeyPrefixWith, ReplaceKeyWith, HttpRedirectCode string //nolint:revive // the element's name
}

type websiteConfiguration struct {
	IndexDocument         struct{ Suffix string }
	ErrorDocument         struct{ Key string }
	RedirectAllRequestsTo *redirect
	RoutingRules          []struct {
		Condition struct{ HttpErrorCodeReturnedEquals, KeyPrefixEquals string } //nolint:revive // the element's name
		Redirect  redirect
	} `xml:"RoutingRules>RoutingRule"`
}

func checkWebsite(data []byte) error {
	var in websiteConfiguration
	if err := xml.Unmarshal(data, &in); err != nil {
		return malformedXML()
	}
	if in.RedirectAllRequestsTo == nil && in.IndexDocument.Suffix == "" {
		return invalidArgument("IndexDocument", "null", "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty")
	}
	if strings.Contains(in.IndexDocument.Suffix, "/") {
		return invalidArgument("IndexDocument", in.IndexDocument.Suffix, "The IndexDocument Suffix is not well formed")
	}
	if len(in.RoutingRules) > 50 {
		return wire.Errorf("InvalidRequest", "%d routing rules provided, the number of routing rules in a website configuration is limited to 50.", len(in.RoutingRules))
	}
	if to := in.RedirectAllRequestsTo; to != nil {
		if in.IndexDocument.Suffix != "" || in.ErrorDocument.Key != "" || len(in.RoutingRules) > 0 || to.HostName == "" {
			return malformedXML() // it stands alone
		}
		return to.check()
	}
	for i := range in.RoutingRules {
		r := &in.RoutingRules[i]
		if r.Redirect == (redirect{}) {
			return malformedXML()
		}
		if code := r.Condition.HttpErrorCodeReturnedEquals; code != "" && (len(code) != 3 || code[0] != '4' && code[0] != '5') {
			return wire.Errorf("InvalidRequest", "The provided HTTP error code (%s) is not valid. Valid codes are 4XX or 5XX.", code)
		}
		if err := r.Redirect.check(); err != nil {
			return err
		}
	}
	return nil
}

func (r redirect) check() error {
	switch {
	case r.Protocol != "" && r.Protocol != "http" && r.Protocol != "https":
		return wire.Errorf("InvalidRequest", "Invalid protocol, protocol can be http or https. If not defined the protocol will be selected automatically.")
	case r.ReplaceKeyWith != "" && r.ReplaceKeyPrefixWith != "":
		return wire.Errorf("InvalidRequest", "You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
	case r.HttpRedirectCode != "" && !slices.Contains([]string{"301", "302", "303", "304", "305", "307", "308"}, r.HttpRedirectCode):
		return wire.Errorf("InvalidRequest", "The provided HTTP redirect code (%s) is not valid. Valid codes are 3XX except 300.", r.HttpRedirectCode)
	}
	return nil
}

// website answers as the website endpoint of a bucket: S3 guide, "Hosting a static website".
func (s *service) website(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if m := c.Request.Method; m != http.MethodGet && m != http.MethodHead {
		e := wire.Errorf("MethodNotAllowed", "The specified method is not allowed against this resource.").With(http.StatusMethodNotAllowed)
		e.Fields = map[string]any{"Method": m, "ResourceType": "OBJECT"}
		return nil, e
	}
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	var site websiteConfiguration
	if data := b.Documents["website"]; data == nil || xml.Unmarshal(data, &site) != nil {
		e := wire.Errorf("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration").With(http.StatusNotFound)
		e.Fields = map[string]any{"BucketName": b.Name}
		return nil, e
	}
	key := strings.TrimPrefix(c.Request.URL.Path, "/")
	if to := site.RedirectAllRequestsTo; to != nil {
		return redirected(c, *to, "", key), nil
	}
	for _, r := range site.RoutingRules {
		if r.Condition.HttpErrorCodeReturnedEquals == "" && strings.HasPrefix(key, r.Condition.KeyPrefixEquals) {
			return redirected(c, r.Redirect, r.Condition.KeyPrefixEquals, key), nil
		}
	}
	asked := key
	if key == "" || strings.HasSuffix(key, "/") {
		key += site.IndexDocument.Suffix
	}
	a, err := s.page(ctx, c, b, key)
	if err == nil {
		return a, nil
	}
	var e *wire.Error
	if !errors.As(err, &e) {
		if e = translate(c, err); e == nil {
			return nil, err
		}
	}
	if e.Status == http.StatusNotModified || e.Status == http.StatusPreconditionFailed {
		return nil, e
	}
	if e.Code == "NoSuchKey" && asked != "" && !strings.HasSuffix(asked, "/") {
		if _, err := s.Objects.Head(ctx, store.ObjectKey{Bucket: bucketOf(c), Key: asked + "/" + site.IndexDocument.Suffix}, ""); err == nil {
			a := done(http.StatusFound)
			a.Header.Set("Location", (&url.URL{Path: "/" + asked + "/"}).EscapedPath())
			return a, nil
		}
	}
	for _, r := range site.RoutingRules {
		if code := r.Condition.HttpErrorCodeReturnedEquals; code != "" && code == itoa(e.Status) && strings.HasPrefix(asked, r.Condition.KeyPrefixEquals) {
			return redirected(c, r.Redirect, r.Condition.KeyPrefixEquals, asked), nil
		}
	}
	if site.ErrorDocument.Key != "" {
		if a, err := s.page(ctx, c, b, site.ErrorDocument.Key); err == nil {
			a.Status = e.Status
			a.Header.Del("Content-Range")
			return a, nil
		}
	}
	return nil, e
}

// page gives an object that is public.
func (s *service) page(ctx context.Context, c *wire.Call, b store.Bucket, key string) (*shape.Answer, error) {
	o, err := s.Objects.Open(ctx, store.ObjectKey{Bucket: bucketOf(c), Key: key}, "")
	var info store.ObjectInfo
	if o != nil {
		info = o.Info()
		defer func() {
			if err != nil {
				_ = o.Close()
			}
		}()
	}
	if !opens(c, b, objectSubject("GetObject", b.Name, key, ""), strings.HasPrefix(info.Headers[aclHeader], "public-read")) {
		err = accessDenied()
		return nil, err
	}
	if err != nil {
		if errors.Is(err, store.ErrNoObject) {
			err = noSuchKey(key)
		}
		return nil, err
	}
	if to := info.Headers["x-amz-website-redirect-location"]; to != "" {
		_ = o.Close()
		a := done(http.StatusMovedPermanently)
		a.Header.Set("Location", to)
		return a, nil
	}
	a, offset, length, err := describe(c, info)
	if err != nil {
		return nil, err
	}
	a.Stream = &body{ctx: ctx, o: o, offset: offset, length: length}
	return a, nil
}

// redirected sends the client elsewhere.
func redirected(c *wire.Call, to redirect, prefix, key string) *shape.Answer {
	u := url.URL{Scheme: to.Protocol, Host: to.HostName}
	if u.Scheme == "" {
		if u.Scheme = "http"; c.Request.TLS != nil {
			u.Scheme = "https"
		}
	}
	if u.Host == "" {
		u.Host = c.Request.Host
	}
	switch {
	case to.ReplaceKeyWith != "":
		key = to.ReplaceKeyWith
	case to.ReplaceKeyPrefixWith != "" || prefix != "" && to.HostName == "":
		key = to.ReplaceKeyPrefixWith + strings.TrimPrefix(key, prefix)
	}
	u.Path = "/" + key
	status := http.StatusMovedPermanently
	switch to.HttpRedirectCode {
	case "302", "303", "307", "308":
		status = int(to.HttpRedirectCode[0]-'0')*100 + int(to.HttpRedirectCode[2]-'0')
	}
	a := done(status)
	a.Header.Set("Location", u.String())
	return a
}

// websiteError is an error for people.
func websiteError(c *wire.Call, e *wire.Error, status int) *shape.Answer {
	title := itoa(status) + " " + http.StatusText(status)
	page := "<html>\n<head><title>" + title + "</title></head>\n<body>\n<h1>" + title + "</h1>\n<ul>\n<li>Code: " + html.EscapeString(e.Code) + "</li>\n<li>Message: " +
		html.EscapeString(e.Message) + "</li>\n"
	for _, k := range sortedKeys(e.Fields) {
		if v, ok := e.Fields[k].(string); ok {
			page += "<li>" + k + ": " + html.EscapeString(v) + "</li>\n"
		}
	}
	page += "<li>RequestId: " + c.RequestID + "</li>\n</ul>\n<hr/>\n</body>\n</html>\n"
	return &shape.Answer{Status: status, Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, Body: []byte(page)}
}

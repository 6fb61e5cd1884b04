package wire

import (
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/ebb-run/ebb/internal/wire/shape"
)

// OnAWS says whether a host name is one of AWS's API endpoints, which sandboxes find ebb behind.
func OnAWS(host string) bool { return onAWS(host) }

func onAWS(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, root := range []string{".amazonaws.com", ".api.aws"} {
		if strings.HasSuffix(host, root) {
			return true
		}
	}
	return false
}

var regionRE = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-\d+$`)

// regionIn is the region that a host name says, or "".
func regionIn(host string) string {
	for part := range strings.SplitSeq(strings.ToLower(host), ".") {
		if regionRE.MatchString(part) {
			return part
		}
		if rest, ok := strings.CutPrefix(part, "s3-"); ok && regionRE.MatchString(rest) {
			return rest
		}
	}
	return ""
}

// hostService is the name of the service in a host name of AWS: "sqs" of sqs.eu-west-1.amazonaws.com, with FIPS, dual-stack and older forms.
func hostService(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	host = strings.TrimSuffix(strings.TrimSuffix(host, ".amazonaws.com"), ".api.aws")
	var labels []string
	for part := range strings.SplitSeq(host, ".") {
		if part == "dualstack" || regionRE.MatchString(part) {
			continue
		}
		part = strings.TrimSuffix(part, "-fips")
		part = strings.TrimPrefix(part, "fips-")
		if rest, ok := strings.CutPrefix(part, "s3-"); ok && (regionRE.MatchString(rest) || rest == "accelerate" || rest == "external-1") {
			part = "s3"
		}
		labels = append(labels, part)
	}
	if len(labels) == 0 {
		return ""
	}
	last := labels[len(labels)-1]
	if last == "dynamodb" && len(labels) > 1 && labels[len(labels)-2] == "streams" {
		return "streams.dynamodb"
	}
	return last
}

// find says which service a request is for, and the operation's name where it says it itself.
func (h *Handler) find(r *http.Request, scope string) (s *Service, operation string) {
	if prefix, op, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		for _, s := range h.services {
			if s.table.Metadata.TargetPrefix == prefix {
				return s, op
			}
		}
		return nil, op
	}
	names := []string{scope}
	if onAWS(r.Host) {
		names = append([]string{hostService(r.Host)}, names...)
	}
	for _, name := range names {
		for _, s := range h.services {
			m := s.table.Metadata
			if name != "" && (m.SigningName == name || m.EndpointPrefix == name || slices.Contains(s.Signing, name) || slices.Contains(s.Hosts, name)) {
				return s, ""
			}
		}
	}
	if scope == "" && !onAWS(r.Host) { // from outside, unsigned requests are for buckets
		for _, s := range h.services {
			if s.Name == "s3" {
				return s, ""
			}
		}
	}
	return nil, ""
}

// protocolOf says how a request to the service is written. service may be nil.
func protocolOf(s *Service, r *http.Request, scope string) shape.Protocol {
	form := isForm(r)
	switch {
	case s == nil && (scope == "s3" || onAWS(r.Host) && hostService(r.Host) == "s3"):
		return shape.RESTXML
	case r.Header.Get("X-Amz-Target") != "":
		return shape.JSON
	case s == nil && (form || r.URL.Query().Has("Action")):
		return shape.Query
	case s == nil:
		return shape.RESTJSON
	case s.table.Metadata.Protocol == shape.JSON && s.QueryCodes != nil && (form || r.URL.Query().Has("Action") || !strings.Contains(r.Header.Get("Content-Type"), "json")):
		return shape.Query
	}
	return s.table.Metadata.Protocol
}

func isForm(r *http.Request) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return kind == "application/x-www-form-urlencoded"
}

// formOf joins a form's parameters with those of the address.
func formOf(query url.Values, body []byte) (url.Values, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	for k, list := range query {
		if !form.Has(k) {
			form[k] = list
		}
	}
	return form, nil
}

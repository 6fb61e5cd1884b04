package lambda

import (
	"strconv"
	"strings"
)

// appendV2 appends payload format 2.0 up to the body, for HTTP APIs and function URLs. Keys: "Payload format structure",
// 2.0, and "Request and response payloads" of function URLs. What is not there is absent.
func (e *httpEvent) appendV2(dst []byte) []byte {
	r, rt := e.r, e.r.Route
	path := r.Path // a function URL keeps it as sent
	if rt.APIKind == kindHTTP {
		path = decodePercent(r.FullPath, false) // an HTTP API shows its stage and decodes
	}
	dst = append(dst, `{"version":"2.0","routeKey":"`...)
	dst = append(e.appendRouteKey(dst), '"')
	dst = appendMember(dst, "rawPath", path)
	dst = appendMember(dst, "rawQueryString", r.Query)
	dst = e.appendCookies(dst)
	dst = e.appendHeadersV2(dst)
	if q := pairs(r.Query); len(q) > 0 {
		dst = append(appendKey(dst, "queryStringParameters"), '{')
		eachPair(q, func(name string, values []string) {
			if dst[len(dst)-1] != '{' {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, name), ':', '"')
			for i, v := range values {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = appendEscaped(dst, v)
			}
			dst = append(dst, '"')
		})
		dst = append(dst, '}')
	}
	dst = appendKey(dst, "requestContext")
	dst = e.appendContextV2(dst, path)
	if len(rt.Params) > 0 && rt.APIKind == kindHTTP {
		dst = e.appendParams(appendKey(dst, "pathParameters"))
	}
	if len(rt.StageVars) > 0 && rt.APIKind == kindHTTP {
		dst = appendStageVars(appendKey(dst, "stageVariables"), rt.StageVars)
	}
	return dst
}

// appendCookies appends every cookie of every Cookie line; the lines themselves are not in headers.
func (e *httpEvent) appendCookies(dst []byte) []byte {
	open := false
	for _, f := range e.fields {
		if f.Name != "cookie" {
			continue
		}
		for rest := f.Value; rest != ""; {
			var c string
			c, rest, _ = strings.Cut(rest, ";")
			if c = strings.TrimSpace(c); c == "" {
				continue
			}
			if !open {
				dst = append(appendKey(dst, "cookies"), '[')
				open = true
			} else {
				dst = append(dst, ',')
			}
			dst = appendString(dst, c)
		}
	}
	if open {
		dst = append(dst, ']')
	}
	return dst
}

func (e *httpEvent) appendHeadersV2(dst []byte) []byte {
	dst = append(appendKey(dst, "headers"), '{')
	e.eachGroup(func(name string, at []int) {
		if name == "cookie" {
			return
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':', '"')
		for i, n := range at {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendEscaped(dst, e.fields[n].Value)
		}
		dst = append(dst, '"')
	})
	return append(dst, '}')
}

func (e *httpEvent) appendContextV2(dst []byte, path string) []byte {
	r, rt, inv := e.r, e.r.Route, e.inv
	dst = append(dst, '{')
	dst = appendMember(dst, "accountId", rt.Account)
	dst = appendMember(dst, "apiId", rt.APIID)
	if r.Claims != nil {
		dst = appendKey(dst, "authorizer")
		if named(r.Claims) {
			dst = appendJSON(dst, r.Claims)
		} else {
			dst = append(dst, `{"lambda":`...)
			dst = append(appendJSON(dst, r.Claims), '}')
		}
	}
	dst = appendMember(dst, "domainName", rt.Domain)
	dst = appendMember(dst, "domainPrefix", domainPrefix(rt.Domain))
	dst = append(appendKey(dst, "http"), '{')
	dst = appendMember(dst, "method", r.Method)
	dst = appendMember(dst, "path", path)
	dst = appendMember(dst, "protocol", r.Proto)
	dst = appendMember(dst, "sourceIp", r.RemoteIP)
	dst = append(appendMember(dst, "userAgent", e.agent), '}')
	dst = append(appendKey(dst, "requestId"), '"')
	if rt.APIKind == kindHTTP {
		dst = append(appendExtendedID(dst, inv.ID), '"')
	} else {
		dst = append(appendEscaped(dst, inv.ID), '"')
	}
	dst = append(appendKey(dst, "routeKey"), '"')
	dst = append(e.appendRouteKey(dst), '"')
	dst = appendMember(dst, "stage", rt.Stage)
	dst = appendTime(appendKey(dst, "time"), inv.Received)
	dst = strconv.AppendInt(appendKey(dst, "timeEpoch"), inv.Received.UnixMilli(), 10)
	return append(dst, '}')
}

// named says whether the claims already stand under the kind of authorizer that found them.
func named(claims map[string]any) bool {
	for _, k := range []string{"jwt", "lambda", "iam"} {
		if _, ok := claims[k]; ok && len(claims) == 1 {
			return true
		}
	}
	return false
}

package lambda

import (
	"strconv"
	"strings"
)

// appendV1 appends payload format 1.0 up to the body. Keys: "Input format of a Lambda function for proxy integration"
// (REST) and "Payload format structure", 1.0 (HTTP API). What is not there is null, not absent.
func (e *httpEvent) appendV1(dst []byte) []byte {
	r, rt := e.r, e.r.Route
	dst = append(dst, '{')
	path := r.Path // a REST API keeps it as sent
	if rt.APIKind == kindHTTP {
		dst = appendMember(dst, "version", "1.0")
		path = decodePercent(r.FullPath, false)
	}
	dst = appendMember(dst, "resource", rt.Pattern)
	dst = appendMember(dst, "path", path)
	dst = appendMember(dst, "httpMethod", r.Method)
	dst = e.appendHeadersV1(dst)
	dst = e.appendQueryV1(dst)
	dst = appendKey(dst, "requestContext")
	dst = e.appendContextV1(dst, path)
	if len(rt.Params) == 0 {
		dst = appendNull(dst, "pathParameters")
	} else {
		dst = e.appendParams(appendKey(dst, "pathParameters"))
	}
	if len(rt.StageVars) == 0 {
		dst = appendNull(dst, "stageVariables")
	} else {
		dst = appendStageVars(appendKey(dst, "stageVariables"), rt.StageVars)
	}
	return dst
}

// appendHeadersV1 appends headers (the last value of each) and multiValueHeaders (all of them).
func (e *httpEvent) appendHeadersV1(dst []byte) []byte {
	dst = append(appendKey(dst, "headers"), '{')
	e.eachGroup(func(name string, at []int) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':')
		dst = appendString(dst, e.fields[at[len(at)-1]].Value)
	})
	dst = append(dst, '}')
	dst = append(appendKey(dst, "multiValueHeaders"), '{')
	e.eachGroup(func(name string, at []int) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':', '[')
		for i, n := range at {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, e.fields[n].Value)
		}
		dst = append(dst, ']')
	})
	return append(dst, '}')
}

func (e *httpEvent) appendQueryV1(dst []byte) []byte {
	q := pairs(e.r.Query)
	if len(q) == 0 {
		dst = appendNull(dst, "queryStringParameters")
		return appendNull(dst, "multiValueQueryStringParameters")
	}
	dst = append(appendKey(dst, "queryStringParameters"), '{')
	eachPair(q, func(name string, values []string) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':')
		dst = appendString(dst, values[len(values)-1])
	})
	dst = append(dst, '}')
	dst = append(appendKey(dst, "multiValueQueryStringParameters"), '{')
	eachPair(q, func(name string, values []string) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':', '[')
		for i, v := range values {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, v)
		}
		dst = append(dst, ']')
	})
	return append(dst, '}')
}

func (e *httpEvent) appendContextV1(dst []byte, path string) []byte {
	r, rt, inv := e.r, e.r.Route, e.inv
	dst = append(dst, '{')
	dst = appendMember(dst, "accountId", rt.Account)
	dst = appendMember(dst, "apiId", rt.APIID)
	if r.Claims != nil {
		dst = appendJSON(appendKey(dst, "authorizer"), r.Claims)
	}
	if rt.APIKind == kindREST {
		dst = appendMember(dst, "deploymentId", deploymentID(rt.APIID))
	}
	dst = appendMember(dst, "domainName", rt.Domain)
	dst = appendMember(dst, "domainPrefix", domainPrefix(rt.Domain))
	dst = append(appendKey(dst, "extendedRequestId"), '"')
	dst = append(appendExtendedID(dst, inv.ID), '"')
	dst = appendMember(dst, "httpMethod", r.Method)
	dst = appendKey(dst, "identity")
	if rt.APIKind == kindREST {
		dst = append(dst, `{"accessKey":null,"accountId":null,"caller":null,"cognitoAuthenticationProvider":null,`+
			`"cognitoAuthenticationType":null,"cognitoIdentityId":null,"cognitoIdentityPoolId":null,"principalOrgId":null,`...)
	} else {
		dst = append(dst, `{"accessKey":null,"accountId":null,"caller":null,"cognitoAmr":null,"cognitoAuthenticationProvider":null,`+
			`"cognitoAuthenticationType":null,"cognitoIdentityId":null,"cognitoIdentityPoolId":null,"principalOrgId":null,`...)
	}
	dst = append(dst, `"sourceIp":`...)
	dst = appendString(dst, r.RemoteIP)
	dst = appendNull(dst, "user")
	if e.agent == "" && rt.APIKind == kindREST {
		dst = appendNull(dst, "userAgent")
	} else {
		dst = appendMember(dst, "userAgent", e.agent)
	}
	dst = append(appendNull(dst, "userArn"), '}')
	if rt.APIKind == kindREST {
		// The stage is part of this path even where the client left it away.
		dst = append(appendKey(dst, "path"), '"', '/')
		dst = appendEscaped(dst, rt.Stage)
		dst = append(appendEscaped(dst, path), '"')
	} else {
		dst = appendMember(dst, "path", path)
	}
	dst = appendMember(dst, "protocol", r.Proto)
	dst = appendMember(dst, "requestId", inv.ID)
	dst = appendTime(appendKey(dst, "requestTime"), inv.Received)
	dst = strconv.AppendInt(appendKey(dst, "requestTimeEpoch"), inv.Received.UnixMilli(), 10)
	if rt.APIKind == kindREST {
		dst = appendMember(dst, "resourceId", rt.ResourceID)
	} else {
		dst = append(appendKey(dst, "resourceId"), '"')
		dst = append(e.appendRouteKey(dst), '"')
	}
	dst = appendMember(dst, "resourcePath", rt.Pattern)
	dst = appendMember(dst, "stage", rt.Stage)
	return append(dst, '}')
}

// appendRouteKey appends "GET /x", or "$default" alone, without quotes.
func (e *httpEvent) appendRouteKey(dst []byte) []byte {
	if rt := e.r.Route; !strings.HasPrefix(rt.Pattern, "$") && e.r.Route.APIKind != kindURL {
		dst = append(dst, rt.Method...)
		dst = append(dst, ' ')
		return appendEscaped(dst, rt.Pattern)
	}
	return append(dst, "$default"...)
}

func domainPrefix(domain string) string {
	prefix, _, _ := strings.Cut(domain, ".")
	return prefix
}

// deploymentID is six letters and digits that do not change while the API is the same.
func deploymentID(api string) string {
	return api[:min(6, len(api))]
}

// appendExtendedID appends 15 characters and "=" in the form of an extended request id, made of the Invocation's.
func appendExtendedID(dst []byte, id string) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	n := 0
	for i := 0; i+1 < len(id) && n < 15; i++ {
		a, b := unhex(id[i]), unhex(id[i+1])
		if a < 0 || b < 0 {
			continue
		}
		dst = append(dst, alphabet[(a<<4|b)&63])
		n++
	}
	for ; n < 15; n++ {
		dst = append(dst, 'A')
	}
	return append(dst, '=')
}

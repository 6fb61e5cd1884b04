package wire

import (
	"errors"
	"net/http"
	"strings"

	"github.com/ebb-run/ebb/internal/wire/shape"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// signError is what a client is told whose signature does not hold. Services differ: AWS General Reference, "Common errors"; S3 API, "Error responses".
func signError(c *Call, f *sign.Fault) *Error {
	isS3 := c.Service != nil && c.Service.Name == "s3"
	// The JSON protocols say it with 400 where they are no rest.
	status := http.StatusForbidden
	if c.Protocol == shape.JSON {
		status = http.StatusBadRequest
	}
	suffix := ""
	if c.Protocol == shape.JSON || c.Protocol == shape.RESTJSON {
		suffix = "Exception"
	}
	say := func(code string) *Error { return Errorf(code, "%s", f.Text).With(status) }
	switch f.Kind {
	case sign.TooLarge:
		if isS3 {
			return Errorf("EntityTooLarge", "%s", f.Text)
		}
		return Errorf("RequestEntityTooLarge"+suffix, "%s", f.Text).With(http.StatusRequestEntityTooLarge)
	case sign.Cut:
		if isS3 {
			return Errorf("IncompleteBody", "%s", f.Text)
		}
		return Errorf("IncompleteBody", "%s", f.Text)
	case sign.Payload:
		if isS3 {
			return Errorf("XAmzContentSHA256Mismatch", "%s", f.Text)
		}
		return say(map[bool]string{true: "InvalidSignatureException", false: "SignatureDoesNotMatch"}[suffix != ""])
	}
	if isS3 {
		return s3SignError(c, f)
	}
	switch f.Kind {
	case sign.Missing:
		return say("MissingAuthenticationToken" + suffix)
	case sign.Incomplete:
		return say("IncompleteSignature" + suffix)
	case sign.Skewed, sign.Expired:
		if suffix == "" {
			return say("RequestExpired")
		}
		return Errorf("InvalidSignatureException", "Signature expired: %s", f.Text).With(status)
	}
	if suffix != "" {
		return say("InvalidSignatureException")
	}
	return say("SignatureDoesNotMatch")
}

func s3SignError(c *Call, f *sign.Fault) *Error {
	code, status := "SignatureDoesNotMatch", http.StatusForbidden
	switch f.Kind {
	case sign.Missing:
		return Errorf("AccessDenied", "Access Denied").With(status)
	case sign.Unsigned:
		text, names, _ := strings.Cut(f.Text, ": ")
		e := Errorf("AccessDenied", "%s", text).With(status)
		e.Fields = map[string]any{"HeadersNotSigned": names}
		return e
	case sign.Expired:
		code = "AccessDenied"
	case sign.Skewed:
		code = "RequestTimeTooSkewed"
	case sign.Incomplete:
		code, status = "AuthorizationHeaderMalformed", http.StatusBadRequest
		if c.Request.Header.Get("Authorization") == "" && (c.Query.Has("X-Amz-Algorithm") || c.Query.Has("X-Amz-Signature")) {
			code = "AuthorizationQueryParametersError"
		}
	}
	return Errorf(code, "%s", f.Text).With(status)
}

// keyError is what a client is told whose key is not known, or whose token has ended.
func keyError(c *Call, err error) *Error {
	status := http.StatusForbidden
	if c.Protocol == shape.JSON {
		status = http.StatusBadRequest
	}
	if errors.Is(err, ErrExpiredToken) {
		code := map[bool]string{true: "ExpiredTokenException", false: "ExpiredToken"}[c.Protocol == shape.JSON || c.Protocol == shape.RESTJSON]
		return Errorf(code, "The security token included in the request is expired").With(status)
	}
	const text = "The security token included in the request is invalid."
	switch {
	case c.Service != nil && c.Service.Name == "s3":
		e := Errorf("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.").With(http.StatusForbidden)
		if claim, _ := sign.Parse(c.Request); claim != nil {
			e.Fields = map[string]any{"AWSAccessKeyId": claim.AccessKey}
		}
		return e
	case c.Protocol == shape.JSON || c.Protocol == shape.RESTJSON:
		return Errorf("UnrecognizedClientException", "%s", text).With(status)
	}
	return Errorf("InvalidClientTokenId", "%s", text).With(status)
}

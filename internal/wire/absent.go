package wire

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/ebb-run/ebb/internal/wire/shape"
)

// called is how people know services whose names on the wire are others.
var called = map[string]string{ // never written
	"appconfigdata": "AppConfig", "aoss": "OpenSearch Serverless", "cognito-idp": "Cognito user pools", "cognito-identity": "Cognito identity pools", "email": "SES", "es": "OpenSearch",
	"execute-api": "API Gateway", "iotdata": "IoT data plane", "iotdevicegateway": "IoT data plane", "mobiletargeting": "Pinpoint", "monitoring": "CloudWatch", "runtime.sagemaker": "SageMaker",
	"ses": "SES", "states": "Step Functions", "tagging": "resource groups tagging",
}

// serviceID is how people know a service that is here.
func serviceID(t *shape.Table) string {
	if t.Metadata.ServiceID == "CloudWatch Events" {
		return "EventBridge"
	}
	return t.Metadata.ServiceID
}

// absent are what a service that is not here writes its errors like, where its requests do not show it.
var absent = map[string]shape.Protocol{ // never written
	"cloudfront": shape.RESTXML, "route53": shape.RESTXML, "s3-control": shape.RESTXML, "s3express": shape.RESTXML,
}

// serviceName is the name on the wire of a service that is not here.
func serviceName(c *Call) string {
	if onAWS(c.Request.Host) {
		return hostService(c.Request.Host)
	}
	if c.Claim != nil {
		return c.Claim.Service
	}
	return ""
}

// isCBOR says whether a request is in a form that none of the services here has.
func isCBOR(r *http.Request) bool { return r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor" }

func (h *Handler) noService(ctx context.Context, c *Call) error {
	name := serviceName(c)
	operation := c.Operation
	if _, last, ok := strings.Cut(c.Path, "/operation/"); ok && isCBOR(c.Request) {
		operation = last
	}
	if operation == "" {
		operation = c.Request.Method + " " + c.Path
	}
	if other := called[name]; other != "" {
		name = other + " (" + name + ")"
	}
	text := fmt.Sprintf("ebb does not have the service %s: %s was refused", clip(name), clip(operation))
	h.refused(ctx, c, text)
	switch {
	case c.Protocol == shape.Query:
		return Errorf("InvalidAction", "%s", text)
	case c.Protocol == shape.RESTJSON && !isCBOR(c.Request):
		return Errorf("UnknownOperationException", "%s", text).With(http.StatusNotFound)
	}
	return Errorf("UnknownOperationException", "%s", text)
}

// renderAbsent writes an error of a service that is not here, where its clients read another form than those of services that are; else nil.
func renderAbsent(c *Call, e *Error) *shape.Answer {
	a := &shape.Answer{Status: e.status(), Header: http.Header{}}
	name := serviceName(c)
	switch {
	case isCBOR(c.Request):
		a.Header.Set("Content-Type", "application/cbor")
		a.Header.Set("Smithy-Protocol", "rpc-v2-cbor")
		a.Body = appendCBOR(append([]byte{}, 0xa2), "__type", e.Code, "message", e.Message)
	case name == "ec2" && c.Protocol == shape.Query:
		a.Header.Set("Content-Type", "text/xml;charset=UTF-8")
		a.Body = []byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Response><Errors><Error><Code>" + shape.XMLText(e.Code) + "</Code><Message>" + shape.XMLText(e.Message) +
			"</Message></Error></Errors><RequestID>" + c.RequestID + "</RequestID></Response>")
	case absent[name] == shape.RESTXML && c.Protocol == shape.RESTJSON:
		a.Header.Set("Content-Type", "text/xml")
		a.Body = queryError(c, e)
	default:
		return nil
	}
	return a
}

// appendCBOR appends texts: RFC 8949, section 3.1, major type 3.
func appendCBOR(b []byte, texts ...string) []byte {
	for _, s := range texts {
		switch n := len(s); {
		case n < 24:
			b = append(b, 0x60|byte(n))
		case n < 1<<8:
			b = append(b, 0x78, byte(n))
		default:
			s = s[:min(n, 1<<16-1)]
			b = append(b, 0x79, byte(len(s)>>8), byte(len(s)))
		}
		b = append(b, s...)
	}
	return b
}

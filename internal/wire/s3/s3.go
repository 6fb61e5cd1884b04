// Package s3 answers Amazon's Simple Storage Service over [store.Objects].
//
// Main type: none; [New] gives the wire.Service. Below it [Bucket] reads what a bucket's documents say for those who act on them: the
// notifications that events go out by, and what a lifecycle has expire.
//
// Guarantees:
//
//  1. Bodies pass through in constant memory, and nothing of one counts before its length, signature and checksums have held.
//  2. A request is refused with the code, the status and the fields that S3 has for it ("Error responses", S3 API).
//  3. Without a signature only what a bucket's policy or an ACL makes public is given, preflights are answered, and forms are taken whose
//     policy is signed.
//
// Operations that ebb has no meaning for are refused by name: replication, inventories, analytics, torrents, encryption with the client's key.
// It does not keep data, and does not say what a Function may do.
package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"net/http"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// Options say what the service needs.
type Options struct {
	Objects store.Objects
	// Authenticate gives the secret of an access key, for forms, which are signed in their own way. nil: no forms.
	Authenticate func(ctx context.Context, accessKey, token string) (secret string, who wire.Caller, err error)
	// Changed is told when a bucket's notifications or lifecycle may be others; may be nil.
	Changed func(ctx context.Context, id store.BucketID)
}

type service struct{ Options }

// operation is one with the bucket and key of its address.
type operation func(ctx context.Context, c *wire.Call) (*shape.Answer, error)

// New returns the service.
func New(o Options) *wire.Service {
	s := &service{o}
	all := map[string]wire.Operation{}
	for name, f := range map[string]operation{
		"ListBuckets": s.listBuckets, "CreateBucket": s.createBucket, "DeleteBucket": s.deleteBucket, "HeadBucket": s.headBucket,
		"GetBucketLocation": s.getLocation, "GetBucketVersioning": s.getVersioning, "PutBucketVersioning": s.putVersioning,
		"GetBucketAcl": s.getBucketACL, "PutBucketAcl": s.putBucketACL, "GetBucketPolicyStatus": s.getPolicyStatus,
		"GetBucketTagging": s.getBucketTagging, "PutBucketTagging": s.putBucketTagging, "DeleteBucketTagging": s.deleteBucketTagging,
		"GetObject": s.getObject, "HeadObject": s.headObject, "CopyObject": s.copyObject, "DeleteObject": s.deleteObject, "DeleteObjects": s.deleteObjects,
		"GetObjectAttributes": s.getAttributes, "ListObjects": s.listObjects, "ListObjectsV2": s.listObjectsV2, "ListObjectVersions": s.listVersions,
		"GetObjectTagging": s.getTagging, "PutObjectTagging": s.putTagging, "DeleteObjectTagging": s.deleteTagging,
		"GetObjectAcl": s.getObjectACL, "PutObjectAcl": s.putObjectACL,
		"GetObjectLegalHold": s.getLegalHold, "PutObjectLegalHold": s.putLegalHold, "GetObjectRetention": s.getRetention, "PutObjectRetention": s.putRetention,
		"CreateMultipartUpload": s.createUpload, "UploadPartCopy": s.copyPart, "ListParts": s.listParts, "ListMultipartUploads": s.listUploads,
		"CompleteMultipartUpload": s.completeUpload, "AbortMultipartUpload": s.abortUpload,
		opPreflight: s.preflight, opWebsite: s.website,
	} {
		all[name] = wire.Raw(false, s.wrap(f))
	}
	for name, f := range map[string]operation{"PutObject": s.putObject, "UploadPart": s.putPart, opForm: s.postForm} {
		all[name] = wire.Raw(true, s.wrap(f))
	}
	for _, d := range documents {
		for name, f := range s.documentOperations(d) {
			all[name] = wire.Raw(false, s.wrap(f))
		}
	}
	return &wire.Service{
		Name: "s3", Operations: all, Hosts: []string{"s3-website", "s3-accelerate"}, Signing: []string{"s3express"},
		MaxBody: 4 << 20, Prepare: prepare, Find: find, Anonymous: anonymous, Translate: translate, Render: render, Subjects: subjects,
	}
}

// wrap checks the address before an operation, and says to browsers what they may read.
func (s *service) wrap(f operation) operation {
	return func(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
		if err := checkAddress(c); err != nil {
			return nil, err
		}
		hoist(c)
		if c.Request.Header.Get("Origin") != "" && c.Operation != opPreflight {
			s.allowOrigin(ctx, c)
		}
		if c.Claim == nil {
			if err := s.public(ctx, c); err != nil {
				return nil, err
			}
		}
		return f(ctx, c)
	}
}

func bucketOf(c *wire.Call) store.BucketID {
	return store.BucketID{Tenant: c.Caller.Tenant, Name: c.Labels["Bucket"]}
}

func keyOf(c *wire.Call) store.ObjectKey {
	return store.ObjectKey{Bucket: bucketOf(c), Key: c.Labels["Key"]}
}

// header is a request's, without the blanks around it.
func header(c *wire.Call, name string) string { return strings.TrimSpace(c.Request.Header.Get(name)) }

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// document is an answer in XML.
func document(v any) (*shape.Answer, error) {
	data, err := xml.Marshal(v)
	if err != nil {
		return nil, err
	}
	h := http.Header{"Content-Type": {"application/xml"}}
	return &shape.Answer{Status: http.StatusOK, Header: h, Body: append([]byte(xml.Header), data...)}, nil
}

// done is an answer without a body.
func done(status int) *shape.Answer { return &shape.Answer{Status: status, Header: http.Header{}} }

// root is the name of an answer's outermost element, with S3's namespace.
type root struct {
	Namespace string `xml:"xmlns,attr"`
}

var ns = root{namespace}

// readXML reads a request's document.
func readXML(c *wire.Call, into any) error {
	if err := xml.Unmarshal(c.Body, into); err != nil {
		return malformedXML()
	}
	return nil
}

func malformedXML() *wire.Error {
	return wire.Errorf("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}

func invalidArgument(name, value, format string, args ...any) *wire.Error {
	e := wire.Errorf("InvalidArgument", format, args...)
	e.Fields = map[string]any{"ArgumentName": name, "ArgumentValue": value}
	return e
}

func noSuchBucket(name string) *wire.Error {
	e := wire.Errorf("NoSuchBucket", "The specified bucket does not exist").With(http.StatusNotFound)
	e.Fields = map[string]any{"BucketName": name}
	return e
}

func noSuchKey(key string) *wire.Error {
	e := wire.Errorf("NoSuchKey", "The specified key does not exist.").With(http.StatusNotFound)
	e.Fields = map[string]any{"Key": key}
	return e
}

func preconditionFailed(condition string) *wire.Error {
	e := wire.Errorf("PreconditionFailed", "At least one of the pre-conditions you specified did not hold").With(http.StatusPreconditionFailed)
	e.Fields = map[string]any{"Condition": condition}
	return e
}

func accessDenied() *wire.Error {
	return wire.Errorf("AccessDenied", "Access Denied").With(http.StatusForbidden)
}

// translate says what a client is told of the store's errors.
func translate(c *wire.Call, err error) *wire.Error {
	switch {
	case errors.Is(err, store.ErrNoBucket):
		return noSuchBucket(c.Labels["Bucket"])
	case errors.Is(err, store.ErrNoObject):
		return noSuchKey(c.Labels["Key"])
	case errors.Is(err, store.ErrNoVersion):
		e := wire.Errorf("NoSuchVersion", "The specified version does not exist.").With(http.StatusNotFound)
		e.Fields = map[string]any{"Key": c.Labels["Key"], "VersionId": c.Query.Get("versionId")}
		return e
	case errors.Is(err, store.ErrNoUpload):
		e := wire.Errorf("NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.").With(http.StatusNotFound)
		e.Fields = map[string]any{"UploadId": c.Query.Get("uploadId")}
		return e
	case errors.Is(err, store.ErrPrecondition):
		if c.Request.Header.Get("If-None-Match") != "" {
			return preconditionFailed("If-None-Match")
		}
		return preconditionFailed("If-Match")
	case errors.Is(err, store.ErrBucketNotEmpty):
		e := wire.Errorf("BucketNotEmpty", "The bucket you tried to delete is not empty").With(http.StatusConflict)
		e.Fields = map[string]any{"BucketName": c.Labels["Bucket"]}
		return e
	case errors.Is(err, store.ErrPartMissing):
		return wire.Errorf("InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
	case errors.Is(err, store.ErrPartOrder):
		return wire.Errorf("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.")
	case errors.Is(err, store.ErrPartTooSmall):
		return wire.Errorf("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
	case errors.Is(err, store.ErrObjectTooLarge):
		return wire.Errorf("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
	case errors.Is(err, store.ErrLocked):
		return wire.Errorf("AccessDenied", "Access Denied because object protected by object lock.").With(http.StatusForbidden)
	case errors.Is(err, store.ErrDiskFull):
		return wire.Errorf("InternalError", "The disk that objects are kept on is full.").With(http.StatusInsufficientStorage)
	case errs.CodeOf(err) == errs.Unsupported:
		return wire.Errorf("NotImplemented", "%s", err).With(http.StatusNotImplemented)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return wire.Errorf("RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period.")
	}
	return cutBody(err)
}

// cutBody tells a body that ended early; nil for another error.
func cutBody(err error) *wire.Error {
	var f *sign.Fault
	if isCut(err) && !errors.As(err, &f) {
		return wire.Errorf("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
	}
	return nil
}

// errorText escapes as S3's errors do: quotes stay.
var errorText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// render writes an error with the resource that it is about.
func render(c *wire.Call, e *wire.Error) *shape.Answer {
	status := e.Status
	if status == 0 {
		status = http.StatusBadRequest
	}
	if status == http.StatusNotModified {
		return done(status)
	}
	if c.Operation == opWebsite {
		return websiteError(c, e, status)
	}
	var b strings.Builder
	b.WriteString(xml.Header + "<Error><Code>" + shape.XMLText(e.Code) + "</Code><Message>" + errorText.Replace(shape.Readable(e.Message)) + "</Message>")
	for _, k := range sortedKeys(e.Fields) {
		if v, ok := e.Fields[k].(string); ok {
			b.WriteString("<" + k + ">" + shape.XMLText(v) + "</" + k + ">")
		}
	}
	b.WriteString("<Resource>" + shape.XMLText(c.Request.URL.Path) + "</Resource><RequestId>" + c.RequestID + "</RequestId><HostId>" + c.RequestID + "</HostId></Error>")
	return &shape.Answer{Status: status, Header: http.Header{"Content-Type": {"application/xml"}}, Body: []byte(b.String())}
}

package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// documentKind is a document of a bucket that is given back as it was put.
type documentKind struct {
	name, root       string // by which it is kept; its outermost element, "" for JSON
	get, put, delete string // the operations; "" for none
	missing, text    string // the error where there is none; "" where an empty one is given
	empty            string // what is within that
	check            func(data []byte) error
	status           int // of a put
}

var documents = []documentKind{
	{name: "cors", root: "CORSConfiguration", get: "GetBucketCors", put: "PutBucketCors", delete: "DeleteBucketCors", missing: "NoSuchCORSConfiguration", text: "The CORS configuration does not exist", check: checkCORS},
	{name: "lifecycle", root: "LifecycleConfiguration", get: "GetBucketLifecycleConfiguration", put: "PutBucketLifecycleConfiguration", delete: "DeleteBucketLifecycle", missing: "NoSuchLifecycleConfiguration", text: "The lifecycle configuration does not exist", check: checkLifecycle},
	{name: "policy", get: "GetBucketPolicy", put: "PutBucketPolicy", delete: "DeleteBucketPolicy", missing: "NoSuchBucketPolicy", text: "The bucket policy does not exist", check: checkPolicy, status: http.StatusNoContent},
	{name: "website", root: "WebsiteConfiguration", get: "GetBucketWebsite", put: "PutBucketWebsite", delete: "DeleteBucketWebsite", missing: "NoSuchWebsiteConfiguration", text: "The specified bucket does not have a website configuration", check: checkWebsite},
	{name: "notification", root: "NotificationConfiguration", get: "GetBucketNotificationConfiguration", put: "PutBucketNotificationConfiguration", check: checkNotification},
	{name: "encryption", root: "ServerSideEncryptionConfiguration", get: "GetBucketEncryption", put: "PutBucketEncryption", delete: "DeleteBucketEncryption", missing: "ServerSideEncryptionConfigurationNotFoundError", text: "The server side encryption configuration was not found"},
	{name: "publicaccess", root: "PublicAccessBlockConfiguration", get: "GetPublicAccessBlock", put: "PutPublicAccessBlock", delete: "DeletePublicAccessBlock", missing: "NoSuchPublicAccessBlockConfiguration", text: "The public access block configuration was not found"},
	{name: "ownership", root: "OwnershipControls", get: "GetBucketOwnershipControls", put: "PutBucketOwnershipControls", delete: "DeleteBucketOwnershipControls", missing: "OwnershipControlsNotFoundError", text: "The bucket ownership controls were not found", check: checkOwnership},
	{name: "object-lock", root: "ObjectLockConfiguration", get: "GetObjectLockConfiguration", put: "PutObjectLockConfiguration", missing: "ObjectLockConfigurationNotFoundError", text: "Object Lock configuration does not exist for this bucket", check: checkObjectLock},
	{name: "logging", root: "BucketLoggingStatus", get: "GetBucketLogging", put: "PutBucketLogging"},
	{name: "accelerate", root: "AccelerateConfiguration", get: "GetBucketAccelerateConfiguration", put: "PutBucketAccelerateConfiguration"},
	{name: "payment", root: "RequestPaymentConfiguration", get: "GetBucketRequestPayment", put: "PutBucketRequestPayment", empty: "<Payer>BucketOwner</Payer>"},
	{name: "replication", get: "GetBucketReplication", delete: "DeleteBucketReplication", missing: "ReplicationConfigurationNotFoundError", text: "The replication configuration was not found"},
}

func checkOwnership(data []byte) error {
	var in struct {
		Rules []struct{ ObjectOwnership string } `xml:"Rule"`
	}
	if err := xml.Unmarshal(data, &in); err != nil || len(in.Rules) != 1 || !slices.Contains([]string{"BucketOwnerPreferred", "ObjectWriter", "BucketOwnerEnforced"}, in.Rules[0].ObjectOwnership) {
		return malformedXML()
	}
	return nil
}

func (s *service) documentOperations(d documentKind) map[string]operation {
	all := map[string]operation{d.get: func(ctx context.Context, c *wire.Call) (*shape.Answer, error) { return s.getDocument(ctx, c, d) }}
	if d.put != "" {
		all[d.put] = func(ctx context.Context, c *wire.Call) (*shape.Answer, error) { return s.putDocument(ctx, c, d) }
	}
	if d.delete != "" {
		all[d.delete] = func(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
			if err := s.setDocument(ctx, c, d.name, nil); err != nil {
				return nil, err
			}
			return done(http.StatusNoContent), nil
		}
	}
	return all
}

func (s *service) getDocument(ctx context.Context, c *wire.Call, d documentKind) (*shape.Answer, error) {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	a := done(http.StatusOK)
	a.Header.Set("Content-Type", "application/xml")
	data := b.Documents[d.name]
	switch {
	case data != nil && d.root == "":
		a.Header.Set("Content-Type", "application/json")
		a.Body = data
	case data != nil:
		a.Body = append([]byte(xml.Header), data...)
	case d.missing != "":
		e := wire.Errorf(d.missing, "%s", d.text).With(http.StatusNotFound)
		e.Fields = map[string]any{"BucketName": b.Name}
		return nil, e
	default:
		a.Body = []byte(xml.Header + "<" + d.root + ` xmlns="` + namespace + `">` + d.empty + "</" + d.root + ">")
	}
	return a, nil
}

func (s *service) putDocument(ctx context.Context, c *wire.Call, d documentKind) (*shape.Answer, error) {
	data := c.Body
	if err := verifyBody(c); err != nil {
		return nil, err
	}
	if d.root != "" {
		if data = outermost(data, d.root); data == nil {
			return nil, malformedXML()
		}
	} else if !json.Valid(data) {
		return nil, wire.Errorf("MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'")
	}
	if d.check != nil {
		if err := d.check(data); err != nil {
			return nil, err
		}
	}
	if err := s.setDocument(ctx, c, d.name, data); err != nil {
		return nil, err
	}
	if d.status != 0 {
		return done(d.status), nil
	}
	return done(http.StatusOK), nil
}

func (s *service) setDocument(ctx context.Context, c *wire.Call, name string, data []byte) error {
	err := s.Objects.SetBucket(ctx, bucketOf(c), func(b *store.Bucket) error { return setDocument(b, name, data) })
	if err == nil {
		s.changed(ctx, c)
	}
	return err
}

// setDocument sets a document of a bucket, or deletes it, and with it what follows from it.
func setDocument(b *store.Bucket, name string, data []byte) error {
	if b.Documents == nil {
		b.Documents = map[string][]byte{}
	}
	if name == "object-lock" && b.Versioning != store.Versioned {
		return wire.Errorf("InvalidBucketState", "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration").With(http.StatusConflict)
	}
	if data == nil {
		delete(b.Documents, name)
	} else {
		b.Documents[name] = data
	}
	if name == "notification" { // others may want the changes too: only who knows of them stops keeping them, see [Options.Changed]
		n, err := readNotification(data)
		b.Notify = b.Notify || err == nil && !n.empty()
	}
	return nil
}

// outermost returns a document without its head; nil when it is not whole or begins otherwise.
func outermost(data []byte, name string) []byte {
	d := xml.NewDecoder(bytes.NewReader(data))
	depth, start, end := 0, int64(-1), int64(-1)
	for {
		at := d.InputOffset()
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil
		}
		switch t := t.(type) {
		case xml.StartElement:
			if depth == 0 && (start >= 0 || t.Name.Local != name) {
				return nil
			}
			if depth == 0 {
				start = at
			}
			depth++
		case xml.EndElement:
			if depth--; depth == 0 {
				end = d.InputOffset()
			}
		}
	}
	if start < 0 || end < 0 {
		return nil
	}
	return bytes.Clone(data[start:end])
}

package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// copySource reads the address of the object that a request copies.
func copySource(text string) (bucket, key, query string) {
	path, query, _ := strings.Cut(text, "?")
	plain, err := url.PathUnescape(path)
	if err != nil {
		plain = path
	}
	if strings.HasPrefix(plain, "arn:") { // of an access point or with a region, ending in :::bucket/key
		plain = plain[strings.LastIndex(plain, ":")+1:]
	}
	bucket, key, _ = strings.Cut(strings.TrimPrefix(plain, "/"), "/")
	return bucket, key, query
}

// sourceOf is the object that a request copies.
func sourceOf(c *wire.Call) (*store.ObjectSource, error) {
	text := header(c, "X-Amz-Copy-Source")
	bucket, key, query := copySource(text)
	if bucket == "" || key == "" {
		return nil, invalidArgument("x-amz-copy-source", text, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	version := ""
	if rest, ok := strings.CutPrefix(query, "versionId="); ok {
		version = rest
	}
	return &store.ObjectSource{ObjectKey: store.ObjectKey{Bucket: store.BucketID{Tenant: c.Caller.Tenant, Name: bucket}, Key: key}, Version: version, Length: -1}, nil
}

// missingSource names the source, where it is what is missing.
func (s *service) missingSource(ctx context.Context, err error, from *store.ObjectSource) error {
	switch {
	case errors.Is(err, store.ErrNoBucket):
		if _, missing := s.Objects.Bucket(ctx, from.Bucket); missing != nil {
			return noSuchBucket(from.Bucket.Name)
		}
	case errors.Is(err, store.ErrNoObject):
		if info, missing := s.Objects.Head(ctx, from.ObjectKey, from.Version); missing == nil && info.Marker && from.Version != "" {
			return wire.Errorf("InvalidRequest", "The source of a copy request may not specifically refer to a delete marker by version id.")
		} else if missing != nil || info.Marker {
			return noSuchKey(from.Key)
		}
	}
	return err
}

func (s *service) copyObject(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	from, err := sourceOf(c)
	if err != nil {
		return nil, err
	}
	given, err := metaOf(c)
	if err != nil {
		return nil, err
	}
	if err := s.lock(ctx, c, &given); err != nil {
		return nil, err
	}
	replace := header(c, "X-Amz-Metadata-Directive")
	if replace != "" && replace != "COPY" && replace != "REPLACE" {
		return nil, invalidArgument("x-amz-metadata-directive", replace, "Unknown metadata directive.")
	}
	cond, err := conditionOf(c)
	if err != nil {
		return nil, err
	}
	algorithm, err := namedAlgorithm(c)
	if err != nil {
		return nil, err
	}
	source, err := s.Objects.Head(ctx, from.ObjectKey, from.Version)
	if err == nil && source.Marker {
		err = store.ErrNoObject
	}
	if err != nil {
		return nil, s.missingSource(ctx, err, from)
	}
	if algorithm == "" {
		algorithm = claim{algorithm: source.Checksum.Algorithm}.kept()
	}
	if from.ObjectKey == keyOf(c) && from.Version == "" && replace != "REPLACE" && !changes(c) {
		return nil, wire.Errorf("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	if source.Size > store.MaxPart {
		return nil, wire.Errorf("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(store.MaxPart))
	}
	from.Version = source.Version // what was looked at is what is copied
	from.Check = func(info store.ObjectInfo) error { return fresh(c, info, "X-Amz-Copy-Source-") }
	info, err := s.Objects.Put(ctx, keyOf(c), store.PutObject{From: from, ObjectMeta: copied(c, source.ObjectMeta, given, replace), Algorithm: algorithm, Condition: cond, Event: s.eventOf(c, "ObjectCreated:Copy")})
	if err != nil {
		return nil, s.missingSource(ctx, err, from)
	}
	a, err := document(struct {
		XMLName xml.Name `xml:"CopyObjectResult"`
		root
		LastModified, ETag string
		checksumFields
		ChecksumType string `xml:",omitempty"`
	}{root: ns, LastModified: stamp(info.Modified), ETag: `"` + info.ETag + `"`, checksumFields: fieldsOf(info.Checksum.Algorithm, info.Checksum.Value), ChecksumType: typeOf(info.Checksum)})
	if err != nil {
		return nil, err
	}
	if source.Version != store.NullVersion {
		a.Header.Set("X-Amz-Copy-Source-Version-Id", source.Version)
	}
	answerPut(a.Header, info)
	a.Header.Del("ETag")
	delete(a.Header, "ETag")
	return a, nil
}

// changes says whether a copy onto itself would change something.
func changes(c *wire.Call) bool {
	for _, name := range []string{"X-Amz-Storage-Class", "X-Amz-Website-Redirect-Location", "X-Amz-Server-Side-Encryption", "X-Amz-Checksum-Algorithm"} {
		if header(c, name) != "" {
			return true
		}
	}
	return header(c, "X-Amz-Tagging-Directive") == "REPLACE"
}

// copied is what is said of a copy.
func copied(c *wire.Call, source, given store.ObjectMeta, replace string) store.ObjectMeta {
	m := given
	if replace != "REPLACE" {
		m.User, m.Headers = source.User, maps.Clone(source.Headers)
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		delete(m.Headers, aclHeader)                         // never copied, as
		delete(m.Headers, "x-amz-storage-class")             // the class
		delete(m.Headers, "x-amz-website-redirect-location") // and where it leads
		for k, v := range given.Headers {
			if strings.HasPrefix(k, "x-amz-") {
				m.Headers[k] = v
			}
		}
	}
	if header(c, "X-Amz-Tagging-Directive") != "REPLACE" {
		m.Tags = source.Tags
	}
	return m
}

func (s *service) copyPart(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	from, err := sourceOf(c)
	if err != nil {
		return nil, err
	}
	number, err := partNumber(c)
	if err != nil {
		return nil, err
	}
	source, err := s.Objects.Head(ctx, from.ObjectKey, from.Version)
	if err == nil && source.Marker {
		err = store.ErrNoObject
	}
	if err != nil {
		return nil, s.missingSource(ctx, err, from)
	}
	from.Version = source.Version
	if text := header(c, "X-Amz-Copy-Source-Range"); text != "" {
		first, last, dash := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
		begin, err1 := strconv.ParseInt(first, 10, 64)
		end, err2 := strconv.ParseInt(last, 10, 64)
		if !strings.HasPrefix(text, "bytes=") || !dash || err1 != nil || err2 != nil || begin < 0 || end < begin {
			return nil, invalidArgument("x-amz-copy-source-range", text, "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
		}
		if end >= source.Size {
			return nil, invalidArgument("x-amz-copy-source-range", text, "Range specified is not valid for source object of size: %d", source.Size)
		}
		from.Offset, from.Length = begin, end-begin+1
	}
	from.Check = func(info store.ObjectInfo) error { return fresh(c, info, "X-Amz-Copy-Source-") }
	u, err := s.Objects.Upload(ctx, keyOf(c), c.Query.Get("uploadId"))
	if err != nil {
		return nil, err
	}
	part, err := s.Objects.PutPart(ctx, keyOf(c), u.ID, number, store.PutPart{From: from})
	if err != nil {
		return nil, s.missingSource(ctx, err, from)
	}
	if source.Version != store.NullVersion {
		c.Header.Set("X-Amz-Copy-Source-Version-Id", source.Version)
	}
	return document(struct {
		XMLName xml.Name `xml:"CopyPartResult"`
		root
		LastModified, ETag string
		checksumFields
	}{root: ns, LastModified: stamp(part.Modified), ETag: `"` + part.ETag + `"`, checksumFields: fieldsOf(u.Algorithm, part.Checksum)})
}

func partNumber(c *wire.Call) (int, error) {
	text := c.Query.Get("partNumber")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > store.MaxParts {
		return 0, invalidArgument("partNumber", text, "Part number must be an integer between 1 and 10000, inclusive")
	}
	return n, nil
}

func (s *service) deleteObject(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	d, err := s.Objects.Delete(ctx, keyOf(c), s.deletion(c, c.Query.Get("versionId"), unquoted(header(c, "If-Match"))))
	switch {
	case errors.Is(err, store.ErrNoVersion):
	case err != nil:
		return nil, err
	}
	a := done(http.StatusNoContent)
	if d.Version != "" {
		a.Header.Set("X-Amz-Version-Id", d.Version)
	}
	if d.Marker {
		a.Header.Set("X-Amz-Delete-Marker", "true")
	}
	return a, nil
}

func (s *service) deletion(c *wire.Call, version, match string) store.DeleteObject {
	return store.DeleteObject{
		Version: version, Condition: store.ObjectCondition{IfMatch: match}, Bypass: strings.EqualFold(header(c, "X-Amz-Bypass-Governance-Retention"), "true"),
		Event: s.eventOf(c, "ObjectRemoved:Delete"), MarkerEvent: "ObjectRemoved:DeleteMarkerCreated",
	}
}

func (s *service) deleteObjects(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := verifyBody(c); err != nil {
		return nil, err
	}
	var in struct {
		Quiet   bool
		Objects []struct {
			Key       string
			VersionID string `xml:"VersionId"`
			ETag      string
		} `xml:"Object"`
	}
	if err := readXML(c, &in); err != nil {
		return nil, err
	}
	if len(in.Objects) == 0 || len(in.Objects) > 1000 {
		return nil, malformedXML()
	}
	if _, err := s.Objects.Bucket(ctx, bucketOf(c)); err != nil {
		return nil, err
	}
	type deleted struct {
		Key                   string
		VersionID             string `xml:"VersionId,omitempty"`
		DeleteMarker          bool   `xml:",omitempty"`
		DeleteMarkerVersionID string `xml:"DeleteMarkerVersionId,omitempty"`
	}
	type failed struct {
		Key           string
		VersionID     string `xml:"VersionId,omitempty"`
		Code, Message string
	}
	out := struct {
		XMLName xml.Name `xml:"DeleteResult"`
		root
		Deleted []deleted
		Error   []failed
	}{root: ns}
	type outcome struct {
		d   store.Deleted
		err error
	}
	results := make([]outcome, len(in.Objects))
	forEach(len(in.Objects), func(i int) {
		o := in.Objects[i]
		key := store.ObjectKey{Bucket: bucketOf(c), Key: o.Key}
		results[i].d, results[i].err = s.Objects.Delete(ctx, key, s.deletion(c, o.VersionID, unquoted(o.ETag)))
	})
	for i, o := range in.Objects {
		d, err := results[i].d, results[i].err
		if err != nil && !errors.Is(err, store.ErrNoVersion) {
			e := translate(c, err)
			if e == nil {
				e = wire.Errorf("InternalError", "We encountered an internal error. Please try again.")
			}
			out.Error = append(out.Error, failed{o.Key, o.VersionID, e.Code, e.Message})
			continue
		}
		if in.Quiet {
			continue
		}
		one := deleted{Key: o.Key, VersionID: o.VersionID, DeleteMarker: d.Marker}
		if d.Marker {
			one.DeleteMarkerVersionID = d.Version
		}
		out.Deleted = append(out.Deleted, one)
	}
	return document(out)
}

package s3

import (
	"context"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/ebb-run/ebb/internal/checksum"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// forEach runs f for many at once, so that they share the store's transactions, and waits.
func forEach(n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, 32) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func (s *service) createUpload(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	meta, err := metaOf(c)
	if err != nil {
		return nil, err
	}
	u := store.CreateUpload{ObjectMeta: meta}
	if u.Algorithm, err = namedAlgorithm(c); err != nil {
		return nil, err
	}
	switch kind := strings.ToUpper(header(c, "X-Amz-Checksum-Type")); {
	case kind == "" && u.Algorithm == "":
		u.Algorithm, u.Implied = implied, true
	case kind == "":
		u.Composite = u.Algorithm != store.CRC64NVME
	case u.Algorithm == "":
		return nil, wire.Errorf("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
	case kind == "COMPOSITE" && u.Algorithm != store.CRC64NVME:
		u.Composite = true
	case kind == "FULL_OBJECT" && u.Algorithm.Whole():
	default:
		return nil, wire.Errorf("InvalidRequest", "The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(string(u.Algorithm)))
	}
	if err := s.lock(ctx, c, &u.ObjectMeta); err != nil {
		return nil, err
	}
	up, err := s.Objects.CreateUpload(ctx, keyOf(c), u)
	if err != nil {
		return nil, err
	}
	if !u.Implied {
		c.Header.Set("X-Amz-Checksum-Algorithm", string(u.Algorithm))
		c.Header.Set("X-Amz-Checksum-Type", checksumType(store.Checksum{Composite: u.Composite}))
	}
	return document(struct {
		XMLName xml.Name `xml:"InitiateMultipartUploadResult"`
		root
		Bucket, Key string
		UploadID    string `xml:"UploadId"`
	}{root: ns, Bucket: c.Labels["Bucket"], Key: c.Labels["Key"], UploadID: up.ID})
}

func (s *service) putPart(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	number, err := partNumber(c)
	if err != nil {
		return nil, err
	}
	cl, err := claimed(c)
	if err != nil {
		return nil, err
	}
	if c.Length < 0 {
		return nil, wire.Errorf("MissingContentLength", "You must provide the Content-Length HTTP header.").With(http.StatusLengthRequired)
	}
	if c.Length > store.MaxPart {
		return nil, store.ErrObjectTooLarge
	}
	u, err := s.Objects.Upload(ctx, keyOf(c), c.Query.Get("uploadId"))
	if err != nil {
		return nil, err
	}
	if asked, _ := askedOf(u); asked != "" && cl.algorithm != "" && asked != cl.algorithm {
		return nil, wire.Errorf("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", strings.ToLower(string(u.Algorithm)), strings.ToLower(string(cl.algorithm)))
	}
	var counted string
	part, err := s.Objects.PutPart(ctx, keyOf(c), u.ID, number, store.PutPart{Body: c.Stream, Algorithm: cl.algorithm, Verify: func(sums store.ObjectSums) error {
		counted = sums.Checksum
		return cl.verify(c, sums)
	}})
	if err != nil {
		return nil, err
	}
	a := done(http.StatusOK)
	a.Header["ETag"] = []string{`"` + part.ETag + `"`}
	if cl.algorithm == "" {
		cl.algorithm = u.Algorithm
	}
	if cl.algorithm != "" {
		a.Header.Set(checksumHeader(cl.algorithm), counted)
	}
	return a, nil
}

// askedOf gives the checksum that was asked for when an upload began, and its type; "" for none.
func askedOf(u store.Upload) (a store.Algorithm, kind string) {
	if u.Algorithm == "" || u.Implied {
		return "", ""
	}
	return u.Algorithm, checksumType(store.Checksum{Composite: u.Composite})
}

// completePart is one that a request names.
type completePart struct {
	PartNumber int
	ETag       string
	checksumFields
}

func (s *service) completeUpload(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	var in struct {
		Parts []completePart `xml:"Part"`
	}
	if err := readXML(c, &in); err != nil {
		return nil, err
	}
	if len(in.Parts) == 0 || len(in.Parts) > store.MaxParts {
		return nil, malformedXML()
	}
	u, err := s.Objects.Upload(ctx, keyOf(c), c.Query.Get("uploadId"))
	if err != nil {
		return nil, err
	}
	cond, err := conditionOf(c)
	if err != nil {
		return nil, err
	}
	if kind := strings.ToUpper(header(c, "X-Amz-Checksum-Type")); kind != "" {
		if asked, was := askedOf(u); asked != "" && kind != was {
			return nil, wire.Errorf("InvalidRequest", "The upload was created using the %s checksum mode. The complete request must use the same checksum mode.", was)
		}
	}
	done := store.CompleteUpload{Condition: cond, Event: s.eventOf(c, "ObjectCreated:CompleteMultipartUpload")}
	for i := range in.Parts {
		p := &in.Parts[i]
		if p.ETag == "" {
			return nil, malformedXML()
		}
		done.Parts = append(done.Parts, store.PartInfo{Number: p.PartNumber, ETag: unquoted(p.ETag), Checksum: *p.field(u.Algorithm)})
	}
	done.Verify = func(info store.ObjectInfo) error { return completes(c, info) }
	info, err := s.Objects.CompleteUpload(ctx, keyOf(c), u.ID, done)
	if err != nil {
		return nil, err
	}
	out := struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		root
		Location, Bucket, Key, ETag string
		checksumFields
		ChecksumType string `xml:",omitempty"`
	}{root: ns, Location: locationOf(c), Bucket: c.Labels["Bucket"], Key: info.Key, ETag: `"` + info.ETag + `"`, checksumFields: fieldsOf(info.Checksum.Algorithm, info.Checksum.Value)}
	if info.Checksum.Algorithm != "" {
		out.ChecksumType = checksumType(info.Checksum)
	}
	if info.Version != store.NullVersion {
		c.Header.Set("X-Amz-Version-Id", info.Version)
	}
	return document(out)
}

// completes holds what an upload makes to what the request says of it.
func completes(c *wire.Call, info store.ObjectInfo) error {
	if text := header(c, "X-Amz-Mp-Object-Size"); text != "" && text != strconv.FormatInt(info.Size, 10) {
		return wire.Errorf("InvalidRequest", "The provided 'x-amz-mp-object-size' header does not match what was computed.")
	}
	for _, a := range checksum.All() {
		value := header(c, checksumHeader(a))
		if value == "" {
			continue
		}
		if plain, _, _ := strings.Cut(info.Checksum.Value, "-"); a != info.Checksum.Algorithm || value != info.Checksum.Value && value != plain {
			return wire.Errorf("BadDigest", "The %s you specified did not match the calculated checksum.", a)
		}
	}
	return nil
}

func locationOf(c *wire.Call) string {
	scheme := "http"
	if c.Request.TLS != nil {
		scheme = "https"
	}
	path := (&url.URL{Path: "/" + c.Labels["Key"]}).EscapedPath()
	if bucket, _ := hostForm(c.Request.Host); bucket == "" {
		path = "/" + c.Labels["Bucket"] + path
	}
	return scheme + "://" + c.Request.Host + path
}

func (s *service) abortUpload(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := s.Objects.AbortUpload(ctx, keyOf(c), c.Query.Get("uploadId")); err != nil {
		return nil, err
	}
	return done(http.StatusNoContent), nil
}

func (s *service) listParts(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	l, err := listingOf(c, "max-parts")
	if err != nil {
		return nil, err
	}
	after := 0
	if text := c.Query.Get("part-number-marker"); text != "" {
		if after, err = strconv.Atoi(text); err != nil || after < 0 {
			return nil, invalidArgument("part-number-marker", text, "Provided part-number-marker not an integer or within integer range")
		}
	}
	u, err := s.Objects.Upload(ctx, keyOf(c), c.Query.Get("uploadId"))
	if err != nil {
		return nil, err
	}
	parts, more, err := s.Objects.Parts(ctx, keyOf(c), u.ID, after, l.most)
	if err != nil {
		return nil, err
	}
	type part struct {
		PartNumber         int
		LastModified, ETag string
		Size               int64
		checksumFields
	}
	out := struct {
		XMLName xml.Name `xml:"ListPartsResult"`
		root
		Bucket, Key          string
		UploadID             string `xml:"UploadId"`
		Initiator, Owner     *owner
		StorageClass         string
		PartNumberMarker     int
		NextPartNumberMarker int
		MaxParts             int
		IsTruncated          bool
		ChecksumAlgorithm    string `xml:",omitempty"`
		ChecksumType         string `xml:",omitempty"`
		Parts                []part `xml:"Part"`
	}{root: ns, Bucket: c.Labels["Bucket"], Key: l.encode(c.Labels["Key"]), UploadID: u.ID, Initiator: ownerOf(c), Owner: ownerOf(c),
		StorageClass: classOf(store.ObjectInfo{ObjectMeta: u.ObjectMeta}), PartNumberMarker: after, MaxParts: l.most, IsTruncated: more}
	asked, kind := askedOf(u)
	out.ChecksumAlgorithm, out.ChecksumType = string(asked), kind
	for _, p := range parts {
		out.NextPartNumberMarker = p.Number
		out.Parts = append(out.Parts, part{p.Number, stamp(p.Modified), `"` + p.ETag + `"`, p.Size, fieldsOf(u.Algorithm, p.Checksum)})
	}
	return document(out)
}

func (s *service) listUploads(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	l, err := listingOf(c, "max-uploads")
	if err != nil {
		return nil, err
	}
	marker, id := c.Query.Get("key-marker"), c.Query.Get("upload-id-marker")
	list, err := s.Objects.Uploads(ctx, bucketOf(c), store.ListUploads{Prefix: l.prefix, Delimiter: l.delimiter, After: marker, AfterID: id, Limit: l.most})
	if err != nil {
		return nil, err
	}
	type upload struct {
		Key               string
		UploadID          string `xml:"UploadId"`
		Initiator, Owner  *owner
		StorageClass      string
		Initiated         string
		ChecksumAlgorithm string `xml:",omitempty"`
		ChecksumType      string `xml:",omitempty"`
	}
	out := struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		root
		Bucket, KeyMarker  string
		UploadIDMarker     string `xml:"UploadIdMarker"`
		NextKeyMarker      string `xml:",omitempty"`
		NextUploadIDMarker string `xml:"NextUploadIdMarker,omitempty"`
		Prefix             string
		Delimiter          string `xml:",omitempty"`
		EncodingType       string `xml:",omitempty"`
		MaxUploads         int
		IsTruncated        bool
		Upload             []upload
		CommonPrefixes     []prefix
	}{root: ns, Bucket: c.Labels["Bucket"], KeyMarker: l.encode(marker), UploadIDMarker: id, Prefix: l.encode(l.prefix), Delimiter: l.encode(l.delimiter), EncodingType: l.encoding,
		MaxUploads: l.most, IsTruncated: list.More, CommonPrefixes: l.prefixes(list.Prefixes)}
	if list.More {
		out.NextKeyMarker, out.NextUploadIDMarker = l.encode(list.NextKey), list.NextID
	}
	for _, u := range list.Uploads {
		asked, kind := askedOf(u)
		out.Upload = append(out.Upload, upload{l.encode(u.Key), u.ID, ownerOf(c), ownerOf(c), classOf(store.ObjectInfo{ObjectMeta: u.ObjectMeta}), stamp(u.Created), string(asked), kind})
	}
	return document(out)
}

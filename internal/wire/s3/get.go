package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// body is a range of an object, as the answer's stream. What sends it uses WriteTo.
type body struct {
	ctx            context.Context
	o              store.Object
	offset, length int64
	pipe           *io.PipeReader
}

// WriteTo writes the range.
func (b *body) WriteTo(w io.Writer) (int64, error) {
	return b.length, b.o.Read(b.ctx, w, b.offset, b.length)
}

// Read reads through a pipe, for those who do not know WriteTo.
func (b *body) Read(p []byte) (int, error) {
	if b.pipe == nil {
		r, w := io.Pipe()
		b.pipe = r
		go func() { w.CloseWithError(b.o.Read(b.ctx, w, b.offset, b.length)) }()
	}
	return b.pipe.Read(p)
}

// Close closes the object.
func (b *body) Close() error {
	if b.pipe != nil {
		b.pipe.Close()
	}
	return b.o.Close()
}

func (s *service) getObject(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := readable(c); err != nil {
		return nil, err
	}
	o, err := s.Objects.Open(ctx, keyOf(c), c.Query.Get("versionId"))
	if err != nil {
		if o != nil {
			defer o.Close()
			return nil, marked(c, o.Info())
		}
		return nil, err
	}
	a, offset, length, err := describe(c, o.Info())
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	a.Stream = &body{ctx: ctx, o: o, offset: offset, length: length}
	return a, nil
}

func (s *service) headObject(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := readable(c); err != nil {
		return nil, err
	}
	info, err := s.Objects.Head(ctx, keyOf(c), c.Query.Get("versionId"))
	if err != nil {
		return nil, err
	}
	if info.Marker {
		return nil, marked(c, info)
	}
	a, _, _, err := describe(c, info)
	return a, err
}

// readable checks what is said before it is known whether the object is there.
func readable(c *wire.Call) error {
	if c.Query.Get("partNumber") != "" {
		if _, err := partNumber(c); err != nil {
			return err
		}
	}
	for name := range c.Query {
		if c.Claim == nil && strings.HasPrefix(name, "response-") {
			return wire.Errorf("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")
		}
	}
	return nil
}

// marked says that a deletion marker stands there.
func marked(c *wire.Call, info store.ObjectInfo) error {
	c.Header.Set("X-Amz-Delete-Marker", "true")
	c.Header.Set("X-Amz-Version-Id", info.Version)
	if c.Query.Get("versionId") == "" {
		return noSuchKey(info.Key)
	}
	c.Header.Set("Allow", "DELETE")
	e := wire.Errorf("MethodNotAllowed", "The specified method is not allowed against this resource.").With(http.StatusMethodNotAllowed)
	e.Fields = map[string]any{"Method": c.Request.Method, "ResourceType": "DeleteMarker"}
	return e
}

// describe answers for an object without its data, and says which range is asked for.
func describe(c *wire.Call, info store.ObjectInfo) (a *shape.Answer, offset, length int64, err error) {
	if err := fresh(c, info, ""); err != nil {
		h := c.Header // a client keeps what it has by these
		h["ETag"] = []string{`"` + info.ETag + `"`}
		h.Set("Last-Modified", info.Modified.Format(http.TimeFormat))
		return nil, 0, 0, err
	}
	a = done(http.StatusOK)
	h := a.Header
	h["ETag"] = []string{`"` + info.ETag + `"`}
	h.Set("Last-Modified", info.Modified.Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "binary/octet-stream")
	for k, v := range info.Headers {
		if k != aclHeader {
			h.Set(k, v)
		}
	}
	for k, v := range info.User {
		h["X-Amz-Meta-"+k] = []string{v}
	}
	if len(info.Tags) > 0 {
		h.Set("X-Amz-Tagging-Count", strconv.Itoa(len(info.Tags)))
	}
	if info.Version != store.NullVersion || c.Query.Get("versionId") != "" {
		h.Set("X-Amz-Version-Id", info.Version)
	}
	if info.Hold {
		h.Set("X-Amz-Object-Lock-Legal-Hold", "ON")
	}
	if info.Mode != "" {
		h.Set("X-Amz-Object-Lock-Mode", info.Mode)
		h.Set("X-Amz-Object-Lock-Retain-Until-Date", stamp(info.Until))
	}
	override(c, h)
	if offset, length, err = rangeOf(c, info, a); err != nil {
		return nil, 0, 0, err
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	if strings.EqualFold(header(c, "X-Amz-Checksum-Mode"), "ENABLED") {
		n, _ := strconv.Atoi(c.Query.Get("partNumber")) // was read before
		switch {
		case n > 0 && len(info.Parts) > 0 && info.Parts[n-1].Checksum != "":
			answerChecksum(h, store.Checksum{Algorithm: info.Checksum.Algorithm, Value: info.Parts[n-1].Checksum, Composite: info.Checksum.Composite})
		case length == info.Size:
			answerChecksum(h, info.Checksum)
		}
	}
	return a, offset, length, nil
}

// override sets headers as a signed address asks for them.
func override(c *wire.Call, h http.Header) {
	for _, name := range []string{"Content-Type", "Content-Language", "Expires", "Cache-Control", "Content-Disposition", "Content-Encoding"} {
		if v := c.Query.Get("response-" + strings.ToLower(name)); v != "" && c.Claim != nil && !strings.ContainsAny(v, "\r\n") {
			h.Set(name, v)
		}
	}
}

// rangeOf is the part of an object that is asked for, and makes the answer one of a part.
func rangeOf(c *wire.Call, info store.ObjectInfo, a *shape.Answer) (offset, length int64, err error) {
	text := header(c, "Range")
	if part := c.Query.Get("partNumber"); part != "" {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 || n > store.MaxParts {
			return 0, 0, invalidArgument("partNumber", part, "Part number must be an integer between 1 and 10000, inclusive")
		}
		if text != "" {
			return 0, 0, wire.Errorf("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
		}
		if offset, length, err = partRange(info, n); err != nil {
			return 0, 0, err
		}
		if len(info.Parts) > 0 {
			a.Header.Set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(info.Parts)))
		}
	} else {
		var ok bool
		if offset, length, ok, err = parseRange(text, info.Size); err != nil || !ok {
			return 0, info.Size, err
		}
	}
	if info.Size > 0 {
		a.Status = http.StatusPartialContent
		a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, offset+length-1, info.Size))
	}
	return offset, length, nil
}

func partRange(info store.ObjectInfo, n int) (offset, length int64, err error) {
	if len(info.Parts) == 0 && n == 1 {
		return 0, info.Size, nil
	}
	if n > len(info.Parts) {
		e := wire.Errorf("InvalidPartNumber", "The requested partnumber is not satisfiable").With(http.StatusRequestedRangeNotSatisfiable)
		e.Fields = map[string]any{"ActualPartCount": strconv.Itoa(max(1, len(info.Parts))), "PartNumberRequested": strconv.Itoa(n)}
		return 0, 0, e
	}
	for _, p := range info.Parts[:n-1] {
		offset += p.Size
	}
	return offset, info.Parts[n-1].Size, nil
}

// parseRange reads a header of one range; what it cannot read is no range, as RFC 9110 has it.
func parseRange(text string, size int64) (offset, length int64, ok bool, err error) {
	spec, isBytes := strings.CutPrefix(strings.TrimSpace(text), "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !isBytes || !dash || strings.Contains(spec, ",") {
		return 0, 0, false, nil
	}
	unsatisfiable := wire.Errorf("InvalidRange", "The requested range is not satisfiable").With(http.StatusRequestedRangeNotSatisfiable)
	unsatisfiable.Fields = map[string]any{"ActualObjectSize": strconv.FormatInt(size, 10), "RangeRequested": text}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		switch {
		case err != nil || n < 0:
			return 0, 0, false, nil
		case n == 0 || size == 0:
			return 0, 0, false, unsatisfiable
		}
		n = min(n, size)
		return size - n, n, true, nil
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, 0, false, nil
	}
	to := size - 1
	if last != "" {
		if to, err = strconv.ParseInt(last, 10, 64); err != nil || to < from {
			return 0, 0, false, nil
		}
	}
	if from >= size {
		return 0, 0, false, unsatisfiable
	}
	return from, min(to, size-1) - from + 1, true, nil
}

// fresh holds a request's conditions to an object: RFC 9110, 13.2.2. prefix is that of the header names, for copies.
func fresh(c *wire.Call, info store.ObjectInfo, prefix string) error {
	condition := func(name string) string { return header(c, prefix+name) }
	when := func(name string) (time.Time, bool) {
		t, err := http.ParseTime(condition(name))
		return t, err == nil
	}
	if list := condition("If-Match"); list != "" {
		if !matches(list, info.ETag) {
			return preconditionFailed("If-Match")
		}
	} else if t, ok := when("If-Unmodified-Since"); ok && info.Modified.Truncate(time.Second).After(t) {
		return preconditionFailed("If-Unmodified-Since")
	}
	same := false
	if list := condition("If-None-Match"); list != "" {
		same = matches(list, info.ETag)
	} else if t, ok := when("If-Modified-Since"); ok {
		same = !info.Modified.Truncate(time.Second).After(t)
	}
	switch {
	case !same:
		return nil
	case prefix != "":
		return preconditionFailed("If-None-Match")
	}
	return wire.Errorf("NotModified", "Not Modified").With(http.StatusNotModified)
}

func matches(list, etag string) bool {
	return slices.ContainsFunc(strings.Split(list, ","), func(one string) bool {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		return one == "*" || unquoted(one) == etag
	})
}

// attributesOf are those that a request names.
func attributesOf(c *wire.Call) (wanted []string, err error) {
	for _, list := range c.Request.Header.Values("X-Amz-Object-Attributes") {
		for one := range strings.SplitSeq(list, ",") {
			if one = strings.TrimSpace(one); one == "" {
				continue
			}
			if !slices.Contains([]string{"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}, one) {
				return nil, invalidArgument("x-amz-object-attributes", one, "Invalid attribute name specified.")
			}
			wanted = append(wanted, one)
		}
	}
	if len(wanted) == 0 {
		return nil, wire.Errorf("InvalidRequest", "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty")
	}
	return wanted, nil
}

func (s *service) getAttributes(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	wanted, err := attributesOf(c)
	if err != nil {
		return nil, err
	}
	info, err := s.Objects.Head(ctx, keyOf(c), c.Query.Get("versionId"))
	if err != nil {
		return nil, err
	}
	if info.Marker {
		return nil, marked(c, info)
	}
	type part struct {
		PartNumber int
		Size       int64
		checksumFields
	}
	type parts struct {
		TotalPartsCount      int `xml:"PartsCount"`
		PartNumberMarker     int
		NextPartNumberMarker int
		MaxParts             int
		IsTruncated          bool
		Parts                []part `xml:"Part"`
	}
	type sums struct {
		checksumFields
		ChecksumType string
	}
	out := struct {
		XMLName xml.Name `xml:"GetObjectAttributesResponse"`
		root
		ETag         string `xml:",omitempty"`
		Checksum     *sums
		ObjectParts  *parts
		StorageClass string `xml:",omitempty"`
		ObjectSize   *int64
	}{root: ns}
	for _, name := range wanted {
		switch name {
		case "ETag":
			out.ETag = info.ETag
		case "Checksum":
			if info.Checksum.Algorithm != "" {
				out.Checksum = &sums{fieldsOf(info.Checksum.Algorithm, strings.SplitN(info.Checksum.Value, "-", 2)[0]), checksumType(info.Checksum)}
			}
		case "ObjectParts":
			if len(info.Parts) == 0 {
				continue
			}
			most, after := 1000, 0
			if n, err := strconv.Atoi(header(c, "X-Amz-Max-Parts")); err == nil && n >= 0 {
				most = min(n, most)
			}
			after, _ = strconv.Atoi(header(c, "X-Amz-Part-Number-Marker"))
			p := &parts{TotalPartsCount: len(info.Parts), PartNumberMarker: after, MaxParts: most}
			for _, one := range info.Parts {
				if one.Number <= after {
					continue
				}
				if len(p.Parts) == most {
					p.IsTruncated = true
					break
				}
				p.NextPartNumberMarker = one.Number
				p.Parts = append(p.Parts, part{one.Number, one.Size, fieldsOf(info.Checksum.Algorithm, one.Checksum)})
			}
			if info.Checksum.Algorithm == "" {
				p.Parts = nil // S3 lists them only where each has a checksum
			}
			out.ObjectParts = p
		case "StorageClass":
			out.StorageClass = classOf(info)
		case "ObjectSize":
			out.ObjectSize = &info.Size
		}
	}
	if info.Version != store.NullVersion {
		c.Header.Set("X-Amz-Version-Id", info.Version)
	}
	c.Header.Set("Last-Modified", info.Modified.Format(http.TimeFormat))
	return document(out)
}

func classOf(info store.ObjectInfo) string {
	if class := info.Headers["x-amz-storage-class"]; class != "" {
		return class
	}
	return "STANDARD"
}

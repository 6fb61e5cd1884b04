package s3

import (
	"context"
	"encoding/xml"
	"strconv"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// listing is what the requests that list have in common.
type listing struct {
	prefix, delimiter string
	most              int
	encode            func(string) string
	encoding          string
}

func listingOf(c *wire.Call, count string) (listing, error) {
	l := listing{prefix: c.Query.Get("prefix"), delimiter: c.Query.Get("delimiter"), most: 1000, encode: func(s string) string { return s }}
	if text := c.Query.Get(count); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 0 {
			return l, invalidArgument(count, text, "Provided %s not an integer or within integer range", count)
		}
		l.most = int(min(n, 1000))
	}
	switch l.encoding = c.Query.Get("encoding-type"); l.encoding {
	case "":
	case "url":
		l.encode = encodeKey
	default:
		return l, invalidArgument("encoding-type", l.encoding, "Invalid Encoding Method specified in Request")
	}
	return l, nil
}

// encodeKey encodes as encoding-type=url does: slashes stay.
func encodeKey(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '/', c == '*':
			b.WriteByte(c)
		case c == ' ':
			b.WriteByte('+')
		default:
			const hex = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}

type entry struct {
	XMLName           xml.Name
	Key               string
	VersionID         string `xml:"VersionId,omitempty"`
	IsLatest          *bool
	LastModified      string
	ETag              string `xml:",omitempty"`
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              *int64
	StorageClass      string `xml:",omitempty"`
	Owner             *owner
}

type prefix struct{ Prefix string }

func (l listing) entry(name string, o store.ObjectInfo, who *owner) entry {
	e := entry{XMLName: xml.Name{Local: name}, Key: l.encode(o.Key), LastModified: stamp(o.Modified), Owner: who}
	if !o.Marker {
		size := o.Size
		e.ETag, e.Size, e.StorageClass = `"`+o.ETag+`"`, &size, classOf(o)
		if a := o.Checksum.Algorithm; a != "" {
			e.ChecksumAlgorithm, e.ChecksumType = string(a), checksumType(o.Checksum)
		}
	}
	return e
}

func (l listing) prefixes(list []string) []prefix {
	var out []prefix
	for _, p := range list {
		out = append(out, prefix{l.encode(p)})
	}
	return out
}

func (s *service) listObjects(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	l, err := listingOf(c, "max-keys")
	if err != nil {
		return nil, err
	}
	marker := c.Query.Get("marker")
	list, err := s.Objects.List(ctx, bucketOf(c), store.ListObjects{Prefix: l.prefix, Delimiter: l.delimiter, After: marker, Limit: l.most})
	if err != nil {
		return nil, err
	}
	out := struct {
		XMLName xml.Name `xml:"ListBucketResult"`
		root
		Name, Prefix, Marker string
		NextMarker           string `xml:",omitempty"`
		MaxKeys              int
		Delimiter            string `xml:",omitempty"`
		EncodingType         string `xml:",omitempty"`
		IsTruncated          bool
		Contents             []entry
		CommonPrefixes       []prefix
	}{root: ns, Name: c.Labels["Bucket"], Prefix: l.encode(l.prefix), Marker: l.encode(marker), MaxKeys: l.most, Delimiter: l.encode(l.delimiter), EncodingType: l.encoding, IsTruncated: list.More, CommonPrefixes: l.prefixes(list.Prefixes)}
	if list.More && l.delimiter != "" {
		out.NextMarker = l.encode(list.NextKey)
	}
	for _, o := range list.Objects {
		out.Contents = append(out.Contents, l.entry("Contents", o, ownerOf(c)))
	}
	return document(out)
}

func (s *service) listObjectsV2(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	l, err := listingOf(c, "max-keys")
	if err != nil {
		return nil, err
	}
	start, token := c.Query.Get("start-after"), c.Query.Get("continuation-token")
	after := start
	if token != "" {
		if after, err = continued(token); err != nil {
			return nil, err
		}
	} else if c.Query.Has("continuation-token") {
		return nil, invalidArgument("continuation-token", "", "The continuation token provided is incorrect")
	}
	list, err := s.Objects.List(ctx, bucketOf(c), store.ListObjects{Prefix: l.prefix, Delimiter: l.delimiter, After: after, Limit: l.most})
	if err != nil {
		return nil, err
	}
	out := struct {
		XMLName xml.Name `xml:"ListBucketResult"`
		root
		Name, Prefix          string
		StartAfter            string `xml:",omitempty"`
		ContinuationToken     string `xml:",omitempty"`
		NextContinuationToken string `xml:",omitempty"`
		KeyCount, MaxKeys     int
		Delimiter             string `xml:",omitempty"`
		EncodingType          string `xml:",omitempty"`
		IsTruncated           bool
		Contents              []entry
		CommonPrefixes        []prefix
	}{root: ns, Name: c.Labels["Bucket"], Prefix: l.encode(l.prefix), StartAfter: l.encode(start), ContinuationToken: token, KeyCount: len(list.Objects) + len(list.Prefixes),
		MaxKeys: l.most, Delimiter: l.encode(l.delimiter), EncodingType: l.encoding, IsTruncated: list.More, CommonPrefixes: l.prefixes(list.Prefixes)}
	if list.More {
		out.NextContinuationToken = continuation(list.NextKey)
	}
	var who *owner
	if c.Query.Get("fetch-owner") == "true" {
		who = ownerOf(c)
	}
	for _, o := range list.Objects {
		out.Contents = append(out.Contents, l.entry("Contents", o, who))
	}
	return document(out)
}

func (s *service) listVersions(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	l, err := listingOf(c, "max-keys")
	if err != nil {
		return nil, err
	}
	marker, version := c.Query.Get("key-marker"), c.Query.Get("version-id-marker")
	if version != "" && marker == "" {
		return nil, invalidArgument("version-id-marker", version, "A version-id marker cannot be specified without a key marker.")
	}
	list, err := s.Objects.List(ctx, bucketOf(c), store.ListObjects{Prefix: l.prefix, Delimiter: l.delimiter, After: marker, AfterVersion: version, Versions: true, Limit: l.most})
	if err != nil {
		return nil, err
	}
	out := struct {
		XMLName xml.Name `xml:"ListVersionsResult"`
		root
		Name, Prefix, KeyMarker string
		VersionIDMarker         string `xml:"VersionIdMarker"`
		NextKeyMarker           string `xml:",omitempty"`
		NextVersionIDMarker     string `xml:"NextVersionIdMarker,omitempty"`
		MaxKeys                 int
		Delimiter               string `xml:",omitempty"`
		EncodingType            string `xml:",omitempty"`
		IsTruncated             bool
		Entries                 []entry
		CommonPrefixes          []prefix
	}{root: ns, Name: c.Labels["Bucket"], Prefix: l.encode(l.prefix), KeyMarker: l.encode(marker), VersionIDMarker: version, MaxKeys: l.most,
		Delimiter: l.encode(l.delimiter), EncodingType: l.encoding, IsTruncated: list.More, CommonPrefixes: l.prefixes(list.Prefixes)}
	if list.More {
		out.NextKeyMarker, out.NextVersionIDMarker = l.encode(list.NextKey), list.NextVersion
	}
	for _, o := range list.Objects {
		name := "Version"
		if o.Marker {
			name = "DeleteMarker"
		}
		e := l.entry(name, o, ownerOf(c))
		e.VersionID, e.IsLatest = o.Version, &o.Latest
		out.Entries = append(out.Entries, e)
	}
	return document(out)
}

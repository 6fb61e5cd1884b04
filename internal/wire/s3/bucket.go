package s3

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// stamp is a time as S3's documents write it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

type owner struct {
	ID          string
	DisplayName string `xml:",omitempty"`
}

// ownerOf is the canonical user of a Tenant's account: S3 has 64 hexadecimal digits there.
func ownerOf(c *wire.Call) *owner {
	return &owner{ID: strings.Repeat("0", max(0, 64-len(c.Caller.Account))) + c.Caller.Account, DisplayName: c.Caller.Tenant}
}

func (s *service) listBuckets(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	type entry struct{ Name, CreationDate, BucketRegion string }
	out := struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		root
		Owner             *owner
		Buckets           []entry `xml:"Buckets>Bucket"`
		ContinuationToken string  `xml:",omitempty"`
		Prefix            string  `xml:",omitempty"`
	}{root: ns, Owner: ownerOf(c), Prefix: c.Query.Get("prefix")}
	most := 10_000
	if text := c.Query.Get("max-buckets"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return nil, invalidArgument("max-buckets", text, "Argument max-buckets must be an integer between 1 and 10000")
		}
		most = n
	}
	after, err := base64.URLEncoding.DecodeString(c.Query.Get("continuation-token"))
	if err != nil {
		return nil, invalidArgument("continuation-token", c.Query.Get("continuation-token"), "The continuation token provided is incorrect")
	}
	all, err := s.Objects.Buckets(ctx, c.Caller.Tenant)
	if err != nil {
		return nil, err
	}
	for _, b := range all {
		if !strings.HasPrefix(b.Name, out.Prefix) || len(after) > 0 && b.Name <= string(after) {
			continue
		}
		if len(out.Buckets) == most {
			out.ContinuationToken = base64.URLEncoding.EncodeToString([]byte(out.Buckets[most-1].Name))
			break
		}
		out.Buckets = append(out.Buckets, entry{b.Name, stamp(b.Created), region(b)})
	}
	return document(out)
}

// region is where a bucket was said to be made.
func region(b store.Bucket) string {
	if l := string(b.Documents["location"]); l != "" {
		return l
	}
	return "us-east-1"
}

var regionName = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)

func (s *service) createBucket(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	var in struct {
		LocationConstraint string
		Tags               []tag `xml:"Tags>Tag"`
	}
	if len(c.Body) > 0 {
		if err := readXML(c, &in); err != nil {
			return nil, err
		}
	}
	if l := in.LocationConstraint; l != "" && l != "EU" && !regionName.MatchString(l) {
		e := wire.Errorf("InvalidLocationConstraint", "The specified location-constraint is not valid")
		e.Fields = map[string]any{"LocationConstraint": l}
		return nil, e
	}
	b := store.Bucket{Documents: map[string][]byte{}}
	if l := in.LocationConstraint; l != "" && l != "us-east-1" {
		b.Documents["location"] = []byte(l)
	}
	if len(in.Tags) > 0 {
		tags, err := tagMap(in.Tags, 50)
		if err != nil {
			return nil, err
		}
		b.Tags = tags
	}
	if strings.EqualFold(header(c, "X-Amz-Bucket-Object-Lock-Enabled"), "true") {
		b.Versioning = store.Versioned
		b.Documents["object-lock"] = []byte(`<ObjectLockConfiguration xmlns="` + namespace + `"><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>`)
	}
	if acl := header(c, "X-Amz-Acl"); acl != "" {
		b.Documents["acl"] = []byte(acl)
	}
	if by := c.Caller.Maker(); by != "" {
		b.Documents[wire.Made] = []byte(by)
	}
	err := s.Objects.CreateBucket(ctx, bucketOf(c), b)
	if errors.Is(err, store.ErrBucketExists) && (c.Region != "us-east-1" || b.Documents["location"] != nil) {
		e := wire.Errorf("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.").With(http.StatusConflict)
		e.Fields = map[string]any{"BucketName": c.Labels["Bucket"]}
		return nil, e
	}
	if err != nil && !errors.Is(err, store.ErrBucketExists) { // made again in us-east-1 it is no error
		return nil, err
	}
	s.changed(ctx, c)
	c.Header.Set("Location", "/"+c.Labels["Bucket"])
	c.Header.Set("X-Amz-Bucket-Arn", "arn:aws:s3:::"+c.Labels["Bucket"])
	return done(http.StatusOK), nil
}

func (s *service) deleteBucket(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := s.Objects.DeleteBucket(ctx, bucketOf(c)); err != nil {
		return nil, err
	}
	s.changed(ctx, c)
	return done(http.StatusNoContent), nil
}

func (s *service) changed(ctx context.Context, c *wire.Call) {
	if s.Changed != nil {
		s.Changed(ctx, bucketOf(c))
	}
}

func (s *service) headBucket(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	c.Header.Set("X-Amz-Bucket-Region", region(b))
	c.Header.Set("X-Amz-Access-Point-Alias", "false")
	a := done(http.StatusOK)
	a.Header.Set("Content-Type", "application/xml")
	return a, nil
}

func (s *service) getLocation(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	return document(struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		root
		Text string `xml:",chardata"`
	}{root: ns, Text: string(b.Documents["location"])})
}

func (s *service) getVersioning(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	status := map[store.Versioning]string{store.Versioned: "Enabled", store.Suspended: "Suspended"}[b.Versioning]
	return document(struct {
		XMLName xml.Name `xml:"VersioningConfiguration"`
		root
		Status string `xml:",omitempty"`
	}{root: ns, Status: status})
}

func (s *service) putVersioning(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	var in struct{ Status string }
	if err := readXML(c, &in); err != nil {
		return nil, err
	}
	state, ok := map[string]store.Versioning{"Enabled": store.Versioned, "Suspended": store.Suspended}[in.Status]
	if !ok {
		return nil, wire.Errorf("IllegalVersioningConfigurationException", "The Versioning element must be specified")
	}
	err := s.Objects.SetBucket(ctx, bucketOf(c), func(b *store.Bucket) error {
		if state == store.Suspended && b.Documents["object-lock"] != nil {
			return wire.Errorf("InvalidBucketState", "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.").With(http.StatusConflict)
		}
		b.Versioning = state
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done(http.StatusOK), nil
}

// tag is one of a bucket or an object.
type tag struct{ Key, Value string }

type tagging struct {
	XMLName xml.Name `xml:"Tagging"`
	root
	Tags []tag `xml:"TagSet>Tag"`
}

func tagsOf(m map[string]string) tagging {
	t := tagging{root: ns, Tags: []tag{}}
	for _, k := range sortedKeys(m) {
		t.Tags = append(t.Tags, tag{k, m[k]})
	}
	return t
}

// tagMap checks tags: S3 guide, "Object tags".
func tagMap(tags []tag, most int) (map[string]string, error) {
	out := map[string]string{}
	if len(tags) > most {
		noun := "Object"
		if most > 10 {
			noun = "Bucket"
		}
		return nil, wire.Errorf("BadRequest", "%s tags cannot be greater than %d", noun, most)
	}
	for _, t := range tags {
		if t.Key == "" || len([]rune(t.Key)) > 128 {
			return nil, invalidTag("The TagKey you have provided is invalid", t)
		}
		if len([]rune(t.Value)) > 256 {
			return nil, invalidTag("The TagValue you have provided is invalid", t)
		}
		if _, twice := out[t.Key]; twice {
			return nil, invalidTag("Cannot provide multiple Tags with the same key", t)
		}
		out[t.Key] = t.Value
	}
	return out, nil
}

func invalidTag(text string, t tag) *wire.Error {
	e := wire.Errorf("InvalidTag", "%s", text)
	e.Fields = map[string]any{"TagKey": t.Key}
	return e
}

func (s *service) getBucketTagging(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	if len(b.Tags) == 0 {
		e := wire.Errorf("NoSuchTagSet", "The TagSet does not exist").With(http.StatusNotFound)
		e.Fields = map[string]any{"BucketName": b.Name}
		return nil, e
	}
	return document(tagsOf(b.Tags))
}

func (s *service) putBucketTagging(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	var in tagging
	if err := readXML(c, &in); err != nil {
		return nil, err
	}
	tags, err := tagMap(in.Tags, 50)
	if err != nil {
		return nil, err
	}
	return s.setTags(ctx, c, tags)
}

func (s *service) deleteBucketTagging(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	return s.setTags(ctx, c, nil)
}

func (s *service) setTags(ctx context.Context, c *wire.Call, tags map[string]string) (*shape.Answer, error) {
	if err := s.Objects.SetBucket(ctx, bucketOf(c), func(b *store.Bucket) error { b.Tags = tags; return nil }); err != nil {
		return nil, err
	}
	return done(http.StatusNoContent), nil
}

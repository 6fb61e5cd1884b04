package s3

import (
	"context"
	"encoding/xml"
	"net/http"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

// update changes what is said of the version in a request's address.
func (s *service) update(ctx context.Context, c *wire.Call, event string, change func(*store.ObjectMeta) error) error {
	e := store.ObjectEvent{}
	if event != "" {
		e = s.eventOf(c, event)
	}
	info, err := s.Objects.Update(ctx, keyOf(c), c.Query.Get("versionId"), e, change)
	if info.Marker {
		return marked(c, info)
	}
	if err == nil && info.Version != store.NullVersion {
		c.Header.Set("X-Amz-Version-Id", info.Version)
	}
	return err
}

// look is update without a change.
func (s *service) look(ctx context.Context, c *wire.Call) (store.ObjectInfo, error) {
	info, err := s.Objects.Head(ctx, keyOf(c), c.Query.Get("versionId"))
	if err == nil && info.Marker {
		return info, marked(c, info)
	}
	if err == nil && info.Version != store.NullVersion {
		c.Header.Set("X-Amz-Version-Id", info.Version)
	}
	return info, err
}

func (s *service) getTagging(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	info, err := s.look(ctx, c)
	if err != nil {
		return nil, err
	}
	return document(tagsOf(info.Tags))
}

func (s *service) putTagging(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	var in tagging
	if err := verifyBody(c); err != nil {
		return nil, err
	}
	if err := readXML(c, &in); err != nil {
		return nil, err
	}
	tags, err := tagMap(in.Tags, 10)
	if err != nil {
		return nil, err
	}
	if err := s.update(ctx, c, "ObjectTagging:Put", func(m *store.ObjectMeta) error { m.Tags = tags; return nil }); err != nil {
		return nil, err
	}
	return done(http.StatusOK), nil
}

func (s *service) deleteTagging(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := s.update(ctx, c, "ObjectTagging:Delete", func(m *store.ObjectMeta) error { m.Tags = nil; return nil }); err != nil {
		return nil, err
	}
	return done(http.StatusNoContent), nil
}

// locking refuses where a bucket locks nothing.
func (s *service) locking(ctx context.Context, c *wire.Call) error {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err == nil && b.Documents["object-lock"] == nil {
		err = wire.Errorf("InvalidRequest", "Bucket is missing Object Lock Configuration")
	}
	return err
}

type legalHold struct {
	XMLName xml.Name `xml:"LegalHold"`
	root
	Status string
}

type retention struct {
	XMLName xml.Name `xml:"Retention"`
	root
	Mode            string `xml:",omitempty"`
	RetainUntilDate string `xml:",omitempty"`
}

func (s *service) getLegalHold(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := s.locking(ctx, c); err != nil {
		return nil, err
	}
	info, err := s.look(ctx, c)
	if err != nil {
		return nil, err
	}
	return document(legalHold{root: ns, Status: map[bool]string{true: "ON", false: "OFF"}[info.Hold]})
}

func (s *service) putLegalHold(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	var in legalHold
	if err := readXML(c, &in); err != nil {
		return nil, err
	}
	if in.Status != "ON" && in.Status != "OFF" {
		return nil, malformedXML()
	}
	if err := s.locking(ctx, c); err != nil {
		return nil, err
	}
	if err := s.update(ctx, c, "", func(m *store.ObjectMeta) error { m.Hold = in.Status == "ON"; return nil }); err != nil {
		return nil, err
	}
	return done(http.StatusOK), nil
}

func (s *service) getRetention(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	if err := s.locking(ctx, c); err != nil {
		return nil, err
	}
	info, err := s.look(ctx, c)
	if err != nil {
		return nil, err
	}
	if info.Mode == "" {
		return nil, wire.Errorf("NoSuchObjectLockConfiguration", "The specified object does not have a ObjectLock configuration").With(http.StatusNotFound)
	}
	return document(retention{root: ns, Mode: info.Mode, RetainUntilDate: stamp(info.Until)})
}

func (s *service) putRetention(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	var in retention
	if err := readXML(c, &in); err != nil {
		return nil, err
	}
	if in.Mode != "" && in.Mode != "GOVERNANCE" && in.Mode != "COMPLIANCE" {
		return nil, malformedXML()
	}
	if err := s.locking(ctx, c); err != nil {
		return nil, err
	}
	bypass := header(c, "X-Amz-Bypass-Governance-Retention") == "true"
	err := s.update(ctx, c, "", func(m *store.ObjectMeta) error {
		was := *m
		m.Mode, m.Until = "", time.Time{}
		if in.Mode != "" || in.RetainUntilDate != "" {
			if err := setRetention(m, in.Mode, in.RetainUntilDate, c.Now); err != nil {
				return err
			}
		}
		if shorter := m.Until.Before(was.Until) || m.Mode != was.Mode; was.Until.After(c.Now) && shorter && (was.Mode == "COMPLIANCE" || !bypass) {
			return store.ErrLocked
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done(http.StatusOK), nil
}

type grantee struct {
	XSI  string `xml:"xmlns:xsi,attr"`
	Type string `xml:"xsi:type,attr"`
	ID   string `xml:",omitempty"`
	URI  string `xml:",omitempty"`
}

type grant struct {
	Grantee    grantee
	Permission string
}

// acl is what a canned ACL means: S3 guide, "Canned ACL". Others are kept as private ones.
func acl(c *wire.Call, canned string) (*shape.Answer, error) {
	const xsi, all = "http://www.w3.org/2001/XMLSchema-instance", "http://acs.amazonaws.com/groups/global/AllUsers"
	out := struct {
		XMLName xml.Name `xml:"AccessControlPolicy"`
		root
		Owner  *owner
		Grants []grant `xml:"AccessControlList>Grant"`
	}{root: ns, Owner: ownerOf(c)}
	out.Grants = []grant{{grantee{XSI: xsi, Type: "CanonicalUser", ID: out.Owner.ID}, "FULL_CONTROL"}}
	group := func(uri, permission string) {
		out.Grants = append(out.Grants, grant{grantee{XSI: xsi, Type: "Group", URI: uri}, permission})
	}
	switch canned {
	case "public-read-write":
		group(all, "READ")
		group(all, "WRITE")
	case "public-read":
		group(all, "READ")
	case "authenticated-read":
		group("http://acs.amazonaws.com/groups/global/AuthenticatedUsers", "READ")
	}
	return document(out)
}

func (s *service) getBucketACL(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	b, err := s.Objects.Bucket(ctx, bucketOf(c))
	if err != nil {
		return nil, err
	}
	return acl(c, string(b.Documents["acl"]))
}

// cannedOf is the canned ACL that a request asks for, or the one nearest to its document.
func cannedOf(c *wire.Call) (string, error) {
	if canned := header(c, "X-Amz-Acl"); canned != "" {
		return canned, nil
	}
	if len(c.Body) == 0 {
		return "private", nil
	}
	var in struct {
		Grants []struct {
			Grantee    struct{ URI string }
			Permission string
		} `xml:"AccessControlList>Grant"`
	}
	if err := readXML(c, &in); err != nil {
		return "", wire.Errorf("MalformedACLError", "The XML you provided was not well-formed or did not validate against our published schema")
	}
	for _, g := range in.Grants {
		if g.Grantee.URI == "http://acs.amazonaws.com/groups/global/AllUsers" && (g.Permission == "READ" || g.Permission == "FULL_CONTROL") {
			return "public-read", nil
		}
	}
	return "private", nil
}

func (s *service) putBucketACL(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	canned, err := cannedOf(c)
	if err != nil {
		return nil, err
	}
	if err := s.setDocument(ctx, c, "acl", []byte(canned)); err != nil {
		return nil, err
	}
	return done(http.StatusOK), nil
}

func (s *service) getObjectACL(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	info, err := s.look(ctx, c)
	if err != nil {
		return nil, err
	}
	return acl(c, info.Headers[aclHeader])
}

func (s *service) putObjectACL(ctx context.Context, c *wire.Call) (*shape.Answer, error) {
	canned, err := cannedOf(c)
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, c, "ObjectAcl:Put", func(m *store.ObjectMeta) error {
		if m.Headers == nil {
			m.Headers = map[string]string{}
		}
		m.Headers[aclHeader] = canned
		return nil
	})
	if err != nil {
		return nil, err
	}
	return done(http.StatusOK), nil
}

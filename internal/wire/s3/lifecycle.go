package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
)

type lifecycleRule struct {
	ID, Status, Prefix string
	Filter             *struct {
		lifecycleFilter
		And *lifecycleFilter
	}
	Expiration                     *lifecycleExpiration
	NoncurrentVersionExpiration    *struct{ NoncurrentDays, NewerNoncurrentVersions int }
	AbortIncompleteMultipartUpload *struct{ DaysAfterInitiation int }
	Transition                     []struct{}
	NoncurrentVersionTransition    []struct{}
}

type lifecycleExpiration struct {
	Days                      *int
	Date                      string
	ExpiredObjectDeleteMarker bool
}

func (e *lifecycleExpiration) days() int {
	if e.Days == nil {
		return 0
	}
	return *e.Days
}

type lifecycleFilter struct {
	Prefix                string
	Tag                   []tag
	ObjectSizeGreaterThan *int64
	ObjectSizeLessThan    *int64
}

type lifecycleConfiguration struct {
	Rules []lifecycleRule `xml:"Rule"`
}

// checkLifecycle checks a configuration: S3 API, "PutBucketLifecycleConfiguration"; S3 guide, "Lifecycle configuration elements".
func checkLifecycle(data []byte) error {
	var in lifecycleConfiguration
	if err := xml.Unmarshal(data, &in); err != nil || len(in.Rules) == 0 || len(in.Rules) > 1000 {
		return malformedXML()
	}
	ids := map[string]bool{}
	for i := range in.Rules {
		r := &in.Rules[i]
		if r.ID != "" && ids[r.ID] {
			return invalidArgument("ID", r.ID, "Rule ID must be unique. Found same ID for more than one rule")
		}
		ids[r.ID] = true
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *lifecycleRule) check() error {
	if r.Status != "Enabled" && r.Status != "Disabled" {
		return malformedXML()
	}
	if len(r.ID) > 255 {
		return invalidArgument("ID", r.ID, "ID length should not exceed allowed limit of 255")
	}
	if r.Expiration == nil && r.NoncurrentVersionExpiration == nil && r.AbortIncompleteMultipartUpload == nil && r.Transition == nil && r.NoncurrentVersionTransition == nil {
		return wire.Errorf("InvalidRequest", "At least one action needs to be specified in a rule")
	}
	f := r.filter()
	if r.Filter != nil && (r.Prefix != "" || r.Filter.And == nil && f.conditions() > 1 || r.Filter.And != nil && r.Filter.conditions() > 0) {
		return malformedXML() // a filter has one condition, or an And of several
	}
	if f.ObjectSizeGreaterThan != nil && f.ObjectSizeLessThan != nil && *f.ObjectSizeGreaterThan >= *f.ObjectSizeLessThan {
		return wire.Errorf("InvalidRequest", "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")
	}
	if _, err := tagMap(f.Tag, 10); err != nil {
		return err
	}
	bySize := f.ObjectSizeGreaterThan != nil || f.ObjectSizeLessThan != nil
	if a := r.AbortIncompleteMultipartUpload; a != nil {
		switch {
		case len(f.Tag) > 0:
			return wire.Errorf("InvalidRequest", "AbortIncompleteMultipartUpload cannot be specified with Tags")
		case bySize:
			return wire.Errorf("InvalidRequest", "AbortIncompleteMultipartUpload cannot be specified with Object Size")
		case a.DaysAfterInitiation <= 0:
			return invalidArgument("DaysAfterInitiation", fmt.Sprint(a.DaysAfterInitiation), "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer")
		}
	}
	if n := r.NoncurrentVersionExpiration; n != nil && n.NoncurrentDays <= 0 {
		return invalidArgument("NoncurrentDays", fmt.Sprint(n.NoncurrentDays), "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer")
	}
	if r.Expiration == nil {
		return nil
	}
	return r.checkExpiration(f)
}

func (r *lifecycleRule) checkExpiration(f lifecycleFilter) error {
	e := r.Expiration
	switch {
	case e.Date != "" && e.Days != nil, e.ExpiredObjectDeleteMarker && (e.Date != "" || e.Days != nil):
		return malformedXML() // one of the three
	case e.ExpiredObjectDeleteMarker && len(f.Tag) > 0:
		return wire.Errorf("InvalidRequest", "ExpiredObjectDeleteMarker cannot be specified with Tags.")
	case e.Date != "":
		t, err := time.Parse(time.RFC3339, e.Date)
		if err != nil {
			return malformedXML()
		}
		if !t.Equal(t.UTC().Truncate(24 * time.Hour)) {
			return invalidArgument("Date", e.Date, "'Date' must be at midnight GMT")
		}
	case !e.ExpiredObjectDeleteMarker && e.days() <= 0:
		return invalidArgument("Days", fmt.Sprint(e.days()), "'Days' for Expiration action must be a positive integer")
	}
	return nil
}

// filter is what a rule is for.
func (r *lifecycleRule) filter() lifecycleFilter {
	f := lifecycleFilter{Prefix: r.Prefix}
	if r.Filter != nil {
		if f = r.Filter.lifecycleFilter; r.Filter.And != nil {
			f = *r.Filter.And
		}
	}
	return f
}

// conditions counts what it asks for.
func (f lifecycleFilter) conditions() int {
	n := len(f.Tag)
	for _, is := range []bool{f.Prefix != "", f.ObjectSizeGreaterThan != nil, f.ObjectSizeLessThan != nil} {
		if is {
			n++
		}
	}
	return n
}

func (f lifecycleFilter) fits(o store.ObjectInfo) bool {
	if !strings.HasPrefix(o.Key, f.Prefix) || f.ObjectSizeGreaterThan != nil && o.Size <= *f.ObjectSizeGreaterThan || f.ObjectSizeLessThan != nil && o.Size >= *f.ObjectSizeLessThan {
		return false
	}
	for _, t := range f.Tag {
		if v, ok := o.Tags[t.Key]; !ok || v != t.Value {
			return false
		}
	}
	return true
}

// due is when something of an age in days expires: at the midnight that follows, as S3 counts.
func due(from time.Time, days int) time.Time {
	t := from.UTC().AddDate(0, 0, days)
	return t.Truncate(24 * time.Hour).Add(24 * time.Hour)
}

// Expire deletes what a bucket's lifecycle has expire, and says how much.
func Expire(ctx context.Context, objects store.Objects, id store.BucketID, now time.Time) (int, error) {
	b, err := objects.Bucket(ctx, id)
	if err != nil {
		return 0, err
	}
	var conf lifecycleConfiguration
	if data := b.Documents["lifecycle"]; data == nil || xml.Unmarshal(data, &conf) != nil {
		return 0, nil
	}
	total := 0
	for i := range conf.Rules {
		r := &conf.Rules[i]
		if r.Status != "Enabled" {
			continue
		}
		n, err := expireRule(ctx, objects, id, r, now)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

func expireRule(ctx context.Context, objects store.Objects, id store.BucketID, r *lifecycleRule, now time.Time) (total int, err error) {
	f := r.filter()
	if r.Expiration != nil || r.NoncurrentVersionExpiration != nil {
		e := expirer{objects: objects, id: id, rule: r, filter: f, now: now}
		for l := (store.ListObjects{Prefix: f.Prefix, Versions: true, Limit: 1000}); ; {
			page, err := objects.List(ctx, id, l)
			if err != nil {
				return e.total, err
			}
			for _, o := range page.Objects {
				if err := e.look(ctx, o); err != nil {
					return e.total, err
				}
			}
			if !page.More {
				if err := e.end(ctx); err != nil {
					return e.total, err
				}
				break
			}
			l.After, l.AfterVersion = page.NextKey, page.NextVersion
		}
		total = e.total
	}
	if a := r.AbortIncompleteMultipartUpload; a != nil && a.DaysAfterInitiation > 0 {
		for l := (store.ListUploads{Prefix: f.Prefix, Limit: 1000}); ; {
			page, err := objects.Uploads(ctx, id, l)
			if err != nil {
				return total, err
			}
			for _, u := range page.Uploads {
				if now.Before(due(u.Created, a.DaysAfterInitiation)) {
					continue
				}
				if err := objects.AbortUpload(ctx, store.ObjectKey{Bucket: id, Key: u.Key}, u.ID); err != nil && !errors.Is(err, store.ErrNoUpload) {
					return total, err
				}
				total++
			}
			if !page.More {
				break
			}
			l.After, l.AfterID = page.NextKey, page.NextID
		}
	}
	return total, nil
}

// expirer looks at the versions of a bucket, the newest of each key first.
type expirer struct {
	objects store.Objects
	id      store.BucketID
	rule    *lifecycleRule
	filter  lifecycleFilter
	now     time.Time
	total   int

	last     store.ObjectInfo // the version looked at before
	versions int              // of its key, that one included
	older    int              // versions of it that are not the latest
}

func (e *expirer) look(ctx context.Context, o store.ObjectInfo) error {
	if o.Key != e.last.Key || e.versions == 0 {
		if err := e.end(ctx); err != nil {
			return err
		}
		e.versions, e.older = 0, 0
	}
	newer := e.last
	e.versions++
	e.last = o
	if o.Latest {
		if x := e.rule.Expiration; x != nil && !o.Marker && e.filter.fits(o) && e.expired(o, x.days(), x.Date) {
			return e.delete(ctx, o, "")
		}
		return nil
	}
	e.older++
	n := e.rule.NoncurrentVersionExpiration
	if n == nil || n.NoncurrentDays <= 0 || !e.filter.fits(o) || e.older <= n.NewerNoncurrentVersions {
		return nil
	}
	if e.now.Before(due(newer.Modified, n.NoncurrentDays)) { // since the version above it is there
		return nil
	}
	return e.delete(ctx, o, o.Version)
}

func (e *expirer) expired(o store.ObjectInfo, days int, date string) bool {
	if date != "" {
		t, err := time.Parse(time.RFC3339, date)
		return err == nil && !e.now.Before(t)
	}
	return days > 0 && !e.now.Before(due(o.Modified, days))
}

// end looks at a key as a whole: a marker that marks nothing goes, at once or when it is as old as what expires.
func (e *expirer) end(ctx context.Context) error {
	x := e.rule.Expiration
	if x == nil || e.versions != 1 || !e.last.Marker || len(e.filter.Tag) > 0 || !strings.HasPrefix(e.last.Key, e.filter.Prefix) {
		return nil
	}
	if !x.ExpiredObjectDeleteMarker && !e.expired(e.last, x.days(), x.Date) {
		return nil
	}
	return e.delete(ctx, e.last, e.last.Version)
}

func (e *expirer) delete(ctx context.Context, o store.ObjectInfo, version string) error {
	d := store.DeleteObject{Version: version, Event: store.ObjectEvent{Name: "LifecycleExpiration:Delete", Principal: "lifecycle"}, MarkerEvent: "LifecycleExpiration:DeleteMarkerCreated"}
	if version == "" {
		d.Condition.IfMatch = o.ETag // not one that was put meanwhile
	}
	_, err := e.objects.Delete(ctx, store.ObjectKey{Bucket: e.id, Key: o.Key}, d)
	if err != nil && !errors.Is(err, store.ErrLocked) && !errors.Is(err, store.ErrPrecondition) && !errors.Is(err, store.ErrNoObject) {
		return err
	}
	if err == nil {
		e.total++
	}
	return nil
}

package s3_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/s3"
)

// years is a bucket with a clock of its own.
type years struct {
	store.Objects
	t   *testing.T
	now atomic.Pointer[time.Time]
}

func newYears(t *testing.T, rule string) *years {
	t.Helper()
	y := &years{t: t}
	y.set("2026-03-01T10:00:00Z")
	y.Objects = open(t, func() time.Time { return *y.now.Load() })
	b := store.Bucket{Versioning: store.Versioned, Documents: map[string][]byte{"lifecycle": []byte("<LifecycleConfiguration>" + rule + "</LifecycleConfiguration>")}}
	if err := y.CreateBucket(t.Context(), bucket, b); err != nil {
		t.Fatal(err)
	}
	return y
}

func (y *years) set(at string) {
	y.t.Helper()
	now, err := time.Parse(time.RFC3339, at)
	if err != nil {
		y.t.Fatal(err)
	}
	y.now.Store(&now)
}

func (y *years) put(key, data string, tags map[string]string) {
	y.t.Helper()
	if _, err := y.Put(y.t.Context(), store.ObjectKey{Bucket: bucket, Key: key}, store.PutObject{Body: strings.NewReader(data), ObjectMeta: store.ObjectMeta{Tags: tags}}); err != nil {
		y.t.Fatal(err)
	}
}

func (y *years) delete(key string) {
	y.t.Helper()
	if _, err := y.Delete(y.t.Context(), store.ObjectKey{Bucket: bucket, Key: key}, store.DeleteObject{}); err != nil {
		y.t.Fatal(err)
	}
}

// expire expires at a moment, and gives how many went and what is left: the versions of each key, newest first, "-" for a marker, else the size.
func (y *years) expire(at string) (int, string) {
	y.t.Helper()
	y.set(at)
	n, err := s3.Expire(y.t.Context(), y, bucket, *y.now.Load())
	if err != nil {
		y.t.Fatal(err)
	}
	page, err := y.List(y.t.Context(), bucket, store.ListObjects{Versions: true, Limit: 1000})
	if err != nil {
		y.t.Fatal(err)
	}
	var out []string
	for _, o := range page.Objects {
		text := string(rune('0' + o.Size))
		if o.Marker {
			text = "-"
		}
		out = append(out, o.Key+text)
	}
	return n, strings.Join(out, " ")
}

const enabled = "<Status>Enabled</Status>"

func rule(inner string) string { return "<Rule>" + enabled + inner + "</Rule>" }

// Days end at the midnight that follows: S3 guide, "How S3 Lifecycle calculates how long an object has been noncurrent".
func TestLifecycle_ExpiresByAgeAndDate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, rule, before, at, left string
	}{
		{"days", rule("<Filter/><Expiration><Days>2</Days></Expiration>"), "2026-03-03T23:59:59Z", "2026-03-04T00:00:00Z", "k- k1"},
		{"older form", rule("<Prefix>k</Prefix><Expiration><Days>2</Days></Expiration>"), "2026-03-03T23:59:59Z", "2026-03-04T00:00:00Z", "k- k1"},
		{"date", rule("<Filter/><Expiration><Date>2026-04-01T00:00:00Z</Date></Expiration>"), "2026-03-31T23:59:59Z", "2026-04-01T00:00:00Z", "k- k1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			y := newYears(t, c.rule)
			y.put("k", "1", nil)
			if n, left := y.expire(c.before); n != 0 || left != "k1" {
				t.Errorf("before: %d went, left %s", n, left)
			}
			if n, left := y.expire(c.at); n != 1 || left != c.left {
				t.Errorf("%d went, left %s, want %s", n, left, c.left)
			}
			if n, left := y.expire(c.at); n != 0 || left != c.left {
				t.Errorf("again: %d went, left %s", n, left)
			}
		})
	}
}

func TestLifecycle_ExpiresWhatItsFilterFits(t *testing.T) {
	t.Parallel()
	const expire = "<Expiration><Days>1</Days></Expiration>"
	for _, c := range []struct{ name, rule, left string }{
		{"all", rule("<Filter/>" + expire), ""},
		{"disabled", "<Rule><Status>Disabled</Status><Filter/>" + expire + "</Rule>", "a/x b/x big small tagged"},
		{"prefix", rule("<Filter><Prefix>a/</Prefix></Filter>" + expire), "b/x big small tagged"},
		{"tag", rule("<Filter><Tag><Key>t</Key><Value>1</Value></Tag></Filter>" + expire), "a/x b/x big small"},
		{"other tag", rule("<Filter><Tag><Key>t</Key><Value>2</Value></Tag></Filter>" + expire), "a/x b/x big small tagged"},
		{"larger", rule("<Filter><ObjectSizeGreaterThan>3</ObjectSizeGreaterThan></Filter>" + expire), "a/x b/x small tagged"},
		{"smaller", rule("<Filter><ObjectSizeLessThan>3</ObjectSizeLessThan></Filter>" + expire), "a/x b/x big tagged"},
		{"all of several", rule("<Filter><And><Prefix>a/</Prefix><ObjectSizeGreaterThan>1</ObjectSizeGreaterThan><ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter>" + expire), "b/x big small tagged"},
		{"two rules", rule("<Filter><Prefix>a/</Prefix></Filter>"+expire) + rule("<Filter><Prefix>b/</Prefix></Filter>"+expire), "big small tagged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			y := newYears(t, c.rule)
			for key, data := range map[string]string{"a/x": "333", "b/x": "333", "big": "55555", "small": "1"} {
				y.put(key, data, nil)
			}
			y.put("tagged", "333", map[string]string{"t": "1", "u": "2"})
			y.expire("2026-03-05T00:00:00Z")
			page, err := y.List(t.Context(), bucket, store.ListObjects{Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, o := range page.Objects {
				left = append(left, o.Key)
			}
			if got := strings.Join(left, " "); got != c.left {
				t.Errorf("left %q, want %q", got, c.left)
			}
		})
	}
}

// A version is noncurrent since the one above it came.
func TestLifecycle_ExpiresNoncurrentVersions(t *testing.T) {
	t.Parallel()
	y := newYears(t, rule("<Filter/><NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration>"))
	y.put("k", "1", nil)
	y.set("2026-03-02T10:00:00Z")
	y.put("k", "22", nil) // 1 is noncurrent from here
	y.set("2026-03-03T10:00:00Z")
	y.put("k", "333", nil)
	if n, left := y.expire("2026-03-04T23:59:59Z"); n != 0 || left != "k3 k2 k1" {
		t.Errorf("before: %d went, left %s", n, left)
	}
	if n, left := y.expire("2026-03-05T00:00:00Z"); n != 1 || left != "k3 k2" {
		t.Errorf("%d went, left %s; one noncurrent version is to stay", n, left)
	}
	if n, left := y.expire("2027-01-01T00:00:00Z"); n != 0 || left != "k3 k2" {
		t.Errorf("later: %d went, left %s", n, left)
	}
}

func TestLifecycle_RemovesMarkersThatMarkNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rule, soon, late string }{
		{rule("<Filter/><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"), "k- k1", "k- k1"},
		{rule("<Filter/><Expiration><Days>5</Days></Expiration>"), "k- k1 lone-", "k- k1"},
	} {
		y := newYears(t, c.rule)
		y.put("k", "1", nil)
		y.delete("k")
		y.delete("lone")
		if _, left := y.expire("2026-03-01T11:00:00Z"); left != c.soon {
			t.Errorf("%s: left %s, want %s", c.rule, left, c.soon)
		}
		if _, left := y.expire("2026-03-09T00:00:00Z"); left != c.late {
			t.Errorf("%s: later left %s, want %s", c.rule, left, c.late)
		}
	}
}

func TestLifecycle_AbortsOldUploads(t *testing.T) {
	t.Parallel()
	y := newYears(t, rule("<Filter><Prefix>in/</Prefix></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"))
	begin := func(key string) {
		u, err := y.CreateUpload(t.Context(), store.ObjectKey{Bucket: bucket, Key: key}, store.CreateUpload{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := y.PutPart(t.Context(), store.ObjectKey{Bucket: bucket, Key: key}, u.ID, 1, store.PutPart{Body: strings.NewReader("x")}); err != nil {
			t.Fatal(err)
		}
	}
	begin("in/old")
	begin("out/old")
	y.set("2026-03-02T10:00:00Z")
	begin("in/new")
	if n, _ := y.expire("2026-03-03T00:00:00Z"); n != 1 {
		t.Errorf("%d went", n)
	}
	list, err := y.Uploads(t.Context(), bucket, store.ListUploads{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, u := range list.Uploads {
		left = append(left, u.Key)
	}
	if !slices.Equal(left, []string{"in/new", "out/old"}) {
		t.Errorf("left %q", left)
	}
}

// More than a page of keys, and versions that are locked: those stay, and end nothing.
func TestLifecycle_GoesThroughAllPagesAndLeavesWhatIsLocked(t *testing.T) {
	t.Parallel()
	y := newYears(t, rule("<Filter/><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>"))
	for range 1002 {
		y.put("k", "1", nil)
	}
	key := store.ObjectKey{Bucket: bucket, Key: "k"}
	if _, err := y.Update(t.Context(), key, "", store.ObjectEvent{}, func(m *store.ObjectMeta) error { m.Hold = true; return nil }); err != nil {
		t.Fatal(err)
	}
	y.put("k", "22", nil)
	if n, left := y.expire("2026-04-01T00:00:00Z"); n != 1001 || left != "k2 k1" {
		t.Errorf("%d went, left %s", n, left)
	}
}

func TestLifecycle_RefusesWhatS3DoesNotTake(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	const days = "<Expiration><Days>1</Days></Expiration>"
	for _, c := range []struct{ rules, code string }{
		{"", "MalformedXML"},
		{"<Rule><Filter/>" + days + "</Rule>", "MalformedXML"},
		{rule("<Filter/>"), "InvalidRequest"},
		{rule("<Filter/><Expiration><Days>0</Days></Expiration>"), "InvalidArgument"},
		{rule("<Filter/><Expiration><Days>x</Days></Expiration>"), "MalformedXML"},
		{rule("<Filter/><Expiration><Date>2026-01-01T01:00:00Z</Date></Expiration>"), "InvalidArgument"},
		{rule("<Filter/><Expiration><Date>soon</Date></Expiration>"), "MalformedXML"},
		{rule("<Filter/><Expiration><Days>1</Days><Date>2026-01-01T00:00:00Z</Date></Expiration>"), "MalformedXML"},
		{rule("<Filter/><NoncurrentVersionExpiration><NoncurrentDays>0</NoncurrentDays></NoncurrentVersionExpiration>"), "InvalidArgument"},
		{rule("<Filter/><AbortIncompleteMultipartUpload><DaysAfterInitiation>0</DaysAfterInitiation></AbortIncompleteMultipartUpload>"), "InvalidArgument"},
		{rule("<Filter><Tag><Key>a</Key><Value/></Tag></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"), "InvalidRequest"},
		{rule("<Filter><Tag><Key>a</Key><Value/></Tag></Filter><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"), "InvalidRequest"},
		{rule("<Filter><Prefix>a</Prefix><ObjectSizeLessThan>1</ObjectSizeLessThan></Filter>" + days), "MalformedXML"},
		{rule("<Prefix>a</Prefix><Filter><Prefix>a</Prefix></Filter>" + days), "MalformedXML"},
		{rule("<Filter><And><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan><ObjectSizeLessThan>5</ObjectSizeLessThan></And></Filter>" + days), "InvalidRequest"},
		{rule("<ID>a</ID><Filter/>"+days) + rule("<ID>a</ID><Filter/>"+days), "InvalidArgument"},
		{strings.Repeat(rule("<Filter/>"+days), 1001), "MalformedXML"},
	} {
		if _, text := do(t, e, "PUT", "/bucket?lifecycle", "<LifecycleConfiguration>"+c.rules+"</LifecycleConfiguration>", 400); !strings.Contains(text, "<Code>"+c.code+"</Code>") {
			t.Errorf("%.200s: %s, want %s", c.rules, text, c.code)
		}
	}
	if n, err := s3.Expire(context.Background(), open(t, nil), bucket, time.Now()); n != 0 || err == nil {
		t.Errorf("of a bucket that is not there %d went: %v", n, err)
	}
}

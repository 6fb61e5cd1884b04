// Package storetest holds implementations of the store's contracts to what the contracts say.
//
// Main functions: one Run for each contract. They use only the contract.
package storetest

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ebb-run/ebb/internal/store"
)

// RunObjects holds an implementation of [store.Objects] to what the contract says. Each test gets a new one from open.
func RunObjects(t *testing.T, open func(*testing.T) store.Objects) {
	for name, test := range map[string]func(*testing.T, objects){
		"PutAndRead": putAndRead, "Conditions": conditions, "Versions": versions, "Suspended": suspended, "Delete": deletes, "Buckets": buckets,
		"List": lists, "ListVersions": listVersions, "ListMany": listMany, "Multipart": multipart, "MultipartFaults": multipartFaults, "Copy": copies,
		"CopyPart": copyPart, "Checksums": checksums, "Uploads": uploads, "Changes": changes, "Update": update, "Locks": locks,
		"DeletedWhileRead": deletedWhileRead, "OneWinner": oneWinner, "FailedBody": failedBody, "Names": names,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := objects{Objects: open(t), b: store.BucketID{Tenant: "default", Name: "bucket"}}
			if err := o.CreateBucket(t.Context(), o.b, store.Bucket{Notify: true}); err != nil {
				t.Fatal(err)
			}
			test(t, o)
		})
	}
}

// objects is one under test, with a bucket.
type objects struct {
	store.Objects
	b store.BucketID
}

func (o objects) key(k string) store.ObjectKey { return store.ObjectKey{Bucket: o.b, Key: k} }

func (o objects) put(t *testing.T, key, data string) store.ObjectInfo {
	t.Helper()
	info, err := o.Put(t.Context(), o.key(key), store.PutObject{Body: strings.NewReader(data), Event: store.ObjectEvent{Name: "put"}})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return info
}

func (o objects) get(t *testing.T, key, version string) string {
	t.Helper()
	obj, err := o.Open(t.Context(), o.key(key), version)
	if err != nil {
		t.Fatalf("open %s: %v", key, err)
	}
	defer obj.Close()
	var b bytes.Buffer
	if err := obj.Read(t.Context(), &b, 0, obj.Info().Size); err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return b.String()
}

func (o objects) del(t *testing.T, key, version string) store.Deleted {
	t.Helper()
	d, err := o.Delete(t.Context(), o.key(key), store.DeleteObject{Version: version, Event: store.ObjectEvent{Name: "delete"}, MarkerEvent: "marker"})
	if err != nil {
		t.Fatalf("delete %s: %v", key, err)
	}
	return d
}

func (o objects) versioning(t *testing.T, v store.Versioning) {
	t.Helper()
	if err := o.SetBucket(t.Context(), o.b, func(b *store.Bucket) error { b.Versioning = v; return nil }); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("error %v, want %v", got, want)
	}
}

func same[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

// noise is data that repeats nowhere.
func noise(n int) string {
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return string(b)
}

func tag(data string) string {
	sum := md5.Sum([]byte(data))
	return hex.EncodeToString(sum[:])
}

// sizes are those at which something may change in how data are kept.
var sizes = []int{0, 1, 100, 16<<10 - 1, 16 << 10, 16<<10 + 1, 65531, 65532, 65533, 65536, 131064, 131065, 300_000, 1 << 20}

func putAndRead(t *testing.T, o objects) {
	for _, n := range sizes {
		key, data := fmt.Sprint("k", n), noise(n)
		info := o.put(t, key, data)
		same(t, "ETag", info.ETag, tag(data))
		same(t, "size", info.Size, int64(n))
		same(t, "version", info.Version, store.NullVersion)
		if got := o.get(t, key, ""); got != data {
			t.Errorf("%d bytes come back otherwise", n)
		}
		obj, err := o.Open(t.Context(), o.key(key), "")
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			from := rand.IntN(n + 1)
			length := rand.IntN(n - from + 1)
			var b bytes.Buffer
			if err := obj.Read(t.Context(), &b, int64(from), int64(length)); err != nil {
				t.Fatal(err)
			}
			if b.String() != data[from:from+length] {
				t.Errorf("range %d+%d of %d comes back otherwise", from, length, n)
			}
		}
		if err := obj.Read(t.Context(), io.Discard, int64(n), 1); err == nil {
			t.Error("a range beyond the end is read")
		}
		if err := errors.Join(obj.Close(), obj.Close()); err != nil {
			t.Error(err)
		}
	}
	o.put(t, "k100", "other")
	same(t, "what replaced it", o.get(t, "k100", ""), "other")
	_, err := o.Open(t.Context(), o.key("none"), "")
	want(t, err, store.ErrNoObject)
	_, err = o.Head(t.Context(), o.key("k1"), "nonsense")
	want(t, err, store.ErrNoVersion)
	_, err = o.Put(t.Context(), store.ObjectKey{Bucket: store.BucketID{Tenant: "default", Name: "none"}, Key: "k"}, store.PutObject{Body: strings.NewReader("")})
	want(t, err, store.ErrNoBucket)
	_, err = o.Open(t.Context(), store.ObjectKey{Bucket: store.BucketID{Tenant: "other", Name: "bucket"}, Key: "k1"}, "")
	want(t, err, store.ErrNoBucket)
}

func conditions(t *testing.T, o objects) {
	try := func(c store.ObjectCondition) error {
		_, err := o.Put(t.Context(), o.key("k"), store.PutObject{Body: strings.NewReader("new"), Condition: c})
		return err
	}
	want(t, try(store.ObjectCondition{IfMatch: tag("old")}), store.ErrNoObject)
	want(t, try(store.ObjectCondition{IfNoneMatch: "*"}), nil)
	want(t, try(store.ObjectCondition{IfNoneMatch: "*"}), store.ErrPrecondition)
	want(t, try(store.ObjectCondition{IfMatch: tag("old")}), store.ErrPrecondition)
	want(t, try(store.ObjectCondition{IfMatch: tag("new")}), nil)
	want(t, try(store.ObjectCondition{IfMatch: "*"}), nil)
	_, err := o.Delete(t.Context(), o.key("k"), store.DeleteObject{Condition: store.ObjectCondition{IfMatch: tag("old")}})
	want(t, err, store.ErrPrecondition)
	_, err = o.Delete(t.Context(), o.key("k"), store.DeleteObject{Condition: store.ObjectCondition{IfMatch: tag("new")}})
	want(t, err, nil)
	want(t, try(store.ObjectCondition{IfNoneMatch: "*"}), nil)
	failed := errors.New("not what was announced")
	_, err = o.Put(t.Context(), o.key("k"), store.PutObject{Body: strings.NewReader("x"), Verify: func(store.ObjectSums) error { return failed }})
	want(t, err, failed)
	same(t, "what stands", o.get(t, "k", ""), "new")
}

func versions(t *testing.T, o objects) {
	o.put(t, "k", "null")
	o.versioning(t, store.Versioned)
	one, two := o.put(t, "k", "one"), o.put(t, "k", "two")
	if one.Version == two.Version || one.Version == store.NullVersion {
		t.Errorf("versions %q and %q", one.Version, two.Version)
	}
	same(t, "latest", o.get(t, "k", ""), "two")
	same(t, "first", o.get(t, "k", one.Version), "one")
	same(t, "null", o.get(t, "k", store.NullVersion), "null")
	d := o.del(t, "k", "")
	same(t, "marker", d.Marker, true)
	obj, err := o.Open(t.Context(), o.key("k"), "")
	want(t, err, store.ErrNoObject)
	if obj == nil || !obj.Info().Marker || obj.Info().Version != d.Version {
		t.Errorf("a marker opens as %+v", obj)
	}
	obj.Close()
	info, err := o.Head(t.Context(), o.key("k"), "")
	want(t, err, nil)
	same(t, "marker in head", info.Marker, true)
	same(t, "first under a marker", o.get(t, "k", one.Version), "one")
	if d := o.del(t, "k", d.Version); !d.Marker {
		t.Error("the deletion of a marker does not say so")
	}
	same(t, "latest again", o.get(t, "k", ""), "two")
	o.del(t, "k", two.Version)
	same(t, "latest after a deletion", o.get(t, "k", ""), "one")
	o.del(t, "k", one.Version)
	same(t, "latest after two", o.get(t, "k", ""), "null")
	o.del(t, "k", store.NullVersion)
	_, err = o.Head(t.Context(), o.key("k"), "")
	want(t, err, store.ErrNoObject)
	same(t, "found", o.del(t, "k", one.Version).Found, false)
}

func suspended(t *testing.T, o objects) {
	o.versioning(t, store.Versioned)
	one := o.put(t, "k", "one")
	o.versioning(t, store.Suspended)
	same(t, "version", o.put(t, "k", "a").Version, store.NullVersion)
	o.put(t, "k", "b")
	same(t, "null", o.get(t, "k", store.NullVersion), "b")
	same(t, "latest", o.get(t, "k", ""), "b")
	same(t, "first", o.get(t, "k", one.Version), "one")
	same(t, "marker", o.del(t, "k", "").Version, store.NullVersion)
	list, err := o.List(t.Context(), o.b, store.ListObjects{Versions: true, Limit: 10})
	want(t, err, nil)
	same(t, "number of versions", len(list.Objects), 2)
	o.versioning(t, store.Versioned)
	o.put(t, "k", "two")
	o.versioning(t, store.Suspended)
	o.put(t, "k", "c") // takes the place of the marker below "two"
	list, err = o.List(t.Context(), o.b, store.ListObjects{Versions: true, Limit: 10})
	want(t, err, nil)
	same(t, "number of versions", len(list.Objects), 3)
	latest := 0
	for _, v := range list.Objects {
		if v.Latest {
			latest++
		}
	}
	same(t, "number of latest versions", latest, 1)
	same(t, "latest", o.get(t, "k", ""), "c")
}

func deletes(t *testing.T, o objects) {
	same(t, "found", o.del(t, "k", "").Found, false)
	o.put(t, "k", noise(100_000))
	d := o.del(t, "k", "")
	if !d.Found || d.Marker || d.Version != "" {
		t.Errorf("a deletion says %+v", d)
	}
	_, err := o.Open(t.Context(), o.key("k"), "")
	want(t, err, store.ErrNoObject)
}

func buckets(t *testing.T, o objects) {
	other := store.BucketID{Tenant: "default", Name: "another"}
	want(t, o.CreateBucket(t.Context(), o.b, store.Bucket{}), store.ErrBucketExists)
	want(t, o.CreateBucket(t.Context(), other, store.Bucket{Versioning: store.Versioned, Tags: map[string]string{"a": "b"}}), nil)
	want(t, o.CreateBucket(t.Context(), store.BucketID{Tenant: "t2", Name: "bucket"}, store.Bucket{}), nil)
	list, err := o.Buckets(t.Context(), "default")
	want(t, err, nil)
	if len(list) != 2 || list[0].Name != "another" || list[1].Name != "bucket" || list[0].Created.IsZero() || list[0].Tags["a"] != "b" || list[0].Versioning != store.Versioned {
		t.Errorf("the buckets are %+v", list)
	}
	failed := errors.New("no")
	want(t, o.SetBucket(t.Context(), other, func(b *store.Bucket) error { b.Notify = true; return failed }), failed)
	want(t, o.SetBucket(t.Context(), other, func(b *store.Bucket) error { b.Documents = map[string][]byte{"cors": {0, 1}}; return nil }), nil)
	b, err := o.Bucket(t.Context(), other)
	want(t, err, nil)
	if b.Notify || !bytes.Equal(b.Documents["cors"], []byte{0, 1}) || b.Tags["a"] != "b" {
		t.Errorf("the bucket is %+v", b)
	}
	o.put(t, "k", "x")
	want(t, o.DeleteBucket(t.Context(), o.b), store.ErrBucketNotEmpty)
	o.del(t, "k", "")
	want(t, o.DeleteBucket(t.Context(), o.b), nil)
	want(t, o.DeleteBucket(t.Context(), o.b), store.ErrNoBucket)
	_, err = o.Bucket(t.Context(), o.b)
	want(t, err, store.ErrNoBucket)
	want(t, o.SetBucket(t.Context(), o.b, func(*store.Bucket) error { return nil }), store.ErrNoBucket)
	_, err = o.List(t.Context(), o.b, store.ListObjects{Limit: 1})
	want(t, err, store.ErrNoBucket)
}

func update(t *testing.T, o objects) {
	was := o.put(t, "k", "data")
	info, err := o.Update(t.Context(), o.key("k"), "", store.ObjectEvent{}, func(m *store.ObjectMeta) error { m.Tags = map[string]string{"a": "b"}; return nil })
	want(t, err, nil)
	same(t, "tag", info.Tags["a"], "b")
	info, err = o.Head(t.Context(), o.key("k"), "")
	want(t, err, nil)
	same(t, "tag", info.Tags["a"], "b")
	same(t, "time", info.Modified, was.Modified)
	same(t, "data", o.get(t, "k", ""), "data")
	_, err = o.Update(t.Context(), o.key("none"), "", store.ObjectEvent{}, func(*store.ObjectMeta) error { return nil })
	want(t, err, store.ErrNoObject)
	meta := store.ObjectMeta{Headers: map[string]string{"content-type": "a/b"}, User: map[string]string{"x": "é"}}
	_, err = o.Put(t.Context(), o.key("m"), store.PutObject{Body: strings.NewReader("x"), ObjectMeta: meta})
	want(t, err, nil)
	info, err = o.Head(t.Context(), o.key("m"), "")
	want(t, err, nil)
	if info.Headers["content-type"] != "a/b" || info.User["x"] != "é" {
		t.Errorf("it is said %+v", info.ObjectMeta)
	}
}

func locks(t *testing.T, o objects) {
	o.versioning(t, store.Versioned)
	v := o.put(t, "k", "data").Version
	set := func(change func(m *store.ObjectMeta)) {
		_, err := o.Update(t.Context(), o.key("k"), v, store.ObjectEvent{}, func(m *store.ObjectMeta) error { change(m); return nil })
		want(t, err, nil)
	}
	set(func(m *store.ObjectMeta) { m.Hold = true })
	_, err := o.Delete(t.Context(), o.key("k"), store.DeleteObject{Version: v, Bypass: true})
	want(t, err, store.ErrLocked)
	info, err := o.Head(t.Context(), o.key("k"), v)
	want(t, err, nil)
	set(func(m *store.ObjectMeta) {
		m.Hold, m.Until, m.Mode = false, info.Modified.AddDate(1, 0, 0), "GOVERNANCE"
	})
	_, err = o.Delete(t.Context(), o.key("k"), store.DeleteObject{Version: v})
	want(t, err, store.ErrLocked)
	same(t, "marker over a lock", o.del(t, "k", "").Marker, true)
	_, err = o.Delete(t.Context(), o.key("k"), store.DeleteObject{Version: v, Bypass: true})
	want(t, err, nil)
}

func deletedWhileRead(t *testing.T, o objects) {
	big, small := noise(500_000), noise(100)
	o.put(t, "big", big)
	o.put(t, "small", small)
	for key, data := range map[string]string{"big": big, "small": small} {
		obj, err := o.Open(t.Context(), o.key(key), "")
		if err != nil {
			t.Fatal(err)
		}
		o.put(t, key, "other")
		o.del(t, key, "")
		for range 3 { // others' files come and go
			o.put(t, "next", noise(70_000))
		}
		var b bytes.Buffer
		if err := obj.Read(t.Context(), &b, 0, int64(len(data))); err != nil || b.String() != data {
			t.Errorf("%s cannot be read after it was deleted: %v", key, err)
		}
		obj.Close()
	}
}

func oneWinner(t *testing.T, o objects) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 16 {
		wg.Go(func() {
			_, err := o.Put(t.Context(), o.key("k"), store.PutObject{Body: strings.NewReader(noise(20_000 * (i % 3))), Condition: store.ObjectCondition{IfNoneMatch: "*"}})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, store.ErrPrecondition) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	same(t, "number of winners", won, 1)
}

func failedBody(t *testing.T, o objects) {
	o.put(t, "k", "old")
	gone := errors.New("the sender is gone")
	for _, n := range []int{0, 100, 65532, 200_000} {
		_, err := o.Put(t.Context(), o.key("k"), store.PutObject{Body: io.MultiReader(strings.NewReader(noise(n)), failing{gone})})
		want(t, err, gone)
		_, err = o.Put(t.Context(), o.key("k"), store.PutObject{Body: io.MultiReader(strings.NewReader(noise(n)), failing{io.ErrUnexpectedEOF})})
		want(t, err, io.ErrUnexpectedEOF)
	}
	same(t, "what stands", o.get(t, "k", ""), "old")
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func names(t *testing.T, o objects) {
	all := []string{"..", ".", "/", "//", "a/../b", "a//b", "/a", "a/", "é/ü", "日本語", "a\x00b", "a\tb\n", "%2F", "a b+c", "😀", "\\", "a'b\"c", strings.Repeat("k", store.MaxKey)}
	for _, key := range all {
		o.put(t, key, key)
	}
	for _, key := range all {
		same(t, "data", o.get(t, key, ""), key)
	}
	list, err := o.List(t.Context(), o.b, store.ListObjects{Limit: 1000})
	want(t, err, nil)
	var got []string
	for _, i := range list.Objects {
		got = append(got, i.Key)
	}
	slices.Sort(all)
	if !slices.Equal(got, all) {
		t.Errorf("keys %q, want %q", got, all)
	}
}

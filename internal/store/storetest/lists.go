package storetest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/checksum"
	"github.com/ebb-run/ebb/internal/store"
)

// all lists page by page and gives keys, common prefixes marked by a ">".
func (o objects) all(t *testing.T, l store.ListObjects) []string {
	t.Helper()
	var out []string
	for {
		list, err := o.List(t.Context(), o.b, l)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(list.Objects) + len(list.Prefixes); n > l.Limit || list.More && n < l.Limit {
			t.Fatalf("a page of %d, the limit is %d, more: %v", n, l.Limit, list.More)
		}
		var page []string
		for _, i := range list.Objects {
			name := i.Key
			if l.Versions {
				name += "@" + i.Version
			}
			page = append(page, name)
		}
		for _, p := range list.Prefixes {
			page = append(page, ">"+p)
		}
		out = append(out, page...)
		if !list.More {
			return out
		}
		l.After, l.AfterVersion = list.NextKey, list.NextVersion
	}
}

func lists(t *testing.T, o objects) {
	for _, k := range []string{"a", "a/", "a/b", "a/b/c", "a/c", "a0", "b/x", "b/y", "c", "ab/1", "ab/2", "\xc3\xbf", "\xf0\x9f\x98\x80"} {
		o.put(t, k, k)
	}
	o.put(t, "gone", "x")
	o.del(t, "gone", "")
	for _, test := range []struct {
		name, want string
		l          store.ListObjects
	}{
		{"everything", "a a/ a/b a/b/c a/c a0 ab/1 ab/2 b/x b/y c \xc3\xbf \xf0\x9f\x98\x80", store.ListObjects{}},
		{"prefix", "a/ a/b a/b/c a/c", store.ListObjects{Prefix: "a/"}},
		{"delimiter", ">a/ >ab/ >b/ a a0 c \xc3\xbf \xf0\x9f\x98\x80", store.ListObjects{Delimiter: "/"}},
		{"prefix and delimiter", ">a/b/ a/ a/b a/c", store.ListObjects{Prefix: "a/", Delimiter: "/"}},
		{"prefix without the delimiter's end", ">a/ >ab/ a a0", store.ListObjects{Prefix: "a", Delimiter: "/"}},
		{"after", "b/x b/y c", store.ListObjects{After: "ab/2", Prefix: ""}},
		{"after a common prefix", ">ab/ >b/ a0 c", store.ListObjects{After: "a/", Delimiter: "/"}},
		{"after a key below a common prefix", ">a/ >ab/ >b/ a0 c", store.ListObjects{After: "a/b", Delimiter: "/"}},
		{"after what is below the prefix", "b/x b/y", store.ListObjects{After: "a", Prefix: "b"}},
		{"after what is above the prefix", "", store.ListObjects{After: "c", Prefix: "b"}},
		{"long delimiter", ">a/b a a/ a/c a0 ab/1 ab/2 b/x b/y c", store.ListObjects{Delimiter: "/b"}},
		{"no such", "", store.ListObjects{Prefix: "zz"}},
	} {
		for _, limit := range []int{1, 2, 3, 1000} {
			test.l.Limit = limit
			got := o.all(t, test.l)
			slices.Sort(got)
			if test.name != "everything" && test.name != "delimiter" {
				got = slices.DeleteFunc(got, func(k string) bool { return k > "\xc0" })
			}
			if s := strings.Join(got, " "); s != test.want {
				t.Errorf("%s, %d at a time: %q, want %q", test.name, limit, s, test.want)
			}
		}
	}
	list, err := o.List(t.Context(), o.b, store.ListObjects{Limit: 0})
	if err != nil || len(list.Objects) > 0 || list.More {
		t.Errorf("a list of none is %+v, %v", list, err)
	}
}

func listVersions(t *testing.T, o objects) {
	var wanted []string
	o.put(t, "k1", "null")
	o.versioning(t, store.Versioned)
	for i := range 3 {
		key := fmt.Sprint("k", i)
		var of []string
		if i == 1 {
			of = append(of, "k1@null")
		}
		for range 3 {
			of = append(of, key+"@"+o.put(t, key, "x").Version)
		}
		if i == 2 {
			of = append(of, key+"@"+o.del(t, key, "").Version)
		}
		slices.Reverse(of)
		wanted = append(wanted, of...)
	}
	for _, limit := range []int{1, 2, 3, 100} {
		if got := o.all(t, store.ListObjects{Versions: true, Limit: limit}); !slices.Equal(got, wanted) {
			t.Errorf("%d at a time: %q, want %q", limit, got, wanted)
		}
	}
	if got := o.all(t, store.ListObjects{Limit: 10}); !slices.Equal(got, []string{"k0", "k1"}) {
		t.Errorf("the latest are %q", got)
	}
	if got := o.all(t, store.ListObjects{Versions: true, After: "k1", Limit: 100}); !slices.Equal(got, wanted[7:]) {
		t.Errorf("after k1 there are %q, want %q", got, wanted[7:])
	}
}

// listMany compares with a plain list, at more keys than are read at a time.
func listMany(t *testing.T, o objects) {
	var keys []string
	for i := range 1300 {
		keys = append(keys, fmt.Sprintf("d%d/%s%d", i%3, strings.Repeat("x/", i%2), i))
	}
	for i := 0; i < len(keys); i += 50 {
		done := make(chan error, 50)
		for _, k := range keys[i:min(i+50, len(keys))] {
			go func(ctx context.Context) {
				_, err := o.Put(ctx, o.key(k), store.PutObject{Body: strings.NewReader("x")})
				done <- err
			}(t.Context())
		}
		for range min(50, len(keys)-i) {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Sort(keys)
	for range 30 {
		l := store.ListObjects{Prefix: []string{"", "d", "d1/", "d1/x/", "d2"}[rand.IntN(5)], Delimiter: []string{"", "/", "x/"}[rand.IntN(3)], Limit: []int{7, 100, 1000}[rand.IntN(3)]}
		var wanted []string
		last := ""
		for _, k := range keys {
			rest, ok := strings.CutPrefix(k, l.Prefix)
			if !ok {
				continue
			}
			if i := strings.Index(rest, l.Delimiter); l.Delimiter != "" && i >= 0 {
				if p := l.Prefix + rest[:i+len(l.Delimiter)]; p != last {
					last, wanted = p, append(wanted, ">"+p)
				}
				continue
			}
			wanted = append(wanted, k)
		}
		got := o.all(t, l)
		slices.Sort(got)
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) {
			t.Fatalf("%+v: %d entries, want %d", l, len(got), len(wanted))
		}
	}
}

func (o objects) upload(t *testing.T, key string, u store.CreateUpload, parts ...string) (string, []store.PartInfo) {
	t.Helper()
	up, err := o.CreateUpload(t.Context(), o.key(key), u)
	if err != nil {
		t.Fatal(err)
	}
	var out []store.PartInfo
	for i, data := range parts {
		p, err := o.PutPart(t.Context(), o.key(key), up.ID, i+1, store.PutPart{Body: strings.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return up.ID, out
}

func multipart(t *testing.T, o objects) {
	a, b, c := noise(store.MinPart), noise(store.MinPart+77), noise(1000)
	meta := store.ObjectMeta{User: map[string]string{"who": "me"}}
	id, parts := o.upload(t, "k", store.CreateUpload{ObjectMeta: meta}, "first try", b, c)
	first, err := o.PutPart(t.Context(), o.key("k"), id, 1, store.PutPart{Body: strings.NewReader(a)})
	want(t, err, nil)
	parts[0] = first
	_, err = o.Head(t.Context(), o.key("k"), "")
	want(t, err, store.ErrNoObject)
	have, more, err := o.Parts(t.Context(), o.key("k"), id, 1, 1)
	if err != nil || !more || len(have) != 1 || have[0].Number != 2 || have[0].ETag != tag(b) {
		t.Errorf("parts after 1: %+v %v %v", have, more, err)
	}
	info, err := o.CompleteUpload(t.Context(), o.key("k"), id, store.CompleteUpload{Parts: parts})
	want(t, err, nil)
	if !strings.HasSuffix(info.ETag, "-3") || info.Size != int64(len(a)+len(b)+len(c)) || info.User["who"] != "me" || len(info.Parts) != 3 {
		t.Errorf("the object is %+v", info)
	}
	if o.get(t, "k", "") != a+b+c {
		t.Error("the parts come back otherwise")
	}
	obj, err := o.Open(t.Context(), o.key("k"), "")
	want(t, err, nil)
	defer obj.Close()
	var buf bytes.Buffer
	want(t, obj.Read(t.Context(), &buf, int64(len(a))-10, 20), nil)
	same(t, "range over two parts", buf.String(), a[len(a)-10:]+b[:10])
	_, err = o.CompleteUpload(t.Context(), o.key("k"), id, store.CompleteUpload{Parts: parts})
	want(t, err, store.ErrNoUpload)
}

func multipartFaults(t *testing.T, o objects) {
	big := noise(store.MinPart)
	id, parts := o.upload(t, "k", store.CreateUpload{}, big, "small", "end")
	complete := func(c store.CompleteUpload) error {
		_, err := o.CompleteUpload(t.Context(), o.key("k"), id, c)
		return err
	}
	want(t, complete(store.CompleteUpload{}), store.ErrPartMissing)
	want(t, complete(store.CompleteUpload{Parts: []store.PartInfo{{Number: 4}}}), store.ErrPartMissing)
	want(t, complete(store.CompleteUpload{Parts: []store.PartInfo{{Number: 1, ETag: tag("x")}}}), store.ErrPartMissing)
	want(t, complete(store.CompleteUpload{Parts: []store.PartInfo{parts[1], parts[0]}}), store.ErrPartOrder)
	want(t, complete(store.CompleteUpload{Parts: parts}), store.ErrPartTooSmall)
	_, err := o.PutPart(t.Context(), o.key("k"), "none", 1, store.PutPart{Body: strings.NewReader("x")})
	want(t, err, store.ErrNoUpload)
	_, err = o.PutPart(t.Context(), o.key("other"), id, 1, store.PutPart{Body: strings.NewReader("x")})
	want(t, err, store.ErrNoUpload)
	o.put(t, "k", "stands")
	want(t, complete(store.CompleteUpload{Parts: parts[:1], Condition: store.ObjectCondition{IfNoneMatch: "*"}}), store.ErrPrecondition)
	want(t, complete(store.CompleteUpload{Parts: []store.PartInfo{parts[0], parts[2]}}), nil)
	if o.get(t, "k", "") != big+"end" {
		t.Error("the object is not of the parts named")
	}
	id, _ = o.upload(t, "k", store.CreateUpload{}, big)
	want(t, o.AbortUpload(t.Context(), o.key("k"), id), nil)
	want(t, o.AbortUpload(t.Context(), o.key("k"), id), store.ErrNoUpload)
}

func copies(t *testing.T, o objects) {
	for _, n := range []int{0, 10, 200_000} {
		data := noise(n)
		o.put(t, "src", data)
		info, err := o.Put(t.Context(), o.key("dst"), store.PutObject{From: &store.ObjectSource{ObjectKey: o.key("src"), Length: -1}, Algorithm: store.SHA256})
		want(t, err, nil)
		same(t, "ETag", info.ETag, tag(data))
		if info.Checksum.Value == "" {
			t.Error("no checksum")
		}
		o.del(t, "src", "")
		if o.get(t, "dst", "") != data {
			t.Error("the copy is another")
		}
	}
	big := noise(store.MinPart)
	id, parts := o.upload(t, "multi", store.CreateUpload{}, big, "end")
	_, err := o.CompleteUpload(t.Context(), o.key("multi"), id, store.CompleteUpload{Parts: parts})
	want(t, err, nil)
	info, err := o.Put(t.Context(), o.key("multi"), store.PutObject{From: &store.ObjectSource{ObjectKey: o.key("multi"), Length: -1}})
	want(t, err, nil)
	same(t, "ETag of a copy of parts", info.ETag, tag(big+"end"))
	if o.get(t, "multi", "") != big+"end" {
		t.Error("an object copied onto itself is another")
	}
	_, err = o.Put(t.Context(), o.key("x"), store.PutObject{From: &store.ObjectSource{ObjectKey: o.key("none"), Length: -1}})
	want(t, err, store.ErrNoObject)
}

func copyPart(t *testing.T, o objects) {
	data := noise(store.MinPart + 1000)
	o.put(t, "src", data)
	up, err := o.CreateUpload(t.Context(), o.key("dst"), store.CreateUpload{})
	want(t, err, nil)
	var parts []store.PartInfo
	for i, r := range [][2]int64{{1000, store.MinPart}, {5, 10}} {
		p, err := o.PutPart(t.Context(), o.key("dst"), up.ID, i+1, store.PutPart{From: &store.ObjectSource{ObjectKey: o.key("src"), Offset: r[0], Length: r[1]}})
		want(t, err, nil)
		parts = append(parts, p)
	}
	_, err = o.PutPart(t.Context(), o.key("dst"), up.ID, 3, store.PutPart{From: &store.ObjectSource{ObjectKey: o.key("src"), Offset: store.MinPart, Length: 1001}})
	if err == nil {
		t.Error("a range beyond the end is copied")
	}
	o.del(t, "src", "")
	_, err = o.CompleteUpload(t.Context(), o.key("dst"), up.ID, store.CompleteUpload{Parts: parts})
	want(t, err, nil)
	if o.get(t, "dst", "") != data[1000:]+data[5:15] {
		t.Error("the ranges come back otherwise")
	}
}

func checksums(t *testing.T, o objects) {
	a, b := noise(store.MinPart), noise(12345)
	for _, algorithm := range checksum.All() {
		h := checksum.New(algorithm)
		h.Write([]byte(a + b))
		whole := base64.StdEncoding.EncodeToString(h.Sum(nil))
		info, err := o.Put(t.Context(), o.key("k"), store.PutObject{Body: strings.NewReader(a + b), Algorithm: algorithm, Verify: func(s store.ObjectSums) error {
			same(t, "checksum in Verify", s.Checksum, whole)
			return nil
		}})
		want(t, err, nil)
		same(t, "checksum", info.Checksum, store.Checksum{Algorithm: algorithm, Value: whole})
		for _, composite := range []bool{false, true} {
			if !composite && !algorithm.Whole() {
				continue
			}
			id, parts := o.upload(t, "k", store.CreateUpload{Algorithm: algorithm, Composite: composite}, a, b)
			info, err := o.CompleteUpload(t.Context(), o.key("k"), id, store.CompleteUpload{Parts: parts})
			want(t, err, nil)
			if !composite {
				same(t, "checksum of the whole of parts", info.Checksum.Value, whole)
			} else if !strings.HasSuffix(info.Checksum.Value, "-2") {
				t.Errorf("composite checksum %q", info.Checksum.Value)
			}
		}
	}
	impliedChecksum(t, o, a, b)
}

// impliedChecksum has parts come with a checksum of another algorithm than their upload's.
func impliedChecksum(t *testing.T, o objects, a, b string) {
	up, err := o.CreateUpload(t.Context(), o.key("k"), store.CreateUpload{Algorithm: store.CRC64NVME, Implied: true})
	want(t, err, nil)
	found, err := o.Upload(t.Context(), o.key("k"), up.ID)
	want(t, err, nil)
	same(t, "implied", found.Implied, true)
	var parts []store.PartInfo
	for i, data := range []string{a, b} {
		h := checksum.New(store.SHA256)
		h.Write([]byte(data))
		p, err := o.PutPart(t.Context(), o.key("k"), up.ID, i+1, store.PutPart{Body: strings.NewReader(data), Algorithm: store.SHA256, Verify: func(s store.ObjectSums) error {
			same(t, "the part's own checksum", s.Checksum, base64.StdEncoding.EncodeToString(h.Sum(nil)))
			return nil
		}})
		want(t, err, nil)
		parts = append(parts, p)
	}
	info, err := o.CompleteUpload(t.Context(), o.key("k"), up.ID, store.CompleteUpload{Parts: parts})
	want(t, err, nil)
	h := checksum.New(store.CRC64NVME)
	h.Write([]byte(a + b))
	same(t, "implied checksum", info.Checksum, store.Checksum{Algorithm: store.CRC64NVME, Value: base64.StdEncoding.EncodeToString(h.Sum(nil))})
}

func uploads(t *testing.T, o objects) {
	ids := map[string]string{}
	for _, k := range []string{"a/1", "a/2", "b", "b", "c"} {
		id, _ := o.upload(t, k, store.CreateUpload{Algorithm: store.CRC32})
		ids[id] = k
	}
	for _, limit := range []int{1, 2, 100} {
		l, seen := store.ListUploads{Limit: limit}, 0
		for {
			list, err := o.Uploads(t.Context(), o.b, l)
			want(t, err, nil)
			for _, u := range list.Uploads {
				seen++
				same(t, "key", ids[u.ID], u.Key)
			}
			if !list.More {
				break
			}
			l.After, l.AfterID = list.NextKey, list.NextID
		}
		same(t, "uploads", seen, 5)
	}
	list, err := o.Uploads(t.Context(), o.b, store.ListUploads{Delimiter: "/", Limit: 3})
	want(t, err, nil)
	if len(list.Prefixes) != 1 || len(list.Uploads) != 2 || !list.More {
		t.Errorf("with a delimiter: %+v", list)
	}
	want(t, o.DeleteBucket(t.Context(), o.b), nil)
}

func changes(t *testing.T, o objects) {
	o.put(t, "a", "1")
	o.del(t, "a", "")
	o.del(t, "a", "") // nothing happens
	o.versioning(t, store.Versioned)
	o.put(t, "b", "22")
	o.del(t, "b", "")
	list, err := o.Changes(t.Context(), 100)
	want(t, err, nil)
	var got []string
	for _, c := range list {
		got = append(got, fmt.Sprint(c.Event.Name, " ", c.Key, " ", c.Size, " ", c.Version == store.NullVersion, " ", c.Bucket.Name))
	}
	wanted := []string{"put a 1 true bucket", "delete a 1 true bucket", "put b 2 false bucket", "marker b 0 false bucket"}
	if !slices.Equal(got, wanted) {
		t.Errorf("changes %q, want %q", got, wanted)
	}
	want(t, o.ForgetChanges(t.Context(), list[len(list)-1].Seq), nil)
	done := make(chan error, 1)
	ctx := t.Context()
	go func() {
		next, err := o.Changes(ctx, 100)
		if err == nil && (len(next) != 1 || next[0].Key != "c" || next[0].Seq <= list[3].Seq) {
			err = fmt.Errorf("the next change is %+v", next)
		}
		done <- err
	}()
	o.put(t, "c", "x")
	want(t, <-done, nil)
}

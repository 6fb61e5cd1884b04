package export_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/export"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
	"github.com/ebb-run/ebb/internal/store/sqlite"
	"github.com/ebb-run/ebb/internal/wire/dynamodb"
)

const tenant = "default"

// parameters keeps them in a map.
type parameters map[string]export.Parameter

func (p parameters) Each(_ context.Context, f func(export.Parameter) error) error {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if err := f(p[name]); err != nil {
			return err
		}
	}
	return nil
}

func (p parameters) Put(_ context.Context, in export.Parameter, overwrite bool) (export.Outcome, error) {
	old, ok := p[in.Name]
	switch {
	case ok && *old.Value == *in.Value:
		return export.Same, nil
	case ok && !overwrite:
		return export.Differs, nil
	}
	p[in.Name] = in
	if ok {
		return export.Replaced, nil
	}
	return export.Written, nil
}

func stores(t *testing.T) export.Stores {
	t.Helper()
	dir := t.TempDir()
	tables, err := sqlite.Open(t.Context(), filepath.Join(dir, "tables.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tables.Close() })
	objects, err := fs.Open(t.Context(), filepath.Join(dir, "objects"), fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objects.Close() })
	return export.Stores{
		Tenant: tenant, Tables: tables, Objects: objects, Parameters: parameters{},
		Codec:          export.Codec{Properties: dynamodb.Properties, Declared: dynamodb.Declared, Item: dynamodb.ItemJSON, Exported: dynamodb.Exported, Fits: dynamodb.Fits},
		TableApp:       func(t store.Table) string { return t.Owner },
		BucketApp:      func(b store.Bucket) string { return string(b.Documents["ebb:stack"]) },
		HiddenTable:    func(name string) bool { return name == "$own" },
		HiddenDocument: func(name string) bool { return strings.HasPrefix(name, "ebb:") },
		ValidBucket:    func(name string) bool { return len(name) >= 3 },
		BucketMade:     func(context.Context, store.BucketID) {},
	}
}

var orders = store.Table{
	Name: "orders", Owner: "shop", OnDemand: true, TTL: "ends", View: store.BothViews, Label: "l", Protected: true, Tags: map[string]string{"k": "v"},
	Key:     store.Key{Hash: store.Attr{Name: "id", Kind: store.S}, Range: store.Attr{Name: "n", Kind: store.N}},
	Indexes: []store.Index{{Name: "by-g", Key: store.Key{Hash: store.Attr{Name: "g", Kind: store.S}}, Attrs: []string{"x"}}},
}

func item(n int) store.Item {
	number, _ := store.ParseNumber("1E+100")
	large := store.Num(number.String())
	return store.Item{
		"id": store.Text(fmt.Sprint("o", n%7)), "n": store.Num(fmt.Sprint(n)), "g": store.Text("g"), "bin": {Kind: store.B, Str: "\x00\xff"}, "yes": {Kind: store.BOOL, Bool: true}, "none": {Kind: store.NULL},
		"texts": {Kind: store.SS, Set: []string{"a", "ü\n"}}, "nums": {Kind: store.NS, Set: []string{"1", "-2.5"}}, "bins": {Kind: store.BS, Set: []string{"\x01"}},
		"deep": {Kind: store.M, Map: store.Item{"list": {Kind: store.L, List: []store.Value{large, store.Text("")}}}},
	}
}

func write(t *testing.T, s export.Stores, table string, items ...store.Item) {
	t.Helper()
	for _, it := range items {
		err := s.Tables.Write(t.Context(), tenant, []store.Change{{Table: table, Key: it, Apply: func(store.Item) (store.Item, error) { return it, nil }}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

var files = store.BucketID{Tenant: tenant, Name: "files"}

// odd are keys, some of which are no paths.
var odd = []string{"a", "a/b", "a//b", "../up", "/root", "folder/", "ä ö", ".ebb/1", strings.Repeat("k", 1000), "big"}

func content(key string) []byte { return bytes.Repeat([]byte(key), 200_000/len(key)) }

func put(t *testing.T, s export.Stores, key string, body []byte) {
	t.Helper()
	_, err := s.Objects.Put(t.Context(), store.ObjectKey{Bucket: files, Key: key}, store.PutObject{
		Body: bytes.NewReader(body), Algorithm: store.SHA256, ObjectMeta: store.ObjectMeta{Headers: map[string]string{"content-type": "text/ü"}, User: map[string]string{"key": key}, Tags: map[string]string{"t": "1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func text(s string) *string { return &s }

// filled has a table, a bucket and parameters.
func filled(t *testing.T) export.Stores {
	t.Helper()
	s := stores(t)
	for _, tab := range []store.Table{orders, {Name: "$own", Key: orders.Key}, {Name: "empty", Key: store.Key{Hash: store.Attr{Name: "id", Kind: store.B}}, Reads: 1, Writes: 2}} {
		if _, err := s.Tables.Create(t.Context(), tenant, tab); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 250 {
		write(t, s, "orders", item(n))
	}
	err := s.Objects.CreateBucket(t.Context(), files, store.Bucket{Versioning: store.Versioned, Tags: map[string]string{"k": "v"}, Documents: map[string][]byte{"cors": []byte("<x/>"), "ebb:stack": []byte("shop")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range odd {
		put(t, s, key, []byte("older"))
		put(t, s, key, content(key))
	}
	put(t, s, "deleted", []byte("x"))
	if _, err := s.Objects.Delete(t.Context(), store.ObjectKey{Bucket: files, Key: "deleted"}, store.DeleteObject{}); err != nil {
		t.Fatal(err)
	}
	p := s.Parameters.(parameters)
	p["/a"] = export.Parameter{Name: "/a", Type: "String", Value: text("1"), App: "shop"}
	p["/s"] = export.Parameter{Name: "/s", Type: "SecureString", Value: text("hidden-value")}
	return s
}

func exported(t *testing.T, s export.Stores, c export.Choice) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := export.Write(t.Context(), &out, s, c, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := export.Check(bytes.NewReader(out.Bytes())); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func imported(t *testing.T, s export.Stores, data []byte, o export.Options) export.Result {
	t.Helper()
	got, err := export.Read(t.Context(), bytes.NewReader(data), s, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRead_GivesBackWhatWasWrittenAndChangesNothingTheSecondTime(t *testing.T) {
	t.Parallel()
	data := exported(t, filled(t), export.Choice{})
	if bytes.Contains(data, []byte("hidden-value")) || bytes.Contains(data, []byte("ebb:stack")) {
		t.Error("a secret, or what is the server's own, is in the export")
	}
	s := stores(t)
	// Objects above 100 kB in parts of 5 MiB at least, which is what S3 takes.
	got := imported(t, s, data, export.InParts(export.Options{}, 100_000, 5<<20))
	if got.Tables != 2 || got.Buckets != 1 || got.Items != (export.Count{Written: 250}) || got.Objects != (export.Count{Written: 10}) || got.Parameters != (export.Count{Written: 1}) || got.Withheld != 1 {
		t.Errorf("first: %+v", got)
	}
	want := orders
	is, err := s.Tables.Table(t.Context(), tenant, "orders")
	if err != nil || is.TTL != want.TTL || is.View != want.View || !is.OnDemand || !is.Protected || is.Key != want.Key || len(is.Indexes) != 1 || !slices.Equal(is.Indexes[0].Attrs, []string{"x"}) || is.Owner != "" || is.Tags["k"] != "v" {
		t.Errorf("the table is %+v, %v", is, err)
	}
	for n := range 250 {
		found, err := s.Tables.Get(t.Context(), tenant, []store.Lookup{{Table: "orders", Key: item(n)}})
		if err != nil || !found[0].Equal(item(n)) {
			t.Fatalf("item %d is %v, %v", n, found, err)
		}
	}
	b, err := s.Objects.Bucket(t.Context(), files)
	if err != nil || b.Versioning != store.Versioned || string(b.Documents["cors"]) != "<x/>" || b.Documents["ebb:stack"] != nil || b.Tags["k"] != "v" {
		t.Errorf("the bucket is %+v, %v", b, err)
	}
	for _, key := range odd {
		o, err := s.Objects.Open(t.Context(), store.ObjectKey{Bucket: files, Key: key}, "")
		if err != nil {
			t.Errorf("%q: %v", key, err)
			continue
		}
		var body bytes.Buffer
		if err := o.Read(t.Context(), &body, 0, o.Info().Size); err != nil || !bytes.Equal(body.Bytes(), content(key)) || o.Info().User["key"] != key || o.Info().Headers["content-type"] != "text/ü" {
			t.Errorf("%q: %d bytes, %+v, %v", key, body.Len(), o.Info(), err)
		}
		_ = o.Close()
	}
	again := imported(t, s, data, export.Options{})
	if again.Tables+again.Buckets != 0 || again.Items != (export.Count{Same: 250}) || again.Objects != (export.Count{Same: 10}) || again.Parameters != (export.Count{Same: 1}) {
		t.Errorf("again: %+v", again)
	}
}

func TestRead_OverwritesOnlyWhenItIsTold(t *testing.T) {
	t.Parallel()
	s := filled(t)
	data := exported(t, s, export.Choice{Secrets: true})
	changed := item(3)
	changed["g"] = store.Text("other")
	write(t, s, "orders", changed)
	put(t, s, "a", []byte("other"))
	put(t, s, "big", bytes.Repeat([]byte("x"), len(content("big")))) // of the same size
	s.Parameters.(parameters)["/s"] = export.Parameter{Name: "/s", Type: "SecureString", Value: text("other")}
	got := imported(t, s, data, export.Options{})
	if got.Items != (export.Count{Same: 249, Differs: 1}) || got.Objects != (export.Count{Same: 8, Differs: 2}) || got.Parameters != (export.Count{Same: 1, Differs: 1}) || got.Left() != 4 {
		t.Errorf("without: %+v", got)
	}
	all := strings.Join(got.Differing, "\n")
	for _, want := range []string{`item {"id":{"S":"o3"},"n":{"N":"3"}} of table orders`, "object a of bucket files", "object big of bucket files", "parameter /s"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not named in\n%s", want, all)
		}
	}
	if found, _ := s.Tables.Get(t.Context(), tenant, []store.Lookup{{Table: "orders", Key: changed}}); found[0]["g"].Str != "other" {
		t.Error("the item was overwritten")
	}
	got = imported(t, s, data, export.Options{Overwrite: true})
	if got.Items != (export.Count{Same: 249, Replaced: 1}) || got.Objects != (export.Count{Same: 8, Replaced: 2}) || got.Parameters != (export.Count{Same: 1, Replaced: 1}) {
		t.Errorf("with: %+v", got)
	}
	if again := imported(t, s, data, export.Options{}); again.Left() != 0 || again.Items.Same != 250 || again.Objects.Same != 10 {
		t.Errorf("afterwards: %+v", again)
	}
}

func TestWrite_OnlyWhatIsChosen(t *testing.T) {
	t.Parallel()
	s := filled(t)
	for name, row := range map[string]struct {
		choice                    export.Choice
		tables, buckets, withheld int
	}{
		"an app":    {export.Choice{App: "shop"}, 1, 1, 0},
		"a table":   {export.Choice{Tables: []string{"empty"}}, 1, 0, 0},
		"a bucket":  {export.Choice{Buckets: []string{"files"}}, 0, 1, 0},
		"no app":    {export.Choice{App: "other"}, 0, 0, 0},
		"all of it": {export.Choice{}, 2, 1, 1},
	} {
		totals, err := export.Check(bytes.NewReader(exported(t, s, row.choice)))
		if err != nil || totals.Tables != row.tables || totals.Buckets != row.buckets || totals.Withheld != int64(row.withheld) {
			t.Errorf("%s: %+v, %v", name, totals, err)
		}
	}
	var out bytes.Buffer
	_, err := export.Write(t.Context(), &out, s, export.Choice{Tables: []string{"oders"}}, "test")
	if errs.CodeOf(err) != errs.NotFound || errs.HintOf(err) != "Did you mean orders?" || out.Len() > 0 {
		t.Errorf("got %v, hint %q, %d bytes", err, errs.HintOf(err), out.Len())
	}
}

func zipped(lines string) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, lines)
	_ = w.Close()
	return out.Bytes()
}

type entry struct{ name, text string }

func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range append([]entry{{"ebb-export.json", `{"format":1}`}}, entries...) {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o600, Size: int64(len(e.text))}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, e.text)
	}
	_ = w.Close()
	return out.Bytes()
}

func TestRead_SaysWhereWhatIsWrong(t *testing.T) {
	t.Parallel()
	const table = `{"AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],"KeySchema":[{"AttributeName":"id","KeyType":"HASH"}]}`
	good := `{"Item":{"id":{"S":"a"}}}` + "\n"
	data := func(lines string) []entry {
		return []entry{{"tables/items/table.json", table}, {"tables/items/data/1.json.gz", string(zipped(lines))}}
	}
	line := func(text string) []entry { return data(good + "\n" + text + "\n") }
	manifest := func(text string) []entry { return append(data(good), entry{"tables/items/manifest-files.json", text}) }
	const at = "tables/items/data/1.json.gz:3: "
	for name, row := range map[string]struct {
		entries []entry
		want    string
	}{
		"no JSON":              {line(`{"Item":`), at + "this is no JSON object"},
		"ION":                  {line(`$ion_1_0 {Item:{id:"a"}}`), at + "this is no JSON object"},
		"plain JSON":           {line(`{"id":"a"}`), at + "this is not of the form"},
		"an incremental one":   {line(`{"Metadata":{},"Keys":{"id":{"S":"a"}},"NewImage":{"id":{"S":"a"}}}`), at + "this is a change of an incremental export"},
		"no key":               {line(`{"Item":{"x":{"S":"a"}}}`), at + "One or more parameter values were invalid: Missing the key id"},
		"a key of a number":    {line(`{"Item":{"id":{"N":"1"}}}`), at + "One or more parameter values were invalid: Type mismatch"},
		"no Base64":            {line(`{"Item":{"id":{"S":"b"},"x":{"B":"!"}}}`), at},
		"no number":            {line(`{"Item":{"id":{"S":"b"},"x":{"N":"x"}}}`), at + "The parameter cannot be converted"},
		"a large item":         {line(`{"Item":{"id":{"S":"b"},"x":{"S":"` + strings.Repeat("x", 410_000) + `"}}}`), at + "Item size has exceeded"},
		"a line without end":   {line(strings.Repeat("x", 5<<20)), at + "the line is longer"},
		"no gzip":              {[]entry{{"tables/items/table.json", table}, {"tables/items/data/1.json.gz", "hello"}}, "data/1.json.gz: it is not compressed"},
		"a cut gzip":           {[]entry{{"tables/items/table.json", table}, {"tables/items/data/1.json.gz", string(zipped(good)[:20])}}, "data/1.json.gz:1: it is damaged"},
		"an ION file":          {[]entry{{"tables/items/data/1.ion.gz", "x"}}, "1.ion.gz: ION is not read"},
		"no table":             {[]entry{{"tables/items/data/1.json.gz", string(zipped(good))}}, "no table items"},
		"no table at all":      {[]entry{{"tables/items/table.json", `{}`}}, "tables/items/table.json: "},
		"a table of ebb's own": {[]entry{{"tables/$own/table.json", table}}, "tables/$own/table.json: "},
		"another count":        {manifest(`{"itemCount":2,"dataFileS3Key":"x/1.json.gz"}`), "manifest-files.json:1: x/1.json.gz has 1 items, not 2"},
		"another sum":          {manifest(`{"itemCount":1,"md5Checksum":"x","dataFileS3Key":"x/1.json.gz"}`), "has the MD5"},
		"a missing file":       {manifest(`{"itemCount":1,"dataFileS3Key":"x/2.json.gz"}`), "manifest-files.json:1: x/2.json.gz is missing"},
		"an unlisted file":     {manifest(""), "it lists 0 files of data, and 1 were read"},
		"no manifest":          {append(data(good), entry{"end.json", "{}"}), "manifest-files.json is missing"},
		"ION by the manifest":  {[]entry{{"tables/items/manifest-summary.json", `{"outputFormat":"ION"}`}}, "in the format ION"},
		"no name of a bucket":  {[]entry{{"buckets/x/bucket.json", "{}"}}, "buckets/x/bucket.json: \"x\" is no name"},
		"a hidden document":    {[]entry{{"buckets/files/bucket.json", `{"documents":{"ebb:stack":"eA=="}}`}}, "no document \"ebb:stack\""},
		"a long key":           {[]entry{{"buckets/files/objects/" + strings.Repeat("k", 1025), "x"}}, "a key has 1 to 1024 bytes"},
		"no parameter":         {[]entry{{"parameters.jsonl", "\n{\"name\":1}\n"}}, "parameters.jsonl:2: this is no parameter"},
		"something else":       {[]entry{{"readme", "x"}}, "readme: it has no place"},
		"no end":               {nil, "before its end"},
		"a newer one":          {[]entry{{"ebb-export.json", ""}}, "it has no place"},
	} {
		s := stores(t)
		_, err := export.Read(t.Context(), bytes.NewReader(archive(t, row.entries...)), s, export.Options{}, nil)
		if err == nil || !strings.Contains(err.Error(), row.want) || errs.CodeOf(err) == errs.Internal {
			t.Errorf("%s: %s: %v, want %q", name, errs.CodeOf(err), err, row.want)
		}
	}
	for name, row := range map[string]struct{ data, want string }{
		"nothing": {"", "no export of ebb"}, "text": {strings.Repeat("hello ", 200), "no export of ebb"},
	} {
		if _, err := export.Read(t.Context(), strings.NewReader(row.data), stores(t), export.Options{}, nil); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRead_CutOffAnywhereItIsRefusedAndCanBeBegunAgain(t *testing.T) {
	t.Parallel()
	data := exported(t, filled(t), export.Choice{})
	s := stores(t)
	end := bytes.LastIndex(data, []byte("end.json"))
	for at := 0; at < end; at += end/25 + 1 {
		if _, err := export.Read(t.Context(), bytes.NewReader(data[:at]), s, export.Options{}, nil); err == nil {
			t.Errorf("cut at %d of %d it is accepted", at, len(data))
		}
	}
	got := imported(t, s, data, export.Options{})
	if got.Items.Same+got.Items.Written != 250 || got.Objects.Same+got.Objects.Written != 10 || got.Left() != 0 || got.Objects.Same == 0 {
		t.Errorf("begun again: %+v", got)
	}
}

func TestFromS3_ReadsTheFolderThatAWSWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "AWSDynamoDB", "01693685827463-2d8752fd")
	if err := os.MkdirAll(filepath.Join(root, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	var manifest strings.Builder
	for i := range 3 {
		var lines strings.Builder
		for n := range 40 {
			fmt.Fprintf(&lines, `{"Item":{"id":{"S":"i%d"},"n":{"N":"%d"},"when":{"N":"%d"}}}`+"\n", i, n, time.Unix(1_700_000_000, 0).Unix())
		}
		z := zipped(lines.String())
		sum := md5.Sum(z)
		name := fmt.Sprintf("abc%d.json.gz", i)
		fmt.Fprintf(&manifest, `{"itemCount":40,"md5Checksum":"%s","etag":"x-1","dataFileS3Key":"AWSDynamoDB/01693685827463-2d8752fd/data/%s"}`+"\n", base64.StdEncoding.EncodeToString(sum[:]), name)
		if err := os.WriteFile(filepath.Join(root, "data", name), z, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	summary := `{"version":"2023-08-01","exportArn":"arn:aws:dynamodb:us-east-1:123456789012:table/orders/export/01693685827463-2d8752fd","startTime":"2023-09-02T20:17:07.463Z",
		"tableArn":"arn:aws:dynamodb:us-east-1:123456789012:table/orders","exportTime":"2023-09-02T20:17:07.463Z","s3Bucket":"b","s3Prefix":null,"manifestFilesS3Key":"x/manifest-files.json",
		"billedSizeBytes":0,"itemCount":120,"outputFormat":"DYNAMODB_JSON","exportType":"FULL_EXPORT"}`
	for name, text := range map[string]string{"manifest-files.json": manifest.String(), "manifest-summary.json": summary, "manifest-files.md5": "x", "_started": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var data bytes.Buffer
	if err := export.FromS3(&data, dir, "orders"); err != nil {
		t.Fatal(err)
	}
	s := stores(t)
	if _, err := export.Read(t.Context(), bytes.NewReader(data.Bytes()), s, export.Options{}, nil); errs.CodeOf(err) != errs.NotFound || !strings.Contains(errs.HintOf(err), "deploy or create the table first") {
		t.Errorf("without the table: %v, hint %q", err, errs.HintOf(err))
	}
	if _, err := s.Tables.Create(t.Context(), tenant, orders); err != nil {
		t.Fatal(err)
	}
	if got := imported(t, s, data.Bytes(), export.Options{}); got.Items != (export.Count{Written: 120}) {
		t.Errorf("got %+v", got)
	}
	if got := imported(t, s, data.Bytes(), export.Options{}); got.Items != (export.Count{Same: 120}) {
		t.Errorf("again %+v", got)
	}
	if err := os.WriteFile(filepath.Join(root, "manifest-summary.json"), []byte(strings.Replace(summary, "DYNAMODB_JSON", "ION", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := export.FromS3(io.Discard, dir, "orders"); errs.CodeOf(err) != errs.Unsupported || !strings.Contains(err.Error(), "ION") {
		t.Errorf("ION: %v", err)
	}
	if err := export.FromS3(io.Discard, t.TempDir(), "orders"); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("an empty folder: %v", err)
	}
}

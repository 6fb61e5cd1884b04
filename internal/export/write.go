package export

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/store"
)

// chunk is how many bytes of compressed Items, at least, a file of data holds; the last has fewer. One is held in memory.
const chunk = 4 << 20

// table writes a table as it is now.
func (o *writer) table(ctx context.Context, t *store.Table) error {
	base := path.Join(tablesFolder, t.Name)
	properties, err := o.Codec.Properties(t)
	if err != nil {
		return err
	}
	if err := o.file(path.Join(base, "table.json"), append(properties, '\n')); err != nil {
		return err
	}
	o.totals.Tables++
	var files []manifestFile
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	count, all := int64(0), int64(0)
	flush := func() error {
		if err := zip.Close(); err != nil {
			return err
		}
		name := path.Join(base, "data", fmt.Sprintf("%06d.json.gz", len(files)+1))
		files = append(files, manifestFile{count, md5Text(buf.Bytes()), name})
		all += count
		if err := o.file(name, buf.Bytes()); err != nil {
			return err
		}
		buf.Reset()
		zip.Reset(&buf)
		count = 0
		return nil
	}
	begun := time.Now().UTC()
	var failed error
	err = o.Tables.Scan(ctx, o.Tenant, store.Scan{Table: t.Name}, func(it store.Item) bool {
		line := append(append([]byte(`{"Item":`), o.Codec.Item(it)...), '}', '\n')
		if _, failed = zip.Write(line); failed == nil {
			count++
			if buf.Len() >= chunk {
				failed = flush()
			}
		}
		return failed == nil && ctx.Err() == nil
	})
	if err = errors.Join(err, failed, ctx.Err()); err == nil && (count > 0 || len(files) == 0) {
		err = flush()
	}
	if err != nil {
		return err
	}
	o.totals.Items += all
	var lines []byte
	for _, f := range files {
		line, err := json.Marshal(f)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	if err := o.file(path.Join(base, filesManifest), lines); err != nil {
		return err
	}
	return o.json(path.Join(base, summaryManifest), manifestSummary{
		Version: "2020-06-30", Type: "FULL_EXPORT", Begun: begun, At: begun, Files: path.Join(base, filesManifest), Count: all, Format: dynamoJSON,
	})
}

const (
	filesManifest   = "manifest-files.json"
	summaryManifest = "manifest-summary.json"
)

// bucketFile is bucket.json.
type bucketFile struct {
	Versioning string            `json:"versioning,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Documents  map[string][]byte `json:"documents,omitempty"` // in Base64
}

// objectInfo is the record of an object.
type objectInfo struct {
	Key      string    `json:"key"`
	ETag     string    `json:"etag"`
	Modified time.Time `json:"modified"`
	store.ObjectMeta
	Algorithm store.Algorithm `json:"algorithm,omitempty"`
}

// pageOf is how many objects are listed at a time.
const pageOf = 1000

func (o *writer) bucket(ctx context.Context, b store.Bucket) error {
	base := path.Join(bucketsFolder, b.Name)
	f := bucketFile{Versioning: string(b.Versioning), Tags: b.Tags, Documents: map[string][]byte{}}
	for name, doc := range b.Documents {
		if !o.HiddenDocument(name) {
			f.Documents[name] = doc
		}
	}
	if err := o.json(path.Join(base, "bucket.json"), f); err != nil {
		return err
	}
	o.totals.Buckets++
	id := store.BucketID{Tenant: o.Tenant, Name: b.Name}
	page := store.ListObjects{Limit: pageOf}
	for {
		list, err := o.Objects.List(ctx, id, page)
		if err != nil {
			return err
		}
		for _, info := range list.Objects {
			if err := o.object(ctx, store.ObjectKey{Bucket: id, Key: info.Key}); err != nil {
				return fmt.Errorf("object %s: %w", info.Key, err)
			}
		}
		if !list.More {
			return nil
		}
		page.After = list.NextKey
	}
}

func (o *writer) object(ctx context.Context, key store.ObjectKey) error {
	obj, err := o.Objects.Open(ctx, key, "")
	if obj != nil {
		defer func() { _ = obj.Close() }()
	}
	if errors.Is(err, store.ErrNoObject) {
		return nil // deleted since it was listed
	}
	if err != nil {
		return err
	}
	info := obj.Info()
	record, err := json.Marshal(objectInfo{info.Key, info.ETag, info.Modified, info.ObjectMeta, info.Checksum.Algorithm})
	if err != nil {
		return err
	}
	o.totals.Objects++
	o.totals.Bytes += info.Size
	name := info.Key
	if !safeKey(name) || strings.HasSuffix(name, "/") {
		name = fmt.Sprintf(".ebb/%d", o.totals.Objects) // no path; its key is in the record
	}
	err = o.tar.WriteHeader(&tar.Header{
		Name: path.Join(bucketsFolder, key.Bucket.Name, "objects", name), Mode: 0o600, Size: info.Size, ModTime: info.Modified,
		PAXRecords: map[string]string{objectRecord: string(record)}, Format: tar.FormatPAX,
	})
	if err != nil {
		return err
	}
	return obj.Read(ctx, o.tar, 0, info.Size)
}

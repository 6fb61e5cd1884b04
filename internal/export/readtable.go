package export

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// A Write has at most so many Items, or so many bytes of them and one Item.
const (
	batchItems = 100
	batchBytes = 1 << 20
)

// tableIn is a table that is read.
type tableIn struct {
	store.Table
	files  map[string]manifestFile // of data, by their base names
	count  int64
	listed bool // the manifest was read
}

// table reads a file of a table.
func (in *reader) table(ctx context.Context, h *tar.Header, name, file string) error {
	t := in.tables[name]
	if t == nil {
		t = &tableIn{files: map[string]manifestFile{}}
		in.tables[name] = t
	}
	switch {
	case file == "table.json":
		return in.declared(ctx, h, name, t)
	case file == filesManifest:
		return in.listed(h, t)
	case file == summaryManifest:
		return in.summary(h, t)
	case strings.HasPrefix(file, "data/") && strings.HasSuffix(file, ".json.gz"):
		if t.Name == "" {
			found, err := in.Tables.Table(ctx, in.Tenant, name)
			if err != nil {
				return errs.New(errs.CodeOf(err), "%s: %w", h.Name, err).WithHint("An export to S3 does not tell the table's key: deploy or create the table first.")
			}
			t.Table = found
		}
		return in.data(ctx, h, t)
	case strings.HasPrefix(file, "data/") && strings.Contains(file, ".ion"):
		return errs.New(errs.Unsupported, "%s: ION is not read", h.Name).WithHint("Export to S3 with the format %s.", dynamoJSON)
	}
	return invalid(h.Name, "it has no place in an export of a table")
}

// declared makes a table that is not there. One that is keeps its settings, and must have the same key.
func (in *reader) declared(ctx context.Context, h *tar.Header, name string, t *tableIn) error {
	properties, err := in.small(h)
	if err != nil {
		return err
	}
	want, err := in.Codec.Declared(name, properties)
	if err != nil {
		return at(h.Name, err)
	}
	if in.HiddenTable(name) {
		return invalid(h.Name, "%q is no name of a table", name)
	}
	found, err := in.Tables.Table(ctx, in.Tenant, name)
	if errs.CodeOf(err) == errs.NotFound {
		if found, err = in.Tables.Create(ctx, in.Tenant, want); err == nil {
			in.result.Tables++
		}
	}
	if err != nil {
		return at(h.Name, err)
	}
	if found.Key != want.Key {
		return errs.New(errs.Conflict, "%s: the table %s is there with another key: %v, not %v", h.Name, name, found.Key.Names(), want.Key.Names()).
			WithHint("Delete the table that is there, or leave this one out with --table.")
	}
	t.Table = found
	return nil
}

// data reads a file of Items.
func (in *reader) data(ctx context.Context, h *tar.Header, t *tableIn) error {
	sum := md5.New()
	src := io.TeeReader(in.tar, sum)
	zip, err := gzip.NewReader(src)
	if err != nil {
		return invalid(h.Name, "it is not compressed by gzip: %v", err)
	}
	lines := bufio.NewScanner(zip)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	b := &batch{in: in, t: t, keys: map[string]bool{}}
	n, count := 0, int64(0)
	for lines.Scan() && lines.Err() == nil { // what stands before damage may be half a line
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		it, err := in.Codec.Exported(lines.Bytes())
		if err == nil {
			err = in.Codec.Fits(&t.Table, it)
		}
		if err == nil {
			count++
			err = b.add(ctx, it)
		}
		if err != nil {
			return at(fmt.Sprintf("%s:%d", h.Name, n), err)
		}
	}
	if err := lines.Err(); err != nil {
		if err == bufio.ErrTooLong {
			return invalid(fmt.Sprintf("%s:%d", h.Name, n+1), "the line is longer than any item can be")
		}
		return invalid(fmt.Sprintf("%s:%d", h.Name, n+1), "it is damaged: %v", err)
	}
	if err := b.flush(ctx); err != nil {
		return at(h.Name, err)
	}
	if _, err := io.Copy(io.Discard, src); err != nil {
		return at(h.Name, err)
	}
	t.count += count
	in.read.Items += count
	t.files[path.Base(h.Name)] = manifestFile{Count: count, MD5: base64.StdEncoding.EncodeToString(sum.Sum(nil))}
	return nil
}

// batch is Items on their way into a table.
type batch struct {
	in    *reader
	t     *tableIn
	items []store.Item
	names []string
	keys  map[string]bool
	bytes int
}

func (b *batch) add(ctx context.Context, it store.Item) error {
	key := string(b.in.Codec.Item(it.Only(b.t.Key.Names()...)))
	if b.keys[key] || len(b.items) == batchItems || b.bytes > batchBytes {
		if err := b.flush(ctx); err != nil {
			return err
		}
	}
	b.items, b.names, b.keys[key] = append(b.items, it), append(b.names, key), true
	b.bytes += it.Size()
	return nil
}

func (b *batch) flush(ctx context.Context) error {
	out := make([]Outcome, len(b.items))
	changes := make([]store.Change, len(b.items))
	for i, it := range b.items {
		changes[i] = store.Change{Table: b.t.Name, Key: it, Apply: func(old store.Item) (store.Item, error) {
			switch {
			case old == nil:
				out[i] = Written
			case old.Equal(it):
				out[i] = Same
				return old, nil
			case !b.in.o.Overwrite:
				out[i] = Differs
				return old, nil
			default:
				out[i] = Replaced
			}
			return it, nil
		}}
	}
	if len(changes) == 0 {
		return nil
	}
	if err := b.in.Tables.Write(ctx, b.in.Tenant, changes); err != nil {
		return err
	}
	for i, o := range out {
		if b.in.result.Items.add(o); o == Differs {
			b.in.result.differs(fmt.Sprintf("item %s of table %s", b.names[i], b.t.Name))
		}
	}
	b.items, b.names, b.bytes = b.items[:0], b.names[:0], 0
	clear(b.keys)
	b.in.told(b.in.result)
	return nil
}

// listed compares the manifest with the files that were read.
func (in *reader) listed(h *tar.Header, t *tableIn) error {
	data, err := in.small(h)
	if err != nil {
		return err
	}
	n, found := 0, 0
	for line := range bytes.Lines(data) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		place := fmt.Sprintf("%s:%d", h.Name, n)
		var want manifestFile
		if err := json.Unmarshal(line, &want); err != nil || want.Key == "" {
			return invalid(place, "this is no line of a manifest")
		}
		got, ok := t.files[path.Base(want.Key)]
		switch {
		case !ok:
			return invalid(place, "%s is missing", want.Key)
		case want.MD5 != "" && got.MD5 != want.MD5:
			return invalid(place, "%s has the MD5 %s, not %s", want.Key, got.MD5, want.MD5)
		case got.Count != want.Count:
			return invalid(place, "%s has %d items, not %d", want.Key, got.Count, want.Count)
		}
		found++
	}
	if found != len(t.files) {
		return invalid(h.Name, "it lists %d files of data, and %d were read", found, len(t.files))
	}
	t.listed = true
	return nil
}

func (in *reader) summary(h *tar.Header, t *tableIn) error {
	var s manifestSummary
	if err := in.json(h, &s); err != nil {
		return err
	}
	if err := s.check(h.Name); err != nil {
		return err
	}
	if s.Count != t.count {
		return invalid(h.Name, "it tells of %d items, and %d were read", s.Count, t.count)
	}
	return nil
}

// check refuses exports of other kinds.
func (s *manifestSummary) check(place string) error {
	switch {
	case s.Format != "" && s.Format != dynamoJSON:
		return errs.New(errs.Unsupported, "%s: the export is in the format %s", place, s.Format).WithHint("Export to S3 with the format %s.", dynamoJSON)
	case s.Type != "" && s.Type != "FULL_EXPORT":
		return errs.New(errs.Unsupported, "%s: the export is of the type %s", place, s.Type).WithHint("Import a FULL_EXPORT.")
	}
	return nil
}

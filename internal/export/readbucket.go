package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
)

// oneMost is the size above which an object is put in parts, and partSize what these have at least.
const (
	oneMost  = 1 << 30
	partSize = 512 << 20
)

// bucket reads a file of a bucket.
func (in *reader) bucket(ctx context.Context, h *tar.Header, name, file string) error {
	id := store.BucketID{Tenant: in.Tenant, Name: name}
	if file == "bucket.json" {
		var f bucketFile
		if err := in.json(h, &f); err != nil {
			return err
		}
		return in.bucketIn(ctx, h.Name, id, f)
	}
	path, ok := strings.CutPrefix(file, "objects/")
	if !ok {
		return invalid(h.Name, "it has no place in an export of a bucket")
	}
	if err := in.bucketIn(ctx, h.Name, id, bucketFile{}); err != nil {
		return err
	}
	info := objectInfo{Key: path}
	if text := h.PAXRecords[objectRecord]; text != "" {
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			return invalid(h.Name, "what is said of the object is not to be understood: %v", err)
		}
	}
	switch {
	case info.Key == "" || len(info.Key) > store.MaxKey:
		return invalid(h.Name, "a key has 1 to %d bytes, this one has %d", store.MaxKey, len(info.Key))
	case h.Size > store.MaxObject:
		return invalid(h.Name, "the object has %d bytes, and %d are the most", h.Size, int64(store.MaxObject))
	}
	in.read.Objects++
	in.read.Bytes += h.Size
	out, err := in.object(ctx, store.ObjectKey{Bucket: id, Key: info.Key}, h.Size, info)
	if err != nil {
		return at(h.Name, err)
	}
	if in.result.Objects.add(out); out == Differs {
		in.result.differs("object " + info.Key + " of bucket " + name)
	}
	return nil
}

// object puts one, unless it is there.
func (in *reader) object(ctx context.Context, key store.ObjectKey, size int64, info objectInfo) (Outcome, error) {
	have, err := in.Objects.Head(ctx, key, "")
	switch {
	case errors.Is(err, store.ErrNoObject), err == nil && have.Marker:
		return Written, in.put(ctx, key, size, info, store.ObjectCondition{IfNoneMatch: "*"})
	case err != nil:
		return Differs, err
	}
	same := have.Size == size && sameMeta(have.ObjectMeta, info.ObjectMeta)
	if same && have.ETag == info.ETag {
		return Same, nil
	}
	if in.o.Overwrite {
		return Replaced, in.put(ctx, key, size, info, store.ObjectCondition{})
	}
	// The ETag of what was put in parts is another one for each size of parts.
	if same && (strings.Contains(have.ETag, "-") || strings.Contains(info.ETag, "-") || info.ETag == "") {
		equal, err := in.equal(ctx, key, size)
		if err != nil || equal {
			return Same, err
		}
	}
	return Differs, nil
}

func sameMeta(a, b store.ObjectMeta) bool {
	return maps.Equal(a.Headers, b.Headers) && maps.Equal(a.User, b.User) && maps.Equal(a.Tags, b.Tags) && a.Hold == b.Hold && a.Until.Equal(b.Until) && a.Mode == b.Mode
}

// errUnequal ends a comparison.
var errUnequal = errors.New("other bytes")

// comparer takes what must be what its reader gives.
type comparer struct {
	r   io.Reader
	buf []byte
}

func (c *comparer) Write(p []byte) (int, error) {
	if cap(c.buf) < len(p) {
		c.buf = make([]byte, len(p))
	}
	b := c.buf[:len(p)]
	if _, err := io.ReadFull(c.r, b); err != nil {
		return 0, err
	}
	if !bytes.Equal(b, p) {
		return 0, errUnequal
	}
	return len(p), nil
}

func (in *reader) equal(ctx context.Context, key store.ObjectKey, size int64) (bool, error) {
	o, err := in.Objects.Open(ctx, key, "")
	if o != nil {
		defer func() { _ = o.Close() }()
	}
	if err != nil || o.Info().Size != size {
		return false, err
	}
	err = o.Read(ctx, &comparer{r: in.tar}, 0, size)
	if errors.Is(err, errUnequal) {
		return false, nil
	}
	return err == nil, err
}

// created is the event of what is imported.
var created = store.ObjectEvent{Name: "ObjectCreated:Put", Principal: "ebb data import"}

// put puts an object, a large one in parts.
func (in *reader) put(ctx context.Context, key store.ObjectKey, size int64, info objectInfo, c store.ObjectCondition) error {
	if size <= in.o.oneMost {
		_, err := in.Objects.Put(ctx, key, store.PutObject{Body: &whole{in.tar, size}, ObjectMeta: info.ObjectMeta, Algorithm: info.Algorithm, Condition: c, Event: created})
		return err
	}
	up, err := in.Objects.CreateUpload(ctx, key, store.CreateUpload{ObjectMeta: info.ObjectMeta})
	if err != nil {
		return err
	}
	err = in.parts(ctx, key, up.ID, size, c)
	if err != nil {
		err = errors.Join(err, in.Objects.AbortUpload(context.WithoutCancel(ctx), key, up.ID))
	}
	return err
}

func (in *reader) parts(ctx context.Context, key store.ObjectKey, id string, size int64, c store.ObjectCondition) error {
	each := max(in.o.partSize, (size+store.MaxParts-1)/store.MaxParts)
	done := store.CompleteUpload{Condition: c, Event: created}
	done.Event.Name = "ObjectCreated:CompleteMultipartUpload"
	for at := int64(0); at < size; at += each {
		n := min(each, size-at)
		p, err := in.Objects.PutPart(ctx, key, id, len(done.Parts)+1, store.PutPart{Body: &whole{in.tar, n}})
		if err != nil {
			return err
		}
		done.Parts = append(done.Parts, p)
		in.told(in.result)
	}
	_, err := in.Objects.CompleteUpload(ctx, key, id, done)
	return err
}

// whole gives n bytes, and an error when there are fewer: what is cut off must not be stored.
type whole struct {
	r io.Reader
	n int64
}

func (w *whole) Read(p []byte) (int, error) {
	if w.n == 0 {
		return 0, io.EOF
	}
	n, err := w.r.Read(p[:min(int64(len(p)), w.n)])
	w.n -= int64(n)
	if err == io.EOF && w.n > 0 {
		err = io.ErrUnexpectedEOF
	} else if err == io.EOF {
		err = nil
	}
	return n, err
}

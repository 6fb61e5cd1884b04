package fs

import (
	"context"
	"crypto/md5"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/checksum"
	"github.com/ebb-run/ebb/internal/store"
)

// uploadInfo is the part of an upload that is kept as JSON.
type uploadInfo struct {
	store.ObjectMeta
	Algorithm store.Algorithm `json:"a,omitempty"`
	Composite bool            `json:"c,omitempty"`
	Implied   bool            `json:"i,omitempty"`
}

// CreateUpload implements [store.Objects].
func (s *Store) CreateUpload(ctx context.Context, key store.ObjectKey, u store.CreateUpload) (store.Upload, error) {
	info, err := json.Marshal(uploadInfo{u.ObjectMeta, u.Algorithm, u.Composite, u.Implied})
	if err != nil {
		return store.Upload{}, fmt.Errorf("begin upload: %w", err)
	}
	var id string
	now := s.opts.Now()
	err = s.write(ctx, func(t *tx) error {
		b, err := t.bucket(key.Bucket)
		if err != nil {
			return err
		}
		t.seq++
		id = newVersion(t.seq)
		return t.exec("INSERT INTO uploads(bucket, key, id, created, info) VALUES(?, ?, ?, ?, ?)", b.id, []byte(key.Key), id, now.UnixMilli(), info)
	})
	return store.Upload{Key: key.Key, ID: id, Created: now, Algorithm: u.Algorithm, Composite: u.Composite, Implied: u.Implied, ObjectMeta: u.ObjectMeta}, step("begin upload", err)
}

const uploadColumns = "key, id, created, info"

func scanUpload(row interface{ Scan(...any) error }) (store.Upload, error) {
	var u store.Upload
	var key, doc []byte
	var created int64
	if err := row.Scan(&key, &u.ID, &created, &doc); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			err = store.ErrNoUpload
		}
		return u, err
	}
	var info uploadInfo
	if err := json.Unmarshal(doc, &info); err != nil {
		return u, fmt.Errorf("what is kept of an upload of %q: %w", key, err)
	}
	u.Key, u.Created = string(key), time.UnixMilli(created).UTC()
	u.Algorithm, u.Composite, u.Implied, u.ObjectMeta = info.Algorithm, info.Composite, info.Implied, info.ObjectMeta
	return u, nil
}

const findUpload = "SELECT " + uploadColumns + " FROM uploads WHERE bucket = ? AND key = ? AND id = ?"

// Upload implements [store.Objects].
func (s *Store) Upload(ctx context.Context, key store.ObjectKey, id string) (store.Upload, error) {
	bucket, err := s.bucketID(ctx, key.Bucket)
	if err != nil {
		return store.Upload{}, step("read upload", err)
	}
	st, err := s.reader(ctx, findUpload)
	if err != nil {
		return store.Upload{}, step("read upload", err)
	}
	u, err := scanUpload(st.QueryRowContext(ctx, bucket, []byte(key.Key), id))
	return u, step("read upload", err)
}

func (t *tx) upload(key store.ObjectKey, id string) (bucketRow, store.Upload, error) {
	b, err := t.bucket(key.Bucket)
	if err != nil {
		return b, store.Upload{}, err
	}
	st, err := t.stmt(t.ctx, findUpload)
	if err != nil {
		return b, store.Upload{}, err
	}
	u, err := scanUpload(st.QueryRowContext(t.ctx, b.id, []byte(key.Key), id))
	return b, u, err
}

// PutPart implements [store.Objects].
func (s *Store) PutPart(ctx context.Context, key store.ObjectKey, id string, number int, p store.PutPart) (store.PartInfo, error) {
	u, err := s.Upload(ctx, key, id)
	if err != nil {
		return store.PartInfo{}, err
	}
	asked, kept := p.Algorithm, u.Algorithm
	if asked == "" {
		asked = kept
	}
	if kept == "" {
		kept = asked
	}
	if p.From != nil {
		return s.copyPart(ctx, key, id, number, p, kept)
	}
	b, err := s.take(ctx, p.Body, store.MaxPart, asked, kept)
	if err != nil {
		return store.PartInfo{}, step("put part", err)
	}
	if p.Verify != nil {
		if err := p.Verify(b.sums); err != nil {
			s.drop(b)
			return store.PartInfo{}, err
		}
	}
	part := s.part(number, b.sums, b.last)
	err = s.write(ctx, func(t *tx) error {
		if err := t.add(b); err != nil {
			return err
		}
		return t.putPart(key, id, part, b.pieces())
	})
	s.ended(b, err)
	return part, step("put part", err)
}

func (s *Store) part(number int, sums store.ObjectSums, checksum string) store.PartInfo {
	return store.PartInfo{Number: number, Size: sums.Size, ETag: hex.EncodeToString(sums.MD5[:]), Checksum: checksum, Modified: time.UnixMilli(s.opts.Now().UnixMilli()).UTC()}
}

func (s *Store) copyPart(ctx context.Context, key store.ObjectKey, id string, number int, p store.PutPart, a store.Algorithm) (store.PartInfo, error) {
	for {
		var part store.PartInfo
		err := s.copying(ctx, *p.From, a, func(sums store.ObjectSums, pieces []piece) error {
			if p.Verify != nil {
				if err := p.Verify(sums); err != nil {
					return err
				}
			}
			part = s.part(number, sums, sums.Checksum)
			return s.write(ctx, func(t *tx) error {
				if err := t.share(pieces); err != nil {
					return err
				}
				return t.putPart(key, id, part, pieces)
			})
		})
		if errors.Is(err, errGone) {
			continue
		}
		return part, step("copy part", err)
	}
}

func (t *tx) putPart(key store.ObjectKey, id string, part store.PartInfo, pieces []piece) error {
	if _, _, err := t.upload(key, id); err != nil {
		return err
	}
	var old []byte
	switch err := t.row("DELETE FROM parts WHERE upload = ? AND number = ? RETURNING pieces", []any{id, part.Number}, &old); {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return err
	default:
		was, err := decodePieces(old)
		if err != nil {
			return err
		}
		if err := t.unshare(was); err != nil {
			return err
		}
	}
	doc, err := json.Marshal(part)
	if err != nil {
		return err
	}
	return t.exec("INSERT INTO parts(upload, number, info, pieces) VALUES(?, ?, ?, ?)", id, part.Number, doc, encodePieces(pieces))
}

// uploadPart is a row of parts.
type uploadPart struct {
	store.PartInfo
	pieces []piece
}

func scanParts(rows *sql.Rows) ([]uploadPart, error) {
	defer rows.Close()
	var out []uploadPart
	for rows.Next() {
		var doc, pieces []byte
		var p uploadPart
		if err := rows.Scan(&doc, &pieces); err != nil {
			return nil, err
		}
		if err := json.Unmarshal(doc, &p.PartInfo); err != nil {
			return nil, fmt.Errorf("what is kept of a part: %w", err)
		}
		var err error
		if p.pieces, err = decodePieces(pieces); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

const findParts = "SELECT info, pieces FROM parts WHERE upload = ? AND number > ? ORDER BY number LIMIT ?"

// Parts implements [store.Objects].
func (s *Store) Parts(ctx context.Context, key store.ObjectKey, id string, after, limit int) ([]store.PartInfo, bool, error) {
	if _, err := s.Upload(ctx, key, id); err != nil {
		return nil, false, err
	}
	rows, err := s.db.QueryContext(ctx, findParts, id, after, limit+1)
	if err != nil {
		return nil, false, step("list parts", err)
	}
	found, err := scanParts(rows)
	if err != nil {
		return nil, false, step("list parts", err)
	}
	var out []store.PartInfo
	for _, p := range found[:min(len(found), limit)] {
		out = append(out, p.PartInfo)
	}
	return out, len(found) > limit, nil
}

// CompleteUpload implements [store.Objects].
func (s *Store) CompleteUpload(ctx context.Context, key store.ObjectKey, id string, c store.CompleteUpload) (store.ObjectInfo, error) {
	var v version
	err := s.write(ctx, func(t *tx) error {
		b, u, err := t.upload(key, id)
		if err != nil {
			return err
		}
		rows, err := t.query(findParts, id, 0, store.MaxParts+1)
		if err != nil {
			return err
		}
		have, err := scanParts(rows)
		if err != nil {
			return err
		}
		if v, err = assemble(u, have, c.Parts); err != nil {
			return err
		}
		if c.Verify != nil {
			if err := c.Verify(v.ObjectInfo); err != nil {
				return err
			}
		}
		if err := t.share(v.pieces); err != nil {
			return err
		}
		if err := t.put(key, &v, c.Condition, c.Event, s.opts.Now()); err != nil {
			return err
		}
		return t.dropUpload(b.id, key.Key, id, have)
	})
	return v.ObjectInfo, step("complete upload", err)
}

// assemble makes an object of the parts named.
func assemble(u store.Upload, have []uploadPart, named []store.PartInfo) (version, error) {
	v := version{ObjectInfo: store.ObjectInfo{ObjectMeta: u.ObjectMeta}}
	if len(named) == 0 {
		return v, store.ErrPartMissing
	}
	for i := range named[1:] {
		if named[i+1].Number <= named[i].Number {
			return v, store.ErrPartOrder
		}
	}
	sum := md5.New()
	for i, n := range named {
		at, found := slices.BinarySearchFunc(have, n.Number, func(p uploadPart, n int) int { return p.Number - n })
		if !found || n.ETag != "" && !strings.EqualFold(n.ETag, have[at].ETag) || n.Checksum != "" && n.Checksum != have[at].Checksum {
			return v, store.ErrPartMissing
		}
		p := have[at]
		if p.Size < store.MinPart && i < len(named)-1 {
			return v, store.ErrPartTooSmall
		}
		raw, err := hex.DecodeString(p.ETag)
		if err != nil {
			return v, fmt.Errorf("part %d: %w", p.Number, store.ErrDamaged)
		}
		sum.Write(raw)
		v.Size += p.Size
		v.pieces = append(v.pieces, p.pieces...)
		v.Parts = append(v.Parts, store.PartInfo{Number: p.Number, Size: p.Size, Checksum: p.Checksum})
	}
	if v.Size > store.MaxObject {
		return v, store.ErrObjectTooLarge
	}
	v.ETag = fmt.Sprintf("%s-%d", hex.EncodeToString(sum.Sum(nil)), len(named))
	if u.Algorithm == "" {
		return v, nil
	}
	v.Checksum = store.Checksum{Algorithm: u.Algorithm, Composite: u.Composite}
	var err error
	if u.Composite {
		v.Checksum.Value, err = checksum.Compose(u.Algorithm, v.Parts)
	} else {
		v.Checksum.Value, err = checksum.Combine(u.Algorithm, v.Parts)
	}
	return v, err
}

// AbortUpload implements [store.Objects].
func (s *Store) AbortUpload(ctx context.Context, key store.ObjectKey, id string) error {
	return step("abort upload", s.write(ctx, func(t *tx) error {
		b, _, err := t.upload(key, id)
		if err != nil {
			return err
		}
		rows, err := t.query(findParts, id, -1, -1)
		if err != nil {
			return err
		}
		have, err := scanParts(rows)
		if err != nil {
			return err
		}
		return t.dropUpload(b.id, key.Key, id, have)
	}))
}

func (t *tx) dropUpload(bucket int64, key, id string, parts []uploadPart) error {
	for _, p := range parts {
		if err := t.unshare(p.pieces); err != nil {
			return err
		}
	}
	if err := t.exec("DELETE FROM parts WHERE upload = ?", id); err != nil {
		return err
	}
	return t.exec("DELETE FROM uploads WHERE bucket = ? AND key = ? AND id = ?", bucket, []byte(key), id)
}

// dropUploads drops all of a bucket.
func (t *tx) dropUploads(bucket int64) error {
	rows, err := t.query("SELECT "+uploadColumns+" FROM uploads WHERE bucket = ?", bucket)
	if err != nil {
		return err
	}
	all, err := scanUploads(rows)
	if err != nil {
		return err
	}
	for _, u := range all {
		rows, err := t.query(findParts, u.ID, -1, -1)
		if err != nil {
			return err
		}
		have, err := scanParts(rows)
		if err != nil {
			return err
		}
		if err := t.dropUpload(bucket, u.Key, u.ID, have); err != nil {
			return err
		}
	}
	return nil
}

func scanUploads(rows *sql.Rows) ([]store.Upload, error) {
	defer rows.Close()
	var out []store.Upload
	for rows.Next() {
		u, err := scanUpload(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, rows.Err()
}

// Uploads implements [store.Objects].
func (s *Store) Uploads(ctx context.Context, id store.BucketID, l store.ListUploads) (store.UploadList, error) {
	var out store.UploadList
	bucket, err := s.bucketID(ctx, id)
	if err != nil || l.Limit <= 0 {
		return out, step("list uploads", err)
	}
	at, last := begin(l.Prefix, l.Delimiter, l.After), ""
	key, upload := at.key, ""
	if at.past { // ids are above "" and below "~"
		if upload = "~"; l.AfterID != "" {
			upload = l.AfterID
		}
	}
	for {
		rows, err := s.db.QueryContext(ctx, "SELECT "+uploadColumns+" FROM uploads WHERE bucket = ? AND (key, id) > (?, ?) ORDER BY key, id LIMIT ?", bucket, []byte(key), upload, chunk)
		if err != nil {
			return out, step("list uploads", err)
		}
		found, err := scanUploads(rows)
		if err != nil {
			return out, step("list uploads", err)
		}
		for _, u := range found {
			if !strings.HasPrefix(u.Key, l.Prefix) {
				return out, nil
			}
			key, upload = u.Key, u.ID
			if last != "" && strings.HasPrefix(u.Key, last) {
				continue
			}
			if len(out.Uploads)+len(out.Prefixes) == l.Limit {
				out.More = true
				return out, nil
			}
			if rolled := roll(u.Key, l.Prefix, l.Delimiter); rolled != "" {
				out.Prefixes = append(out.Prefixes, rolled)
				out.NextKey, out.NextID, last = rolled, "", rolled
				continue
			}
			out.Uploads = append(out.Uploads, u)
			out.NextKey, out.NextID = u.Key, u.ID
		}
		if len(found) < chunk {
			return out, nil
		}
	}
}

package fs

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
)

// versionInfo is the part of a version that is kept as JSON.
type versionInfo struct {
	store.ObjectMeta
	Checksum store.Checksum   `json:"k,omitzero"`
	Parts    []store.PartInfo `json:"p,omitempty"`
}

// version is a row of versions.
type version struct {
	store.ObjectInfo
	seq    int64
	pieces []piece
}

const versionColumns = "key, seq, version, latest, marker, size, etag, modified, info, pieces"

func scanVersion(row interface{ Scan(...any) error }) (version, error) {
	var v version
	var key, info, pieces []byte
	var modified int64
	if err := row.Scan(&key, &v.seq, &v.Version, &v.Latest, &v.Marker, &v.Size, &v.ETag, &modified, &info, &pieces); err != nil {
		return v, err
	}
	v.Key, v.Modified = string(key), time.UnixMilli(modified).UTC()
	if len(info) > 2 { // "{}" says nothing
		var i versionInfo
		if err := json.Unmarshal(info, &i); err != nil {
			return v, fmt.Errorf("what is kept of %q: %w", v.Key, err)
		}
		v.ObjectMeta, v.Checksum, v.Parts = i.ObjectMeta, i.Checksum, i.Parts
	}
	var err error
	v.pieces, err = decodePieces(pieces)
	return v, err
}

// versionQuery says how to find a version, "" for the latest, and by what arguments after bucket and key.
func versionQuery(id string) (q string, args []any, err error) {
	const from = "SELECT " + versionColumns + " FROM versions WHERE bucket = ? AND key = ?"
	switch id {
	case "":
		return from + " ORDER BY seq LIMIT 1", nil, nil
	case store.NullVersion:
		return from + " AND version = 'null'", nil, nil
	}
	seq, ok := versionSeq(id)
	if !ok {
		return "", nil, store.ErrNoVersion
	}
	return from + " AND seq = ? AND version = ?", []any{-seq, id}, nil
}

var versionText = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// newVersion makes the id of a version: its place in time, and enough chance that it cannot be guessed.
func newVersion(seq int64) string {
	var raw [20]byte
	binary.BigEndian.PutUint64(raw[:], uint64(seq))
	_, _ = rand.Read(raw[8:]) // never fails
	return versionText.EncodeToString(raw[:])
}

func versionSeq(id string) (int64, bool) {
	raw, err := versionText.DecodeString(id)
	if err != nil || len(raw) != 20 {
		return 0, false
	}
	seq := binary.BigEndian.Uint64(raw)
	return int64(seq), seq < 1<<62
}

// reader prepares a statement for readers once.
func (s *Store) reader(ctx context.Context, q string) (*sql.Stmt, error) {
	if st, ok := s.stmts.Load(q); ok {
		return st.(*sql.Stmt), nil
	}
	st, err := s.db.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	if old, loaded := s.stmts.LoadOrStore(q, st); loaded {
		_ = st.Close()
		return old.(*sql.Stmt), nil
	}
	return st, nil
}

// find finds a version for readers.
func (s *Store) find(ctx context.Context, key store.ObjectKey, id string) (version, error) {
	bucket, err := s.bucketID(ctx, key.Bucket)
	if err != nil {
		return version{}, err
	}
	q, args, err := versionQuery(id)
	if err != nil {
		return version{}, err
	}
	st, err := s.reader(ctx, q)
	if err != nil {
		return version{}, err
	}
	v, err := scanVersion(st.QueryRowContext(ctx, append([]any{bucket, []byte(key.Key)}, args...)...))
	if errors.Is(err, sql.ErrNoRows) {
		return v, missing(id)
	}
	return v, err
}

func missing(id string) error {
	if id == "" {
		return store.ErrNoObject
	}
	return store.ErrNoVersion
}

// version finds a version for writers; nil when there is none.
func (t *tx) version(bucket int64, key, id string) (*version, error) {
	q, args, err := versionQuery(id)
	if err != nil {
		return nil, nil
	}
	st, err := t.stmt(t.ctx, q)
	if err != nil {
		return nil, err
	}
	v, err := scanVersion(st.QueryRowContext(t.ctx, append([]any{bucket, []byte(key)}, args...)...))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &v, err
}

// Head implements [store.Objects].
func (s *Store) Head(ctx context.Context, key store.ObjectKey, id string) (store.ObjectInfo, error) {
	v, err := s.find(ctx, key, id)
	return v.ObjectInfo, step("read object", err)
}

// Open implements [store.Objects].
func (s *Store) Open(ctx context.Context, key store.ObjectKey, id string) (store.Object, error) {
	s.gate.RLock() // reads are let in together; only the remover of files waits
	defer s.gate.RUnlock()
	v, err := s.find(ctx, key, id)
	if err != nil {
		return nil, step("open object", err)
	}
	o := &object{s: s, info: v.ObjectInfo, pieces: v.pieces}
	if o.inline, err = s.inlined(ctx, v.pieces); err != nil {
		return nil, step("open object", err)
	}
	s.pin(v.pieces)
	if v.Marker {
		return o, store.ErrNoObject
	}
	return o, nil
}

// Put implements [store.Objects].
func (s *Store) Put(ctx context.Context, key store.ObjectKey, p store.PutObject) (store.ObjectInfo, error) {
	if p.From != nil {
		return s.putCopy(ctx, key, p)
	}
	if _, err := s.bucketID(ctx, key.Bucket); err != nil {
		return store.ObjectInfo{}, step("put object", err)
	}
	b, err := s.take(ctx, p.Body, store.MaxPart, p.Algorithm)
	if err != nil {
		return store.ObjectInfo{}, step("put object", err)
	}
	if p.Verify != nil {
		if err := p.Verify(b.sums); err != nil {
			s.drop(b)
			return store.ObjectInfo{}, err
		}
	}
	v := version{ObjectInfo: store.ObjectInfo{Size: b.size, ETag: hex.EncodeToString(b.sums.MD5[:]), ObjectMeta: p.ObjectMeta}, pieces: b.pieces()}
	if p.Algorithm != "" {
		v.Checksum = store.Checksum{Algorithm: p.Algorithm, Value: b.sums.Checksum}
	}
	err = s.write(ctx, func(t *tx) error {
		if err := t.add(b); err != nil {
			return err
		}
		return t.put(key, &v, p.Condition, p.Event, s.opts.Now())
	})
	s.ended(b, err)
	return v.ObjectInfo, step("put object", err)
}

// ended settles a blob after the write that was to name it.
func (s *Store) ended(b *blob, err error) {
	switch {
	case err == nil:
		s.opts.Passing("committed")
		s.settled(b.id)
	case !errors.As(err, new(unsure)): // what may be named stays
		s.drop(b)
	}
}

// put makes v the latest version of a key, as the bucket's versioning has it, and fills in what that says.
func (t *tx) put(key store.ObjectKey, v *version, c store.ObjectCondition, e store.ObjectEvent, now time.Time) error {
	b, err := t.bucket(key.Bucket)
	if err != nil {
		return err
	}
	old, err := t.version(b.id, key.Key, "")
	if err != nil {
		return err
	}
	if err := holds(c, old); err != nil {
		return err
	}
	if err := t.place(b, key.Key, v, old, now); err != nil {
		return err
	}
	return t.note(b, key, e, v.ObjectInfo, now)
}

// place inserts v above old, the latest until now or nil.
func (t *tx) place(b bucketRow, key string, v, old *version, now time.Time) error {
	if b.versioning != store.Versioned {
		null := old
		if old != nil && old.Version != store.NullVersion {
			var err error
			if null, err = t.version(b.id, key, store.NullVersion); err != nil {
				return err
			}
		}
		if null != nil {
			if err := t.erase(b.id, null); err != nil {
				return err
			}
			if null.seq == old.seq {
				old = nil
			}
		}
	}
	if old != nil {
		if err := t.exec("UPDATE versions SET latest = 0 WHERE bucket = ? AND key = ? AND seq = ?", b.id, []byte(key), old.seq); err != nil {
			return err
		}
	}
	t.seq++
	v.Key, v.seq, v.Version, v.Latest, v.Modified = key, -t.seq, store.NullVersion, true, time.UnixMilli(now.UnixMilli()).UTC()
	if b.versioning == store.Versioned {
		v.Version = newVersion(t.seq)
	}
	info, err := json.Marshal(versionInfo{v.ObjectMeta, v.Checksum, v.Parts})
	if err != nil {
		return err
	}
	return t.exec("INSERT INTO versions(bucket, key, seq, version, latest, marker, size, etag, modified, info, pieces) VALUES(?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
		b.id, []byte(key), v.seq, v.Version, v.Marker, v.Size, v.ETag, v.Modified.UnixMilli(), info, encodePieces(v.pieces))
}

// erase removes a version's row, and its data where nothing else uses them.
func (t *tx) erase(bucket int64, v *version) error {
	if err := t.exec("DELETE FROM versions WHERE bucket = ? AND key = ? AND seq = ?", bucket, []byte(v.Key), v.seq); err != nil {
		return err
	}
	return t.unshare(v.pieces)
}

// holds says whether a condition holds of the version that stands, or nil.
func holds(c store.ObjectCondition, old *version) error {
	if old != nil && old.Marker {
		old = nil
	}
	if c.IfMatch != "" {
		if old == nil {
			return store.ErrNoObject
		}
		if c.IfMatch != "*" && c.IfMatch != old.ETag {
			return store.ErrPrecondition
		}
	}
	if c.IfNoneMatch != "" && old != nil && (c.IfNoneMatch == "*" || c.IfNoneMatch == old.ETag) {
		return store.ErrPrecondition
	}
	return nil
}

// Update implements [store.Objects].
func (s *Store) Update(ctx context.Context, key store.ObjectKey, id string, e store.ObjectEvent, change func(*store.ObjectMeta) error) (store.ObjectInfo, error) {
	var out store.ObjectInfo
	err := s.write(ctx, func(t *tx) error {
		b, err := t.bucket(key.Bucket)
		if err != nil {
			return err
		}
		v, err := t.version(b.id, key.Key, id)
		if err != nil {
			return err
		}
		if v == nil {
			return missing(id)
		}
		if v.Marker {
			out = v.ObjectInfo
			return store.ErrNoObject
		}
		if err := change(&v.ObjectMeta); err != nil {
			return err
		}
		info, err := json.Marshal(versionInfo{v.ObjectMeta, v.Checksum, v.Parts})
		if err != nil {
			return err
		}
		if err := t.exec("UPDATE versions SET info = ? WHERE bucket = ? AND key = ? AND seq = ?", info, b.id, []byte(key.Key), v.seq); err != nil {
			return err
		}
		out = v.ObjectInfo
		return t.note(b, key, e, out, s.opts.Now())
	})
	return out, step("change object", err)
}

// Delete implements [store.Objects].
func (s *Store) Delete(ctx context.Context, key store.ObjectKey, d store.DeleteObject) (store.Deleted, error) {
	var out store.Deleted
	err := s.write(ctx, func(t *tx) (err error) {
		out = store.Deleted{}
		b, err := t.bucket(key.Bucket)
		if err != nil {
			return err
		}
		v, err := t.version(b.id, key.Key, d.Version)
		if err != nil {
			return err
		}
		if err := holds(d.Condition, v); err != nil {
			return err
		}
		if d.Version == "" && b.versioning != store.Unversioned {
			return t.mark(b, key, v, d, &out, s.opts.Now())
		}
		return t.deleteVersion(b, key, v, d, &out, s.opts.Now())
	})
	return out, step("delete object", err)
}

// mark puts a marker above the versions of a key.
func (t *tx) mark(b bucketRow, key store.ObjectKey, old *version, d store.DeleteObject, out *store.Deleted, now time.Time) error {
	m := version{ObjectInfo: store.ObjectInfo{Marker: true}}
	if err := t.place(b, key.Key, &m, old, now); err != nil {
		return err
	}
	*out = store.Deleted{Version: m.Version, Marker: true, Found: old != nil && !old.Marker}
	if d.MarkerEvent != "" {
		d.Event.Name = d.MarkerEvent
	}
	return t.note(b, key, d.Event, m.ObjectInfo, now)
}

// deleteVersion removes one version for good.
func (t *tx) deleteVersion(b bucketRow, key store.ObjectKey, v *version, d store.DeleteObject, out *store.Deleted, now time.Time) error {
	if b.versioning != store.Unversioned || d.Version != "" {
		out.Version = d.Version
	}
	if v == nil {
		return nil
	}
	if v.Hold || v.Until.After(now) && !(d.Bypass && strings.EqualFold(v.Mode, "GOVERNANCE")) {
		return store.ErrLocked
	}
	out.Marker, out.Found = v.Marker, true
	if err := t.erase(b.id, v); err != nil {
		return err
	}
	if v.Latest {
		if err := t.exec("UPDATE versions SET latest = 1 WHERE bucket = ?1 AND key = ?2 AND seq = (SELECT min(seq) FROM versions WHERE bucket = ?1 AND key = ?2)", b.id, []byte(key.Key)); err != nil {
			return err
		}
	}
	return t.note(b, key, d.Event, v.ObjectInfo, now)
}

var errGone = errs.New(errs.Conflict, "what is copied was deleted meanwhile")

// putCopy makes an object of one that stands, without writing its data again.
func (s *Store) putCopy(ctx context.Context, key store.ObjectKey, p store.PutObject) (store.ObjectInfo, error) {
	for {
		var v version
		err := s.copying(ctx, *p.From, p.Algorithm, func(sums store.ObjectSums, pieces []piece) error {
			if p.Verify != nil {
				if err := p.Verify(sums); err != nil {
					return err
				}
			}
			v = version{ObjectInfo: store.ObjectInfo{Size: sums.Size, ETag: hex.EncodeToString(sums.MD5[:]), ObjectMeta: p.ObjectMeta}, pieces: pieces}
			if p.Algorithm != "" {
				v.Checksum = store.Checksum{Algorithm: p.Algorithm, Value: sums.Checksum}
			}
			return s.write(ctx, func(t *tx) error {
				if err := t.share(pieces); err != nil {
					return err
				}
				return t.put(key, &v, p.Condition, p.Event, s.opts.Now())
			})
		})
		if errors.Is(err, errGone) {
			continue // another version stands now, or none
		}
		return v.ObjectInfo, step("copy object", err)
	}
}

// copying opens what is to be copied, counts it, and calls do with its sums and pieces.
func (s *Store) copying(ctx context.Context, from store.ObjectSource, a store.Algorithm, do func(store.ObjectSums, []piece) error) error {
	src, err := s.Open(ctx, from.ObjectKey, from.Version)
	if src != nil {
		defer src.Close()
	}
	if err != nil {
		return err
	}
	info := src.Info()
	if from.Check != nil {
		if err := from.Check(info); err != nil {
			return err
		}
	}
	length := from.Length
	if length < 0 {
		length = info.Size - from.Offset
	}
	if from.Offset < 0 || from.Offset+length > info.Size {
		return errs.New(errs.Invalid, "the range is not in the object")
	}
	if length > store.MaxPart {
		return store.ErrObjectTooLarge
	}
	sums := store.ObjectSums{Size: length}
	raw, err := hex.DecodeString(info.ETag)
	known := err == nil && len(raw) == len(sums.MD5) && length == info.Size
	if known && (a == "" || a == info.Checksum.Algorithm && !info.Checksum.Composite) {
		copy(sums.MD5[:], raw)
		if a != "" {
			sums.Checksum = info.Checksum.Value
		}
	} else {
		c := newCounter(a)
		if err := src.Read(ctx, c, from.Offset, length); err != nil {
			return err
		}
		sums = c.sums()
	}
	return do(sums, cut(src.(*object).pieces, from.Offset, length))
}

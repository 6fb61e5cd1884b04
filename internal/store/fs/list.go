package fs

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/ebb-run/ebb/internal/store"
)

// chunk is how many rows are read at a time.
const chunk = 512

// position is a place between the rows of a listing.
type position struct {
	key  string
	seq  int64 // after this version of key
	past bool  // at key itself, too, when false
}

// List implements [store.Objects].
func (s *Store) List(ctx context.Context, id store.BucketID, l store.ListObjects) (store.ObjectList, error) {
	var out store.ObjectList
	bucket, err := s.bucketID(ctx, id)
	if err != nil || l.Limit <= 0 {
		return out, step("list objects", err)
	}
	at := begin(l.Prefix, l.Delimiter, l.After)
	if seq, ok := versionSeq(l.AfterVersion); l.Versions && ok {
		at.seq, at.past = -seq, false
	} else if l.Versions && l.AfterVersion == store.NullVersion {
		v, err := s.find(ctx, store.ObjectKey{Bucket: id, Key: l.After}, l.AfterVersion)
		if err == nil {
			at.seq, at.past = v.seq, false
		}
	}
	last := "" // the common prefix that was listed last
	for {
		var rows []version
		if rows, err = s.rows(ctx, bucket, l.Versions, at); err != nil {
			return out, step("list objects", err)
		}
		for i := range rows {
			v := &rows[i]
			if !strings.HasPrefix(v.Key, l.Prefix) {
				return out, nil
			}
			if last != "" && strings.HasPrefix(v.Key, last) {
				continue
			}
			if len(out.Objects)+len(out.Prefixes) == l.Limit {
				out.More = true
				return out, nil
			}
			if rolled := roll(v.Key, l.Prefix, l.Delimiter); rolled != "" {
				out.Prefixes = append(out.Prefixes, rolled)
				out.NextKey, out.NextVersion, last = rolled, "", rolled
				continue
			}
			out.Objects = append(out.Objects, v.ObjectInfo)
			out.NextKey, out.NextVersion = v.Key, v.Version
		}
		if len(rows) < chunk {
			return out, nil
		}
		end := rows[len(rows)-1]
		if at = (position{key: end.Key, seq: end.seq, past: !l.Versions}); last != "" && strings.HasPrefix(end.Key, last) {
			at = position{key: after(last)}
		}
		if at.key == "" {
			return out, nil
		}
	}
}

// rows reads a chunk of versions from a position on.
func (s *Store) rows(ctx context.Context, bucket int64, versions bool, at position) ([]version, error) {
	const from = "SELECT " + versionColumns + " FROM versions "
	q, args := from+"INDEXED BY live WHERE bucket = ? AND key >= ? AND latest = 1 AND marker = 0 ORDER BY bucket, key LIMIT ?", []any{bucket, []byte(at.key), chunk}
	switch {
	case versions && at.past:
		q = from + "WHERE bucket = ? AND key > ? ORDER BY bucket, key, seq LIMIT ?"
	case versions && at.seq != 0:
		q, args = from+"WHERE bucket = ? AND (key, seq) > (?, ?) ORDER BY bucket, key, seq LIMIT ?", []any{bucket, []byte(at.key), at.seq, chunk}
	case versions:
		q = from + "WHERE bucket = ? AND key >= ? ORDER BY bucket, key, seq LIMIT ?"
	case at.past:
		q = strings.Replace(q, "key >= ?", "key > ?", 1)
	}
	st, err := s.reader(ctx, q)
	if err != nil {
		return nil, err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return scanVersions(rows)
}

func scanVersions(rows *sql.Rows) ([]version, error) {
	var out []version
	for rows.Next() {
		v, err := scanVersion(rows)
		if err != nil {
			return nil, fmt.Errorf("read version: %w", err)
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// begin says where a listing begins: after a key or a common prefix.
func begin(prefix, delimiter, start string) position {
	if start < prefix {
		return position{key: prefix}
	}
	if rest, ok := strings.CutPrefix(start, prefix); ok && delimiter != "" {
		if i := strings.Index(rest, delimiter); i >= 0 && i+len(delimiter) == len(rest) {
			return position{key: after(start)} // a common prefix that was listed: what is below it is done
		}
	}
	return position{key: start, past: start != ""}
}

// after returns the first string that is above all with a prefix; "" when there is none.
func after(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}

// roll returns the common prefix that a key is rolled up to, "" for none.
func roll(key, prefix, delimiter string) string {
	if delimiter == "" {
		return ""
	}
	i := strings.Index(key[len(prefix):], delimiter)
	if i < 0 {
		return ""
	}
	return key[:len(prefix)+i+len(delimiter)]
}

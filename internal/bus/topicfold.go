package bus

import (
	"context"
	"encoding/json"
	"errors"
)

// The items of topics.
const (
	kindTopic       kind = 'T' // topicPut
	kindTopicDelete kind = 'U' // topicDeletion
)

type topicPut struct {
	Topic Topic `json:"topic"`
}

type topicDeletion struct {
	Topic string `json:"t"` // key
}

const topicSchema = `
CREATE TABLE topics(key TEXT PRIMARY KEY, id INTEGER NOT NULL, spec BLOB NOT NULL) WITHOUT ROWID;
-- What stood when, for the base; a spec of NULL is a deletion.
CREATE TABLE topic_log(seq INTEGER NOT NULL, idx INTEGER NOT NULL, id INTEGER NOT NULL, key TEXT NOT NULL, spec BLOB, PRIMARY KEY(seq, idx)) WITHOUT ROWID;
CREATE INDEX topic_keys ON topic_log(key, seq, idx);
`

// topic applies an item of topics. A topic keeps its number while it stands.
func (f *folder) topic(ctx context.Context, at did, it item) error {
	if it.kind == kindTopicDelete {
		return read(it, func(d topicDeletion) error {
			n, err := f.x.changed(ctx, "DELETE FROM topics WHERE key = ?", d.Topic)
			if err != nil || n == 0 {
				return err
			}
			return f.topicVersion(ctx, at, 0, d.Topic, nil)
		})
	}
	return read(it, func(p topicPut) error {
		key, id := p.Topic.Key(), subID(at)
		if _, err := f.x.one(ctx, []any{&id}, "SELECT id FROM topics WHERE key = ?", key); err != nil {
			return err
		}
		spec := jsonItem(kindTopic, p.Topic).body
		if err := f.topicVersion(ctx, at, id, key, spec); err != nil {
			return err
		}
		return f.x.exec(ctx, "INSERT OR REPLACE INTO topics(key, id, spec) VALUES(?, ?, ?)", key, id, spec)
	})
}

func (f *folder) topicVersion(ctx context.Context, at did, id int64, key string, spec []byte) error {
	return f.x.exec(ctx, "INSERT INTO topic_log(seq, idx, id, key, spec) VALUES(?, ?, ?, ?, ?)", int64(at.Seq), at.Idx, id, key, spec)
}

// baseTopic is a topic that stood where the log now begins.
type baseTopic struct {
	ID   int64  `json:"id"`
	Key  string `json:"key"`
	Spec []byte `json:"spec"`
}

// topicsAt gives the topics that stood before a block.
func (x *index) topicsAt(ctx context.Context, floor uint64) ([]baseTopic, error) {
	rows, err := x.query(ctx, `SELECT id, key, spec FROM topic_log v WHERE seq < ?1 AND spec IS NOT NULL
		AND NOT EXISTS(SELECT 1 FROM topic_log w WHERE w.key = v.key AND w.seq < ?1 AND (w.seq, w.idx) > (v.seq, v.idx)) ORDER BY key`, int64(floor))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []baseTopic
	for rows.Next() {
		var t baseTopic
		if err := rows.Scan(&t.ID, &t.Key, &t.Spec); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, rows.Err()
}

// setTopics begins a new index with the topics of a base.
func (x *index) setTopics(ctx context.Context, b *base) error {
	for i, t := range b.Topics {
		if err := errors.Join(
			x.exec(ctx, "INSERT INTO topic_log(seq, idx, id, key, spec) VALUES(?, ?, ?, ?, ?)", int64(b.Seq)-1, i, t.ID, t.Key, t.Spec),
			x.exec(ctx, "INSERT INTO topics(key, id, spec) VALUES(?, ?, ?)", t.Key, t.ID, t.Spec)); err != nil {
			return err
		}
	}
	return nil
}

// pruneTopics removes what no base needs any more, once everything below floor is purged.
func (x *index) pruneTopics(ctx context.Context, floor uint64) error {
	return errors.Join(
		x.exec(ctx, `DELETE FROM topic_log AS l WHERE seq < ?1 AND EXISTS(SELECT 1 FROM topic_log n WHERE n.key = l.key AND n.seq < ?1 AND (n.seq, n.idx) > (l.seq, l.idx))`, int64(floor)),
		x.exec(ctx, "DELETE FROM topic_log WHERE seq < ? AND spec IS NULL", int64(floor)))
}

// topicPage asks a Partition for one topic, or for those behind a key.
type topicPage struct {
	Key   string `json:"key,omitempty"`
	After string `json:"after,omitempty"`
}

type topicState struct {
	Spec Topic `json:"spec"`
	ID   int64 `json:"id"`
}

// topics fills an answer with a page.
func (o *owner) topics(ctx context.Context, q topicPage, r *reply) error {
	rows, err := o.x.db.QueryContext(ctx, "SELECT id, spec FROM topics WHERE key > ?1 AND (?2 = '' OR key = ?2) ORDER BY key", q.After, q.Key)
	if err != nil {
		return err
	}
	defer rows.Close()
	for size := 0; rows.Next(); {
		var t topicState
		var spec []byte
		if err := errors.Join(rows.Scan(&t.ID, &spec), json.Unmarshal(spec, &t.Spec)); err != nil {
			return err
		}
		if size += len(spec) + 64; size > maxPage && len(r.Topics) > 0 {
			r.More = true
			break
		}
		r.Topics = append(r.Topics, t)
	}
	return rows.Err()
}

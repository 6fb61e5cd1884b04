package state

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/identity"
)

// The records of keys: "<tenant>.key.<id>", sealed like a Deployment, so that who can write to the bucket but has not the sealing
// key makes none; and "<tenant>.keyuse.<id>", in clear, when it was last used. An ebb that knows no keys leaves both alone.
const (
	kindKey = "key"
	kindUse = "keyuse"
)

// keyFormat is the version of both records.
const keyFormat = 1

func keyRecord(kind, tenant, id string) string { return encode(tenant) + "." + kind + "." + encode(id) }

// KeyChange is one state of a key's records.
type KeyChange struct {
	Key  *identity.Key // nil where only the last use is told
	Seq  uint64        // of the Key's record
	ID   string
	Used time.Time
}

// PutKey writes a key's record, if it still has the sequence number expect, or does not exist for 0: else it is errs.Conflict.
// When it returns the record is on disk.
func (s *Store) PutKey(ctx context.Context, tenant string, k identity.Key, expect uint64) (uint64, error) {
	if tenant == "" || k.ID == "" || len(k.ID) > 64 || len(k.Name)+len(k.App)+len(k.By) > maxText {
		return 0, errs.New(errs.Invalid, "the key's name, app or maker is too long, or it has no ID")
	}
	at := keyRecord(kindKey, tenant, k.ID)
	plain, err := json.Marshal(k)
	if err != nil {
		return 0, fmt.Errorf("encode key: %w", err)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	data := s.sealKey(at, plain)
	var seq uint64
	if expect == 0 {
		seq, err = s.kv.Create(ctx, at, data)
	} else {
		seq, err = s.kv.Update(ctx, at, data, expect)
	}
	switch {
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return 0, errs.New(errs.Conflict, "key %s was changed meanwhile", k.ID).WithHint("Look at `ebb keys list`, and try again.")
	case err != nil:
		return 0, fail(ctx, "write key "+k.ID, err)
	}
	return seq, nil
}

// keyHead stands in clear before a sealed key.
func keyHead() []byte { return fmt.Appendf(nil, `{"format":%d}`+"\n", keyFormat) }

func (s *Store) sealKey(at string, plain []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize(), s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	rand.Read(nonce)
	return slices.Concat(keyHead(), s.aead.Seal(nonce, nonce, plain, slices.Concat([]byte(at), []byte("\n"), keyHead())))
}

func (s *Store) openKey(at, id string, data []byte) (*identity.Key, error) {
	plain, err := s.openSealed(at, "key "+id, data)
	if errs.CodeOf(err) == errs.Unsupported {
		return nil, err
	}
	var k identity.Key
	if err != nil || json.Unmarshal(plain, &k) != nil || k.ID != id {
		return nil, damagedKey(id)
	}
	return &k, nil
}

// openSealed reads what sealKey wrote.
func (s *Store) openSealed(at, what string, data []byte) ([]byte, error) {
	line, sealed, ok := bytes.Cut(data, []byte("\n"))
	var h struct {
		Format int `json:"format"`
	}
	damaged := errs.New(errs.Failed, "the record of a %s is damaged: it was changed, cut, or written with another sealing key", what)
	if !ok || json.Unmarshal(line, &h) != nil || h.Format < 1 || len(sealed) < s.aead.NonceSize() {
		return nil, damaged
	}
	if h.Format > keyFormat {
		return nil, newer(what, h.Format)
	}
	n := s.aead.NonceSize()
	plain, err := s.aead.Open(nil, sealed[:n], sealed[n:], slices.Concat([]byte(at), []byte("\n"), line, []byte("\n")))
	if err != nil {
		return nil, damaged
	}
	return plain, nil
}

func damagedKey(id string) error {
	return errs.New(errs.Failed, "the record of key %s is damaged: it was changed, cut, or written with another sealing key", id).
		WithHint("It opens nothing. Make another with `ebb keys create`.")
}

// use is a record of kindUse.
type use struct {
	Format int       `json:"format"`
	Used   time.Time `json:"used"`
}

// UseKey records when a key was last used.
func (s *Store) UseKey(ctx context.Context, tenant, id string, at time.Time) error {
	data, err := json.Marshal(use{keyFormat, at.UTC()})
	if err != nil {
		return fmt.Errorf("encode use of key: %w", err)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	if _, err := s.kv.Put(ctx, keyRecord(kindUse, tenant, id), data); err != nil {
		return fail(ctx, "write use of key "+id, err)
	}
	return nil
}

// Keys calls f for every record of the Tenant's keys as it is. A record that cannot be read is told to bad, and the others are read:
// one that is damaged opens nothing, and must not keep the rest out.
func (s *Store) Keys(ctx context.Context, tenant string, f func(KeyChange), bad func(error)) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	for _, kind := range []string{kindKey, kindUse} {
		err := s.each(ctx, keyPattern(kind, tenant), func(e jetstream.KeyValueEntry) error {
			s.keyChange(e, f, bad)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func keyPattern(kind, tenant string) string { return encode(tenant) + "." + kind + ".*" }

func (s *Store) keyChange(e jetstream.KeyValueEntry, f func(KeyChange), bad func(error)) {
	parts := strings.Split(e.Key(), ".")
	id, ok := decode(parts[len(parts)-1])
	if !ok || len(parts) != 3 {
		return
	}
	if parts[1] == kindUse {
		var u use
		if json.Unmarshal(e.Value(), &u) == nil && u.Format == keyFormat {
			f(KeyChange{ID: id, Used: u.Used})
		}
		return
	}
	k, err := s.openKey(e.Key(), id, e.Value())
	if err != nil {
		bad(err)
		return
	}
	f(KeyChange{ID: id, Key: k, Seq: e.Revision()})
}

// WatchKeys calls f for every key's record as it is, then for every change in order, from whatever Node it comes. It blocks until
// ctx ends, which is no error, or the connection is lost for good.
func (s *Store) WatchKeys(ctx context.Context, tenant string, f func(KeyChange), bad func(error)) error {
	w, err := s.kv.Watch(ctx, keyPattern(kindKey, tenant), jetstream.IgnoreDeletes())
	if err != nil {
		return fault("watch keys", err)
	}
	defer func() { _ = w.Stop() }()
	gone := s.conn.StatusChanged(natsgo.CLOSED)
	defer s.conn.RemoveStatusListener(gone)
	if s.conn.IsClosed() {
		return fault("watch keys", natsgo.ErrConnectionClosed)
	}
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok && ctx.Err() != nil:
				return nil
			case !ok:
				return fault("watch keys", natsgo.ErrConnectionClosed)
			case e != nil:
				s.keyChange(e, f, bad)
			}
		case <-gone:
			return fault("watch keys", natsgo.ErrConnectionClosed)
		case <-ctx.Done():
			return nil
		}
	}
}

package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// Sealed is a record that only who has the sealing key can read: "<tenant>.<kind>.<digest of its name>". An ebb that does not know its
// kind leaves it alone.
type Sealed struct {
	Data []byte
	Seq  uint64 // of this state of it, for PutSealed and DeleteSealed
}

// MaxSealed bounds the data of a Sealed, in bytes.
const MaxSealed = maxRecord - 1024

// sealedAt is the bucket's key of a record. Names may be longer than keys, and be what is to be kept.
func sealedAt(tenant, kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return encode(tenant) + "." + kind + "." + hex.EncodeToString(sum[:20])
}

// PutSealed writes a record, if it still has the sequence number expect, or does not exist for 0: else it is errs.Conflict. kind has small
// letters only. When it returns the record is on disk.
func (s *Store) PutSealed(ctx context.Context, tenant, kind, name string, data []byte, expect uint64) (uint64, error) {
	if tenant == "" || name == "" || kind == "" {
		return 0, errs.New(errs.Invalid, "a record needs a tenant, a kind and a name")
	}
	if len(data) > MaxSealed {
		return 0, errs.New(errs.TooLarge, "the record has %d bytes, the limit is %d", len(data), MaxSealed)
	}
	at := sealedAt(tenant, kind, name)
	ctx, cancel := bound(ctx)
	defer cancel()
	var seq uint64
	var err error
	if sealed := s.sealKey(at, data); expect == 0 {
		seq, err = s.kv.Create(ctx, at, sealed)
	} else {
		seq, err = s.kv.Update(ctx, at, sealed, expect)
	}
	if err != nil {
		return 0, changed(ctx, "write "+kind, err)
	}
	return seq, nil
}

// Sealed reads a record. errs.NotFound when there is none.
func (s *Store) Sealed(ctx context.Context, tenant, kind, name string) (Sealed, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	e, err := s.kv.Get(ctx, sealedAt(tenant, kind, name))
	if missing(err) {
		return Sealed{}, errs.New(errs.NotFound, "there is no such %s", kind)
	}
	if err != nil {
		return Sealed{}, fail(ctx, "read "+kind, err)
	}
	return s.unseal(e)
}

// EachSealed calls f for every record of a kind, in no order. One that cannot be read is an error.
func (s *Store) EachSealed(ctx context.Context, tenant, kind string, f func(Sealed) error) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	return s.each(ctx, encode(tenant)+"."+kind+".*", func(e jetstream.KeyValueEntry) error {
		r, err := s.unseal(e)
		if err != nil {
			return err
		}
		return f(r)
	})
}

// DeleteSealed removes a record, if it still has the sequence number expect: else it is errs.Conflict.
func (s *Store) DeleteSealed(ctx context.Context, tenant, kind, name string, expect uint64) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	if err := s.kv.Purge(ctx, sealedAt(tenant, kind, name), jetstream.LastRevision(expect)); err != nil {
		return changed(ctx, "remove "+kind, err)
	}
	return nil
}

// wrongSequence is JetStream's JSStreamWrongLastSequenceErrF.
const wrongSequence jetstream.ErrorCode = 10071

// changed is the error of a write that expected another state.
func changed(ctx context.Context, what string, err error) error {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.As(err, &api) && api.ErrorCode == wrongSequence {
		return errs.New(errs.Conflict, "%s: it was changed meanwhile", what).WithHint("Read it again, and try again.")
	}
	return fail(ctx, what, err)
}

func (s *Store) unseal(e jetstream.KeyValueEntry) (Sealed, error) {
	kind := strings.Split(e.Key(), ".")[1] // every key has three parts
	plain, err := s.openSealed(e.Key(), kind, e.Value())
	if err != nil {
		return Sealed{}, err
	}
	return Sealed{slices.Clip(plain), e.Revision()}, nil
}

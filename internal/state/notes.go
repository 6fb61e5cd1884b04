package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/errs"
)

// The records of what users make through AWS's APIs and no App declares: "<tenant>.note.<kind>.<name>", sealed as keys are. An ebb
// that knows none leaves them alone.
const kindNote = "note"

// maxNote bounds what a note holds, in bytes: a record is one message of the store.
const maxNote = 400 << 10

// Note is a small record under a kind and a name.
type Note struct {
	Name string
	Data []byte
	Seq  uint64 // of this state of it, for PutNote
}

func noteRecord(tenant, kind, name string) string {
	return encode(tenant) + "." + kindNote + "." + encode(kind) + "." + encode(name)
}

// PutNote writes a note, if it still has the sequence number expect, or does not exist for 0: else it is errs.Conflict. When it
// returns the note is on disk.
func (s *Store) PutNote(ctx context.Context, tenant, kind, name string, data []byte, expect uint64) (uint64, error) {
	switch {
	case tenant == "" || kind == "" || name == "" || len(name) > maxText:
		return 0, errs.New(errs.Invalid, "the name of a %s has 1 to %d bytes", kind, maxText)
	case len(data) > maxNote:
		return 0, errs.New(errs.TooLarge, "%s %s has %d bytes, the limit is %d", kind, name, len(data), maxNote)
	}
	at := noteRecord(tenant, kind, name)
	ctx, cancel := bound(ctx)
	defer cancel()
	sealed := s.sealKey(at, data)
	var seq uint64
	var err error
	if expect == 0 {
		seq, err = s.kv.Create(ctx, at, sealed)
	} else {
		seq, err = s.kv.Update(ctx, at, sealed, expect)
	}
	switch {
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return 0, errs.New(errs.Conflict, "%s %s was changed meanwhile", kind, name)
	case err != nil:
		return 0, fail(ctx, "write "+kind+" "+name, err)
	}
	return seq, nil
}

// Note reads a note.
func (s *Store) Note(ctx context.Context, tenant, kind, name string) (Note, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	e, err := s.kv.Get(ctx, noteRecord(tenant, kind, name))
	switch {
	case missing(err), errors.Is(err, jetstream.ErrInvalidKey):
		return Note{}, errs.New(errs.NotFound, "there is no %s %s", kind, name)
	case err != nil:
		return Note{}, fail(ctx, "read "+kind+" "+name, err)
	}
	return s.openNote(e, kind, name)
}

// Notes gives all notes of a kind, by name.
func (s *Store) Notes(ctx context.Context, tenant, kind string) ([]Note, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	var out []Note
	err := s.each(ctx, encode(tenant)+"."+kindNote+"."+encode(kind)+".*", func(e jetstream.KeyValueEntry) error {
		name, ok := decode(e.Key()[strings.LastIndexByte(e.Key(), '.')+1:])
		if !ok {
			return nil
		}
		n, err := s.openNote(e, kind, name)
		out = append(out, n)
		return err
	})
	slices.SortFunc(out, func(a, b Note) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

// DeleteNote removes a note. To remove what is not there is no error.
func (s *Store) DeleteNote(ctx context.Context, tenant, kind, name string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	if err := s.kv.Purge(ctx, noteRecord(tenant, kind, name)); err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
		return fail(ctx, "remove "+kind+" "+name, err)
	}
	return nil
}

func (s *Store) openNote(e jetstream.KeyValueEntry, kind, name string) (Note, error) {
	damaged := errs.New(errs.Failed, "the record of %s %s is damaged: it was changed, cut, or written with another sealing key", kind, name)
	line, sealed, ok := bytes.Cut(e.Value(), []byte("\n"))
	var h struct {
		Format int `json:"format"`
	}
	n := s.aead.NonceSize()
	if !ok || json.Unmarshal(line, &h) != nil || h.Format < 1 || len(sealed) < n {
		return Note{}, damaged
	}
	if h.Format > keyFormat {
		return Note{}, newer(kind+" "+name, h.Format)
	}
	plain, err := s.aead.Open(nil, sealed[:n], sealed[n:], slices.Concat([]byte(e.Key()), []byte("\n"), line, []byte("\n")))
	if err != nil {
		return Note{}, damaged
	}
	return Note{Name: name, Data: plain, Seq: e.Revision()}, nil
}

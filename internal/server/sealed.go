package server

import (
	"context"

	"github.com/ebb-run/ebb/internal/state"
)

// sealedRecords are the control state's sealed records of one kind, as wire's services keep what they have in them.
type sealedRecords struct {
	state *state.Store
	kind  string
}

// Get reads a record.
func (r sealedRecords) Get(ctx context.Context, tenant, name string) ([]byte, uint64, error) {
	one, err := r.state.Sealed(ctx, tenant, r.kind, name)
	return one.Data, one.Seq, err
}

// Put writes one.
func (r sealedRecords) Put(ctx context.Context, tenant, name string, data []byte, expect uint64) error {
	_, err := r.state.PutSealed(ctx, tenant, r.kind, name, data, expect)
	return err
}

// Delete removes one.
func (r sealedRecords) Delete(ctx context.Context, tenant, name string, expect uint64) error {
	return r.state.DeleteSealed(ctx, tenant, r.kind, name, expect)
}

// Each calls f for every one.
func (r sealedRecords) Each(ctx context.Context, tenant string, f func(data []byte) error) error {
	return r.state.EachSealed(ctx, tenant, r.kind, func(one state.Sealed) error { return f(one.Data) })
}

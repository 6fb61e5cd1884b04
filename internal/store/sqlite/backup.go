package sqlite

import (
	"context"
	"sync"

	"github.com/ebb-run/ebb/internal/snapshot"
)

// Hold keeps everything from being written until release is called: what was acknowledged before is then all that there is. Writes wait
// meanwhile; reads do not. It is for the moment at which several stores are seen at once, and is not to be held for long.
func (s *Store) Hold() (release func()) {
	s.gate.Lock()
	return sync.OnceFunc(s.gate.Unlock)
}

// Snapshot sees the file as it is now, until the caller closes it.
func (s *Store) Snapshot(ctx context.Context) (*snapshot.Snapshot, error) {
	return snapshot.Open(ctx, s.path, s.vfs.Name())
}

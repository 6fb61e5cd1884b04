package fs

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/ebb-run/ebb/internal/snapshot"
)

// Hold keeps everything from being written until release is called: what was acknowledged before is then all that there is. Writes wait
// meanwhile; reads do not. It is for the moment at which several stores are seen at once, and is not to be held for long.
func (s *Store) Hold() (release func()) {
	s.w.gate.Lock()
	return sync.OnceFunc(s.w.gate.Unlock)
}

// Snapshot is a Store at one moment. Files of objects that are deleted meanwhile stay until it is closed.
type Snapshot struct {
	*snapshot.Snapshot
	s    *Store
	once sync.Once
	shut error
}

// Database is the name of the database in the Store's folder, which [Snapshot.Copy] copies.
const Database = "objects.db"

// Snapshot sees what is stored as it is now, until the caller closes it.
func (s *Store) Snapshot(ctx context.Context) (*Snapshot, error) {
	s.keepFiles(1) // before the look into the database: no file that it names may go
	seen, err := snapshot.Open(ctx, filepath.Join(s.dir, Database), s.vfs.Name())
	if err != nil {
		s.keepFiles(-1)
		return nil, err
	}
	return &Snapshot{Snapshot: seen, s: s}, nil
}

// Files calls each with the files that hold data, by their paths in the Store's folder. They never change.
func (n *Snapshot) Files(ctx context.Context, each func(path string) error) error {
	rows, err := n.Query(ctx, "SELECT id FROM blobs WHERE data IS NULL ORDER BY id")
	if err != nil {
		return fmt.Errorf("list files of objects: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("list files of objects: %w", err)
		}
		path, err := filepath.Rel(n.s.dir, n.s.path(id))
		if err != nil {
			return err
		}
		if err := each(path); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Close ends it.
func (n *Snapshot) Close() error {
	n.once.Do(func() {
		n.shut = n.Snapshot.Close()
		n.s.keepFiles(-1)
	})
	return n.shut
}

// keepFiles counts who needs all files that there are.
func (s *Store) keepFiles(n int) {
	s.gate.Lock()
	s.mu.Lock()
	s.mu.kept += n
	last := s.mu.kept == 0
	s.mu.Unlock()
	s.gate.Unlock()
	if last {
		s.wake()
	}
}

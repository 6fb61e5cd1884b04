package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// wake has the remover look into the trash.
func (s *Store) wake() {
	select {
	case s.sweep <- struct{}{}:
	default:
	}
}

// remove removes the files in the trash until the Store closes.
func (s *Store) remove() {
	for {
		select {
		case <-s.sweep:
		case <-s.done.Done():
			return
		}
		for more := true; more; {
			var err error
			if more, err = s.removeSome(s.done); err != nil && s.done.Err() == nil {
				s.opts.Logger.Warn("files of deleted objects cannot be removed", "error", err)
				select {
				case <-time.After(time.Minute):
				case <-s.done.Done():
				}
			}
		}
	}
}

// removeSome removes files of the trash that nobody reads, and tells whether there may be more.
func (s *Store) removeSome(ctx context.Context) (more bool, err error) {
	ids, err := s.trash(ctx)
	if err != nil {
		return false, err
	}
	var free []int64
	s.gate.Lock() // readers that found a file have pinned it
	s.mu.Lock()
	for _, id := range ids {
		if s.mu.kept > 0 {
			break // the last of them wakes the remover
		}
		if s.mu.pins[id] > 0 {
			s.mu.doomed[id] = struct{}{}
			continue
		}
		delete(s.mu.doomed, id)
		if free = append(free, id); len(free) == 1000 {
			more = true
			break
		}
	}
	s.mu.Unlock()
	s.gate.Unlock()
	if len(free) == 0 {
		return false, nil
	}
	for _, id := range free {
		if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	return more, s.write(ctx, func(t *tx) error { return t.forget(free) })
}

func (t *tx) forget(ids []int64) error {
	for _, id := range ids {
		if err := t.exec("DELETE FROM trash WHERE id = ?", id); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) trash(ctx context.Context) ([]int64, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id FROM trash ORDER BY id")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// recover removes files that the database does not name. It runs before anything is written.
func (s *Store) recover(ctx context.Context) error {
	var low, limit int64
	if err := s.w.conn.QueryRowContext(ctx, "SELECT (SELECT v FROM meta WHERE k = 'low'), (SELECT v FROM meta WHERE k = 'limit')").Scan(&low, &limit); err != nil {
		return fmt.Errorf("open objects: %w", err)
	}
	for folder := low / perFolder; folder <= limit/perFolder; folder++ {
		if err := s.recoverFolder(ctx, filepath.Dir(s.path(folder*perFolder)), folder, low, limit); err != nil {
			return fmt.Errorf("remove what a crash left: %w", err)
		}
	}
	if _, err := s.w.conn.ExecContext(ctx, "UPDATE meta SET v = ? WHERE k = 'low'", limit); err != nil {
		return fmt.Errorf("open objects: %w", err)
	}
	s.mu.Lock()
	s.mu.next, s.mu.limit = limit, limit
	s.mu.Unlock()
	s.wake()
	return nil
}

func (s *Store) recoverFolder(ctx context.Context, dir string, folder, low, limit int64) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := strconv.ParseInt(e.Name(), 16, 64)
		id := folder*perFolder + n
		if err != nil || n >= perFolder || id < low || id >= limit {
			continue
		}
		var named int
		if err := s.w.conn.QueryRowContext(ctx, "SELECT count(*) FROM blobs WHERE id = ?", id).Scan(&named); err != nil {
			return err
		}
		if named == 0 {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

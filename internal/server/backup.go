package server

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-run/ebb/internal/backup"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/nats"
	"github.com/ebb-run/ebb/internal/snapshot"
	objects "github.com/ebb-run/ebb/internal/store/fs"
)

// backupFolder, in the data directory, holds what a backup in the making has copied.
const backupFolder = "backup"

// Entries says of each entry of a data directory whether backups hold it. What they leave out is made again from what they hold, or is of
// this machine and this run.
func Entries() map[string]bool {
	return map[string]bool{
		"FORMAT": true, ".gitignore": true, "token": true, "seal.key": true, "tls": true, "aws": true,
		"nats": true, tablesFile: true, objectsFolder: true, artifactsFolder: true,

		"lock": false, "server.json": false, ElsewhereFile: false, backupFolder: false,
		tablesFile + "-wal": false, tablesFile + "-shm": false, tablesFile + ".lock": false,
		"events":       false, // the index of the log
		compiledFolder: false, "bootstrap": false, "build": false, "run": false,
		"logs": false, "logevents": false, // what functions have printed, and clients put into log groups
	}
}

// seen is a store that can be held and seen as it is at one moment.
type seen interface {
	Hold() (release func())
	Snapshot(ctx context.Context) (*snapshot.Snapshot, error)
}

// cut is all stores as they were at one moment.
type cut struct {
	moment  time.Time
	tables  *snapshot.Snapshot
	objects *objects.Snapshot
}

func (c *cut) close() {
	if c.tables != nil {
		_ = c.tables.Close()
	}
	if c.objects != nil {
		_ = c.objects.Close()
	}
}

// Backup writes everything to w that is kept here, as package backup has it: all that was acknowledged before it was called, and nothing that
// depends on what is not in it. An error that comes before anything is written leaves w alone.
func (s *Server) Backup(ctx context.Context, w io.Writer) error {
	tables, err := s.mayBackUp()
	if err != nil {
		return err
	}
	if !s.backups.TryLock() {
		return errs.New(errs.Conflict, "a backup is being made already").WithHint("Wait for its end, and try again.")
	}
	defer s.backups.Unlock()
	s.trash.needed.RLock() // no Artifact goes
	defer s.trash.needed.RUnlock()
	dir := filepath.Join(s.o.Config.Data, backupFolder)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return backupError(err)
	}
	defer os.RemoveAll(dir)
	c, err := s.cut(ctx, tables, dir)
	defer c.close()
	if err != nil {
		return backupError(err)
	}
	if err := errors.Join(c.tables.Copy(ctx, filepath.Join(dir, tablesFile)), c.objects.Copy(ctx, filepath.Join(dir, objects.Database)),
		nats.Check(ctx, filepath.Join(dir, "nats"))); err != nil {
		return backupError(err)
	}
	out, err := backup.NewWriter(w, backup.Header{Version: s.o.Version, Moment: c.moment})
	if err != nil {
		return err
	}
	if err = s.writeBackup(ctx, out, c, dir); err == nil {
		err = out.Close()
	}
	if err != nil {
		out.Fail(err)
	}
	return err
}

// mayBackUp refuses where data are not here, and gives the tables where they are.
func (s *Server) mayBackUp() (seen, error) {
	if !s.nats.Embedded() {
		return nil, errs.New(errs.Unsupported, "events, queues and deployments are in the NATS servers of --nats, and not in this data directory").
			WithHint("Back up the streams there with `nats account backup`, and keep seal.key of a data directory with that: it opens them. `ebb data export` writes tables and buckets.")
	}
	if s.seal != nil {
		return nil, errs.New(errs.Unsupported, "a sealed data directory cannot be backed up while it serves").
			WithHint("Stop the server and copy the directory: the copy is sealed by the same key, which is to be kept elsewhere. `ebb data export` writes tables and buckets.")
	}
	tables, ok := s.tableStore.(seen)
	if !ok {
		return nil, errs.New(errs.Unsupported, "the tables are in the database of --%s, and not in this data directory", config.TablesSetting).
			WithHint("Back that up with its own tools (pg_dump); `ebb data export` writes tables and buckets.")
	}
	return tables, nil
}

// cut holds all stores for a moment and begins to see them as they are then. What an answer could have been given to before all were held is
// in it, so that nothing in it depends on what is not.
func (s *Server) cut(ctx context.Context, tables seen, dir string) (*cut, error) {
	c := &cut{}
	defer tables.Hold()()
	defer s.objects.Hold()()
	defer s.nats.Hold()()
	c.moment = time.Now().UTC()
	var err error
	if c.tables, err = tables.Snapshot(ctx); err != nil {
		return c, err
	}
	if c.objects, err = s.objects.Snapshot(ctx); err != nil {
		return c, err
	}
	err = s.nats.Copy(ctx, filepath.Join(dir, "nats"))
	s.o.Log.Debug("writes waited for a backup's moment", "for", time.Since(c.moment))
	return c, err
}

// writeBackup writes what the cut has, and what never changes.
func (s *Server) writeBackup(ctx context.Context, out *backup.Writer, c *cut, dir string) error {
	data := s.o.Config.Data
	for _, one := range []struct{ name, from string }{
		{"FORMAT", data}, {".gitignore", data}, {"token", data}, {"seal.key", data}, {"tls", data}, {"aws", data}, {"nats", dir}, {tablesFile, dir},
	} {
		if err := writeTree(ctx, out, one.name, filepath.Join(one.from, one.name)); err != nil {
			return err
		}
	}
	if err := out.File(ctx, path.Join(objectsFolder, objects.Database), filepath.Join(dir, objects.Database)); err != nil {
		return err
	}
	err := c.objects.Files(ctx, func(rel string) error {
		return out.File(ctx, path.Join(objectsFolder, filepath.ToSlash(rel)), filepath.Join(data, objectsFolder, rel))
	})
	if err != nil {
		return err
	}
	return s.artifacts.Files(func(rel string) error {
		return out.File(ctx, path.Join(artifactsFolder, filepath.ToSlash(rel)), filepath.Join(data, artifactsFolder, rel))
	})
}

// writeTree writes a file, or all below a folder; what is not there is none.
func writeTree(ctx context.Context, out *backup.Writer, name, from string) error {
	return filepath.WalkDir(from, func(at string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(d.Name(), ".tmp") {
			return err
		}
		rel, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		return out.File(ctx, path.Join(name, filepath.ToSlash(rel)), at)
	})
}

// backupError gives what a full disk says its code and mend.
func backupError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errs.New(errs.Unavailable, "the disk of the data directory has no room for a backup: %w", err).
			WithHint("A backup in the making holds a copy of the tables and of what is said of objects. Free some space, and try again.")
	}
	return err
}

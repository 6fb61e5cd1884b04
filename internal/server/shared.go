package server

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/sqlite"
)

// Nodes of a Cluster share what is in its NATS servers. What is in the data directory of one of them alone would be another thing on each: a
// table that has an item or has it not, as the Node has it that is asked. So a Node that may have others beside it keeps no such data.

// clustered says whether other Nodes may share this one's state.
func (s *Server) clustered() bool { return s.o.Config.NATS != "" }

// localTables says whether tables are in a file of this Node alone.
func (s *Server) localTables() bool {
	_, ok := s.tableStore.(*sqlite.Store)
	return ok
}

const (
	shareTables = "Keep tables in a database that all Nodes share: give every Node --%s postgres://HOST/DATABASE. " +
		"What a Node has in its data directory is moved by `ebb data export` from it, served without --nats, and `ebb data import`."
	shareBuckets = "Buckets cannot be shared by Nodes yet, by no setting: serve what uses them from one Node without --nats. " +
		"What a Node has in its data directory is saved by `ebb data export` from it, served so."
)

// checkShared refuses to join a Cluster with tables or buckets that the others do not see.
func (s *Server) checkShared(ctx context.Context) error {
	if !s.clustered() {
		return nil
	}
	if s.localTables() {
		tables, err := s.tableStore.List(ctx, tenant)
		if err != nil {
			return err
		}
		for _, t := range tables {
			if t.Name != relayed {
				return errs.New(errs.Conflict, "the table %s is in %s, and the Nodes that share --nats do not see it there", t.Name, filepath.Join(s.o.Config.Data, tablesFile)).
					WithHint(shareTables, config.TablesSetting)
			}
		}
	}
	buckets, err := s.objects.Buckets(ctx, tenant)
	if err != nil || len(buckets) == 0 {
		return err
	}
	return errs.New(errs.Conflict, "the bucket %s is in %s, and the Nodes that share --nats do not see it there", buckets[0].Name, filepath.Join(s.o.Config.Data, objectsFolder)).
		WithHint(shareBuckets)
}

// checkLocal refuses an App that declares what this Node cannot share with the others of its Cluster. All of it is named, where it is declared.
func (s *Server) checkLocal(a *app.App) error {
	if !s.clustered() {
		return nil
	}
	var faults, hints []string
	for _, kind := range []struct {
		kind  string
		local bool
		hint  string
	}{{app.Table, s.localTables(), fmt.Sprintf(shareTables, config.TablesSetting)}, {app.Bucket, true, shareBuckets}} {
		n := len(faults)
		for i := range a.Resources {
			if r := &a.Resources[i]; kind.local && r.Kind == kind.kind {
				faults = append(faults, fmt.Sprintf("resource %s (%s)", r.ID, r.Type))
			}
		}
		if len(faults) > n {
			hints = append(hints, kind.hint)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return errs.New(errs.Unsupported, "app %s, stage %s: %s would be on one Node alone, and this server shares --nats with others", a.Name, a.Stage, strings.Join(faults, ", ")).
		WithHint("%s", strings.Join(hints, " "))
}

// sharedTables are those that wires make: one that only this Node would have is refused.
func (s *Server) sharedTables() store.Tables {
	if s.clustered() && s.localTables() {
		return onlyHere{Tables: s.tableStore}
	}
	return s.tableStore
}

// sharedObjects is as sharedTables.
func (s *Server) sharedObjects() store.Objects {
	if s.clustered() {
		return bucketsOnlyHere{Objects: s.objects}
	}
	return s.objects
}

type onlyHere struct{ store.Tables }

func (onlyHere) Create(_ context.Context, _ string, t store.Table) (store.Table, error) {
	return store.Table{}, errs.New(errs.Unsupported, "the table %s would be on one Node alone, and this server shares --nats with others. "+shareTables, t.Name, config.TablesSetting)
}

type bucketsOnlyHere struct{ store.Objects }

func (bucketsOnlyHere) CreateBucket(_ context.Context, id store.BucketID, _ store.Bucket) error {
	return errs.New(errs.Unsupported, "the bucket %s would be on one Node alone, and this server shares --nats with others. "+shareBuckets, id.Name)
}

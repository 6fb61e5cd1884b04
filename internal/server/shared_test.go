package server_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/store"
)

// together are the settings of Nodes that share a NATS server.
func together(t *testing.T) map[string]string {
	t.Helper()
	srv, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(time.Minute) {
		t.Fatal("not ready")
	}
	return map[string]string{"nats": srv.ClientURL(), "nats-replicas": "1"}
}

func TestCluster_RefusesToJoinWithTablesAndBucketsOfItsOwn(t *testing.T) {
	t.Parallel()
	flags := together(t)
	bucket := store.BucketID{Tenant: "default", Name: "files"}
	for name, row := range map[string]struct {
		fill         func(n *node) error
		errors, hint []string
	}{
		"a table": {func(n *node) error {
			_, err := server.Tables(n.Server).Create(t.Context(), "default", store.Table{Name: "orders", Key: store.Key{Hash: store.Attr{Name: "id", Kind: store.S}}})
			return err
		}, []string{"table orders", "tables.db"}, []string{"--tables postgres://", "ebb data export"}},
		"a bucket": {func(n *node) error {
			return server.SharedObjects(n.Server).CreateBucket(t.Context(), bucket, store.Bucket{})
		},
			[]string{"bucket files", "objects"}, []string{"cannot be shared", "without --nats"}},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		n := open(t, dir)
		if err := row.fill(n); err != nil {
			t.Fatal(err)
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		s, err := server.Open(t.Context(), optionsWith(t, dir, n.log, flags))
		if err == nil {
			_ = s.Close()
			t.Fatalf("%s: the Node joins", name)
		}
		for _, want := range row.errors {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		for _, want := range row.hint {
			if !strings.Contains(errs.HintOf(err), want) {
				t.Errorf("%s: hint %q, want %q", name, errs.HintOf(err), want)
			}
		}
		open(t, dir) // alone it serves on
	}
}

func TestCluster_RefusesAppsWithDataOfOneNode(t *testing.T) {
	t.Parallel()
	n := openWith(t, filepath.Join(t.TempDir(), "data"), together(t))
	a := withTable(nil)
	a.Resources = append(a.Resources, app.Resource{ID: "Files", Kind: app.Bucket, Type: "AWS::S3::Bucket", Name: app.Lit("files")})
	_, tree := shop("shop", "dev", sawChanges)
	_, err := n.deploy(t, a, tree)
	if errs.CodeOf(err) != errs.Unsupported || !strings.Contains(err.Error(), "resource Orders (AWS::DynamoDB::Table), resource Files (AWS::S3::Bucket)") ||
		!strings.Contains(errs.HintOf(err), "--tables") || !strings.Contains(errs.HintOf(err), "Buckets cannot be shared") {
		t.Errorf("got %v, hint %q", err, errs.HintOf(err))
	}
	if stacks, err := n.client.Stacks(t.Context()); err != nil || len(stacks) != 0 {
		t.Errorf("it left %+v, %v", stacks, err)
	}
	// Nor do clients make them.
	_, err = server.SharedTables(n.Server).Create(t.Context(), "default", store.Table{Name: "x", Key: store.Key{Hash: store.Attr{Name: "id", Kind: store.S}}})
	if errs.CodeOf(err) != errs.Unsupported || !strings.Contains(err.Error(), "--tables") {
		t.Errorf("a client's table: %v", err)
	}
	if err := server.SharedObjects(n.Server).CreateBucket(t.Context(), store.BucketID{Tenant: "default", Name: "b"}, store.Bucket{}); errs.CodeOf(err) != errs.Unsupported {
		t.Errorf("a client's bucket: %v", err)
	}
	// What has no data of its own is served.
	n.mustDeploy(t, "shop", "dev", says("one"))
	n.answers(t, "one")
	if _, err := n.client.Backup(t.Context()); errs.CodeOf(err) != errs.Unsupported || !strings.Contains(err.Error(), "--nats") {
		t.Errorf("a backup: %v", err)
	}
}

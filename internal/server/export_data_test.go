package server_test

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/export"
	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/store"
)

func (n *node) export(t *testing.T, c export.Choice) []byte {
	t.Helper()
	in, err := n.client.Export(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	data, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestImport_WritesChangesThatFunctionsSee(t *testing.T) {
	t.Parallel()
	from := open(t, filepath.Join(t.TempDir(), "data"))
	from.deployTable(t, nil)
	from.put(t, "a", 1)
	eventually(t, from, "the function sees it", func() bool { return strings.Contains(from.logs(t), "saw INSERT a") }) // and the server has a table of its own
	if err := server.PutParameter(t.Context(), from.Server, "/word", "sesame"); err != nil {
		t.Fatal(err)
	}
	if _, err := from.client.Export(t.Context(), export.Choice{Tables: []string{"order"}}); errs.CodeOf(err) != errs.NotFound || errs.HintOf(err) != "Did you mean orders?" {
		t.Errorf("a table that is not there: %v, hint %q", err, errs.HintOf(err))
	}
	hidden, all := from.export(t, export.Choice{}), from.export(t, export.Choice{Secrets: true})
	if bytes.Contains(hidden, []byte("sesame")) || !bytes.Contains(all, []byte("sesame")) || bytes.Contains(all, []byte("relayed")) {
		t.Error("secrets are not what was asked for, or the server's own table is exported")
	}
	if one, err := export.Check(bytes.NewReader(from.export(t, export.Choice{App: "shop"}))); err != nil || one.Tables != 1 || one.Items != 1 {
		t.Errorf("of the app: %+v, %v", one, err)
	}

	// Into a server where the app is deployed.
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.deployTable(t, nil)
	n.put(t, "b", 2)
	got, err := n.client.Import(t.Context(), export.Options{}, bytes.NewReader(all), nil)
	if err != nil || got.Tables != 0 || got.Items != (export.Count{Written: 1}) || got.Parameters != (export.Count{Written: 1}) {
		t.Errorf("import: %+v, %v", got, err)
	}
	eventually(t, n, "the function sees what was imported", func() bool { return strings.Contains(n.logs(t), "saw INSERT a") })
	table, err := server.Tables(n.Server).Table(context.Background(), "default", "orders")
	if err != nil || table.Owner != "default/shop/dev" || table.Items != 2 {
		t.Errorf("the table is %+v, %v", table, err)
	}
	// Into one where it is not, the table is made, and is the app's when that is deployed.
	m := open(t, filepath.Join(t.TempDir(), "data"))
	if got, err := m.client.Import(t.Context(), export.Options{}, bytes.NewReader(hidden), nil); err != nil || got.Tables != 1 || got.Withheld != 1 {
		t.Errorf("import: %+v, %v", got, err)
	}
	m.deployTable(t, nil)
	found, err := server.Tables(m.Server).Get(t.Context(), "default", []store.Lookup{{Table: "orders", Key: store.Item{"id": store.Text("a")}}})
	if err != nil || found[0]["n"].Str != "1" {
		t.Errorf("after the deploy: %v, %v", found, err)
	}
}

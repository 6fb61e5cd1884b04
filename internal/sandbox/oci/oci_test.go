package oci_test

import (
	"context"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/oci"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
)

func openWith(dir string, e sandbox.Egress) (sandbox.Driver, error) {
	return openTrusting(dir, e, true)
}

func openTrusting(dir string, e sandbox.Egress, trust bool) (sandbox.Driver, error) {
	outer := func() (sandbox.Driver, error) {
		return process.Open(process.Options{Dir: filepath.Join(dir, "outer"), Monitors: true, Egress: e})
	}
	return oci.New(oci.Options{Open: outer, Runtime: runtimePath(), Trust: trust}), nil
}

// runtimePath is where scripts/runsc puts it.
func runtimePath() string {
	if p := os.Getenv("EBB_TEST_RUNSC"); p != "" {
		return p
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "ebb-test", "runsc")
}

// needRuntime skips where guests cannot run.
func needRuntime(t *testing.T) {
	t.Helper()
	if raced {
		t.Skip("the race detector's memory is too much for a kernel inside a process; make test runs this")
	}
	d, err := openTrusting(t.TempDir(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.(*oci.Driver).Check(t.Context()); err != nil {
		t.Skipf("no guest can be run here (scripts/runsc builds what is needed): %v", err)
	}
}

func open(dir string) (sandbox.Driver, error) { return openWith(dir, nil) }

var verdicts = flag.String("sandboxtest.verdicts", "", "write the catalogue's verdicts to this file")

func TestMain(m *testing.M) {
	sandboxtest.Main(m, map[string]sandboxtest.Open{"oci": open})
}

func TestDriver_Conforms(t *testing.T) {
	needRuntime(t)
	book := &sandboxtest.Book{Verdicts: *verdicts}
	sandboxtest.Run(t, "oci", open, sandboxtest.Options{
		Extra: []string{"HOME"}, Opaque: true, Kernel: true, Memory: true, Processes: true, Processors: true, Concealed: true, Dependent: true,
		Isolated: true, Separate: os.Geteuid() == 0, Charged: true, Cycles: 12, Mode: "strong", Book: book,
		Connected: openWith,
		Egress: func(resolve func(context.Context, string) ([]netip.Addr, error), dial func(context.Context, netip.AddrPort) (net.Conn, error)) sandbox.Egress {
			anything, err := egress.NewPolicy(egress.Anything, nil)
			if err != nil {
				t.Fatal(err)
			}
			return egress.New(egress.Options{Policy: func(string) egress.Policy { return anything }, Resolve: resolve, Dial: dial})
		},
	})
}

package oci_test

import (
	"context"
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
	outer := func() (sandbox.Driver, error) {
		return process.Open(process.Options{Dir: filepath.Join(dir, "outer"), Monitors: true, Egress: e})
	}
	return oci.New(oci.Options{Open: outer, Runtime: os.Getenv("EBB_TEST_RUNSC")}), nil
}

func open(dir string) (sandbox.Driver, error) { return openWith(dir, nil) }

func TestMain(m *testing.M) {
	sandboxtest.Main(m, map[string]sandboxtest.Open{"oci": open})
}

func TestDriver_Conforms(t *testing.T) {
	d, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	why := d.(*oci.Driver).Check(t.Context())
	_ = d.Close()
	if why != nil {
		t.Skipf("no guest can be run here: %v", why)
	}
	sandboxtest.Run(t, "oci", open, sandboxtest.Options{
		Extra: []string{"HOME"}, Opaque: true, Kernel: true, Memory: true, Processes: true, Processors: true, Concealed: true, Dependent: true,
		Isolated: true, Separate: os.Geteuid() == 0, Charged: true, Cycles: 12, Mode: "strong",
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

package process_test

import (
	"context"
	"flag"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/egress"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/process"
	"github.com/ebb-run/ebb/internal/sandbox/sandboxtest"
)

func open(dir string) (sandbox.Driver, error) {
	return process.Open(process.Options{Dir: dir})
}

func openAlone(dir string) (sandbox.Driver, error) {
	return process.Open(process.Options{Dir: dir, NoCgroups: true})
}

func openPlain(dir string) (sandbox.Driver, error) {
	return process.Open(process.Options{Dir: dir, Plain: true})
}

func openBare(dir string) (sandbox.Driver, error) {
	return process.Open(process.Options{Dir: dir, Plain: true, NoCgroups: true})
}

var (
	table    = flag.String("sandboxtest.table", "", "write the catalogue's table to this file")
	verdicts = flag.String("sandboxtest.verdicts", "", "write the catalogue's verdicts to this file")
	include  = flag.String("sandboxtest.include", "", "take in the verdicts that another package's tests wrote to this file")
	book     sandboxtest.Book
)

// walled adds to options what is so for isolated guests, or plain ones.
func walled(t *testing.T, mode string, open sandboxtest.Open, o sandboxtest.Options) sandboxtest.Options {
	t.Helper()
	d, err := open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	book.Path, book.Verdicts = *table, *verdicts
	o.Book, o.Mode, o.Charged = &book, mode, charged(d)
	o.Isolated, _ = d.(interface{ Isolated() (bool, error) }).Isolated()
	o.Separate = o.Isolated && os.Geteuid() == 0
	o.Again = again
	if o.Isolated {
		o.Egress = func(resolve func(context.Context, string) ([]netip.Addr, error), dial func(context.Context, netip.AddrPort) (net.Conn, error)) sandbox.Egress {
			anything, err := egress.NewPolicy(egress.Anything, nil)
			if err != nil {
				t.Fatal(err)
			}
			return egress.New(egress.Options{Policy: func(string) egress.Policy { return anything }, Resolve: resolve, Dial: dial})
		}
		o.Connected = func(dir string, e sandbox.Egress) (sandbox.Driver, error) {
			return process.Open(process.Options{Dir: dir, Egress: e})
		}
	}
	return o
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asDenied {
		deny()
	}
	if len(os.Args) > 1 && os.Args[1] == asContained {
		contain()
	}
	sandboxtest.Main(m, map[string]sandboxtest.Open{
		"process": open, "alone": openAlone, "plain": openPlain, "bare": openBare, "v1": openV1, "copies": openCopies, "ahead": openAhead, "stem": openStemmed,
	})
}

// mechanisms says what protects this machine's guests.
func mechanisms(t *testing.T) map[string]process.Protection {
	t.Helper()
	d, err := process.Open(process.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	all := map[string]process.Protection{}
	for _, p := range d.Protections() {
		all[p.Name] = p
	}
	return all
}

func TestCatalogue_IsOnItsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/isolation.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range sandboxtest.Titles() {
		if !strings.Contains(string(page), "\n| "+row+" |") {
			t.Errorf("docs/isolation.md has no row %q; run make isolation-table", row)
		}
	}
	if strings.Contains(string(page), "FAILS") || strings.Contains(string(page), "not run") {
		t.Error("docs/isolation.md is of a run that failed; run make isolation-table")
	}
}

func TestDriver_Conforms(t *testing.T) {
	if *include != "" {
		if err := book.Include(*include); err != nil {
			t.Fatal(err)
		}
	}
	m := mechanisms(t)
	linux := runtime.GOOS == "linux"
	mode := "isolated"
	if os.Geteuid() != 0 {
		mode = "rootless"
	}
	sandboxtest.Run(t, "process", open, walled(t, mode, open, sandboxtest.Options{
		Extra:       []string{"EBB_SANDBOX", "HOME"},
		Memory:      linux,
		Processes:   m["process limit"].Strong,
		Processors:  m["cpu limit"].Strong,
		Concealed:   m["tree kill"].Strong,
		Survivors:   !linux,
		Dependent:   linux,
		Descriptors: linux,
	}))
}

func TestDriver_ConformsWithoutCgroups(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no cgroups to do without")
	}
	sandboxtest.Run(t, "alone", openAlone, walled(t, "no cgroups", openAlone, sandboxtest.Options{Memory: true, Concealed: true, Dependent: true, Descriptors: true, Cycles: 300}))
}

func TestDriver_ConformsAsPlainProcesses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("guests are always plain processes here")
	}
	m := mechanisms(t)
	sandboxtest.Run(t, "plain", openPlain, walled(t, "plain", openPlain, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX", "HOME"}, Memory: true, Processes: m["process limit"].Strong, Processors: m["cpu limit"].Strong, Concealed: m["memory limit"].Strong, Dependent: true, Descriptors: true, Cycles: 600,
	}))
}

func TestDriver_ConformsAsPlainProcessesWithoutCgroups(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no cgroups to do without")
	}
	sandboxtest.Run(t, "bare", openBare, walled(t, "plain, no cgroups", openBare, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX", "HOME"}, Memory: true, Dependent: true, Descriptors: true, Cycles: 300,
	}))
}

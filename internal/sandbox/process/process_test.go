package process_test

import (
	"runtime"
	"testing"

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

func TestMain(m *testing.M) {
	sandboxtest.Main(m, map[string]sandboxtest.Open{
		"process": open, "alone": openAlone, "plain": openPlain, "bare": openBare, "v1": openV1,
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

func TestDriver_Conforms(t *testing.T) {
	m := mechanisms(t)
	linux := runtime.GOOS == "linux"
	sandboxtest.Run(t, "process", open, sandboxtest.Options{
		Extra:       []string{"EBB_SANDBOX"},
		Memory:      linux,
		Processes:   m["process limit"].Strong,
		Processors:  m["cpu limit"].Strong,
		Concealed:   m["tree kill"].Strong,
		Survivors:   !linux,
		Dependent:   linux,
		Descriptors: linux,
	})
}

func TestDriver_ConformsWithoutCgroups(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no cgroups to do without")
	}
	sandboxtest.Run(t, "alone", openAlone, sandboxtest.Options{Memory: true, Concealed: true, Dependent: true, Descriptors: true, Cycles: 300})
}

func TestDriver_ConformsAsPlainProcesses(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("guests are always plain processes here")
	}
	m := mechanisms(t)
	sandboxtest.Run(t, "plain", openPlain, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX"}, Memory: true, Processes: m["process limit"].Strong, Concealed: m["memory limit"].Strong, Dependent: true, Descriptors: true, Cycles: 600,
	})
}

func TestDriver_ConformsAsPlainProcessesWithoutCgroups(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there are no cgroups to do without")
	}
	sandboxtest.Run(t, "bare", openBare, sandboxtest.Options{
		Extra: []string{"EBB_SANDBOX"}, Memory: true, Dependent: true, Descriptors: true, Cycles: 300,
	})
}

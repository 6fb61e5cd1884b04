package all_test

import (
	"slices"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
	"github.com/ebb-run/ebb/internal/sandbox/all"
)

func TestSet_GivesDriversByName(t *testing.T) {
	t.Parallel()
	s, err := all.Drivers(all.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Names(); !slices.Equal(got, []string{"oci", "process"}) {
		t.Errorf("names %q", got)
	}
	for _, name := range s.Names() {
		d, err := s.Get(name)
		if err != nil || d.Name() != name {
			t.Errorf("Get(%s) = %v, %v", name, d, err)
		}
	}
	_, err = s.Get("procces")
	if errs.CodeOf(err) != errs.NotFound || errs.HintOf(err) != "Drivers are: oci, process" {
		t.Errorf("unknown: %v, hint %q", err, errs.HintOf(err))
	}
	if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
		t.Errorf("Sweep: %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d, _ := s.Get("process")
	if _, err := d.Prepare(t.Context(), sandbox.Spec{ID: "a"}); err == nil {
		t.Error("a driver is open after Close of its Set")
	}
}

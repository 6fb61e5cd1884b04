package all_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/guest/all"
)

func TestProtocols_AreUnderTheirNames(t *testing.T) {
	t.Parallel()
	ps, err := all.Protocols(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if ps["lambda"] == nil {
		t.Error("no lambda")
	}
	for name, p := range ps {
		if p.Name() != name {
			t.Errorf("%q is listed as %q", p.Name(), name)
		}
	}
	if _, err := all.Protocols("/dev/null/x"); err == nil {
		t.Error("a folder that cannot be made gives no error")
	}
}

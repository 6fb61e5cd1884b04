package server_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
)

func TestDeploy_RefusesStrongIsolationThatCannotBeGiven(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := openWith(t, filepath.Join(dir, "data"), map[string]string{"oci-runtime": filepath.Join(dir, "runsc")})
	a, code := shop("shop", "dev", "exports.hello = async () => 'plain';")
	if _, err := n.deployLayers(t, a, code); err != nil {
		t.Fatal(err)
	}
	a.Functions[0].Isolation = app.Strong
	_, err := n.deployLayers(t, a, code)
	if errs.CodeOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "strong isolation needs the OCI runtime") || !strings.Contains(errs.HintOf(err), "--oci-runtime") {
		t.Errorf("%v, hint %q", err, errs.HintOf(err))
	}
	n.answers(t, "plain") // what was deployed goes on
	a.Functions[0].Isolation = "stronger"
	if _, err := n.deployLayers(t, a, code); errs.CodeOf(err) != errs.Invalid {
		t.Errorf("an isolation that is not known: %v", err)
	}
}

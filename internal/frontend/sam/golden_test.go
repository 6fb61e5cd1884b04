package sam

import (
	"flag"
	"testing"

	"github.com/ebb-run/ebb/internal/frontend/frontendtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestFrontend_LoadsGoldenProjects(t *testing.T) {
	t.Parallel()
	frontendtest.RunGolden(t, "testdata", Frontend{}, *update)
}

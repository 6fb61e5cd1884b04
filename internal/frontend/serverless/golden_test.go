package serverless

import (
	"flag"
	"testing"

	"github.com/ebb-run/ebb/internal/frontend/frontendtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestLoad_GivesTheGoldenApps(t *testing.T) {
	t.Parallel()
	frontendtest.RunGolden(t, "testdata", Frontend{}, *update)
}

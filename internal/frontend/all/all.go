// Package all lists the front-ends there are.
//
// It is the only place that names them together. The order is the order of detection: the more telling
// file name first, so that a project with a serverless.yml is read by that, whatever templates lie beside it.
//
// It holds no logic of its own.
package all

import (
	"github.com/ebb-run/ebb/internal/frontend"
	"github.com/ebb-run/ebb/internal/frontend/cdk"
	"github.com/ebb-run/ebb/internal/frontend/cloudformation"
	"github.com/ebb-run/ebb/internal/frontend/sam"
	"github.com/ebb-run/ebb/internal/frontend/serverless"
)

// Frontends returns every front-end, in order of detection.
func Frontends() frontend.Registry {
	return frontend.Registry{serverless.Frontend{}, cdk.Frontend{}, sam.Frontend{}, cloudformation.New()}
}

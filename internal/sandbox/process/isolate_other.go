//go:build !linux

package process

import (
	"context"
	"net"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

var errNoIsolation = errs.New(errs.Unsupported, "isolation needs Linux")

// isolation exists on Linux alone.
type isolation struct{}

func openIsolation(*Driver) (*isolation, error) { return nil, errNoIsolation }

func (i *isolation) close() {}

func (i *isolation) retire() {}

func (i *isolation) copied() int { return 0 }

func (i *isolation) mothers() (count int, bytes int64) { return 0, 0 }

func (i *isolation) separateUsers() bool { return false }

func (i *isolation) owner() int { return -1 }

func (i *isolation) captures() bool { return false }

func (i *isolation) landlocked() bool { return false }

func (i *isolation) addr(sandbox.Spec) string { return "" }

func (i *isolation) own(sandbox.Spec) int { return 0 }

func (i *isolation) start(context.Context, *box, sandbox.Code, []uintptr) (*guest, error) {
	return nil, errNoIsolation
}

// walls exist on Linux alone.
type walls struct{}

func openWalls(*Driver) *walls { return nil }

func (w *walls) close() {}

func (w *walls) files() bool { return false }

func (w *walls) tmp() string { return "" }

func (w *walls) scoped() bool { return false }

func (w *walls) start(*box, sandbox.Code, []uintptr) (*guest, error) { return nil, errNoIsolation }

func (l *line) dialInside(context.Context) (net.Conn, error) { return nil, errNoIsolation }

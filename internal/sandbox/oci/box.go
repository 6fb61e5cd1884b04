package oci

import (
	"context"
	"fmt"
	"syscall"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

// box is a Sandbox whose outer one holds the runtime.
type box struct {
	sandbox.Sandbox

	spec    sandbox.Spec
	runtime string
}

// Start has the runtime run the code.
func (b *box) Start(ctx context.Context, c sandbox.Code) (sandbox.Conn, error) {
	if err := validate(c); err != nil {
		b.spend(ctx)
		return nil, fmt.Errorf("start sandbox %s: %w", b.spec.ID, err)
	}
	return b.Sandbox.Start(ctx, wrap(b.runtime, b.spec, c))
}

// spend uses the one start that a Sandbox has, which failed.
func (b *box) spend(ctx context.Context) { _, _ = b.Sandbox.Start(ctx, sandbox.Code{}) }

// Freeze is refused.
func (b *box) Freeze() error {
	return errs.New(errs.Unsupported, "freeze sandbox %s: a guest of an OCI runtime cannot be frozen", b.spec.ID)
}

// Thaw is refused as well.
func (b *box) Thaw() error { return b.Freeze() }

// Exit says how the guest ended, from the runtime's exit status.
func (b *box) Exit() sandbox.Exit { return guestExit(b.Sandbox.Exit()) }

// guestExit reads a runtime's status, in which a signal is one from 129 on.
func guestExit(e sandbox.Exit) sandbox.Exit {
	const signals = 64
	if e.Code > 128 && e.Code <= 128+signals {
		return sandbox.Exit{Code: -1, Signal: syscall.Signal(e.Code - 128).String(), OOM: e.OOM, Stopped: e.Stopped}
	}
	return e
}

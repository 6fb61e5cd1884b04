package errs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
)

func TestError_KeepsCodeHintAndCauseThroughWrapping(t *testing.T) {
	t.Parallel()
	inner := errs.New(errs.NotFound, "open artifact %s: %w", "abc", io.EOF).WithHint("Deploy it again.")
	outer := fmt.Errorf("start instance: %w", inner)
	if got, want := outer.Error(), "start instance: open artifact abc: EOF"; got != want {
		t.Errorf("text = %q, want %q", got, want)
	}
	if got := errs.CodeOf(outer); got != errs.NotFound {
		t.Errorf("CodeOf = %q", got)
	}
	if got := errs.HintOf(outer); got != "Deploy it again." {
		t.Errorf("HintOf = %q", got)
	}
	if !errors.Is(outer, io.EOF) {
		t.Error("the cause is lost")
	}
	rewrapped := errs.New(errs.Unavailable, "wake: %w", outer)
	if errs.CodeOf(rewrapped) != errs.Unavailable || errs.HintOf(rewrapped) != "Deploy it again." {
		t.Errorf("rewrapped: code %q hint %q", errs.CodeOf(rewrapped), errs.HintOf(rewrapped))
	}
}

func TestCodeOf_ClassifiesPlainErrors(t *testing.T) {
	t.Parallel()
	for want, err := range map[errs.Code]error{
		"":            nil,
		errs.Internal: io.EOF,
		errs.Canceled: fmt.Errorf("x: %w", context.Canceled),
		errs.Timeout:  context.DeadlineExceeded,
	} {
		if got := errs.CodeOf(err); got != want {
			t.Errorf("CodeOf(%v) = %q, want %q", err, got, want)
		}
	}
}

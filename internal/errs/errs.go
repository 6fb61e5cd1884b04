// Package errs gives program errors the few codes that callers act on.
//
// Main type: [Error]. A package wraps an error with the step it was taking
// (`open artifact %s: %w`); where the cause is known it gives a [Code], so that
// the gateway, the control API and the command line can each answer in their
// own terms without reading the text.
//
// Guarantees:
//
//  1. [CodeOf] of nil is the empty Code; of an error without a Code, [Internal].
//  2. Wrapping with fmt.Errorf("…: %w") keeps Code and Hint.
//
// It does not hold provider error names; those exist in wire and guest only.
package errs

import (
	"context"
	"errors"
	"fmt"
)

// Code is a class of failure that a caller can act on.
type Code string

// The codes. Their text is part of the control API.
const (
	Invalid         Code = "invalid"         // the input cannot mean anything; do not retry
	NotFound        Code = "not_found"       // no such thing
	Exists          Code = "exists"          // already there
	Conflict        Code = "conflict"        // changed by somebody else meanwhile; read again and retry
	Unauthenticated Code = "unauthenticated" // who is calling is not known
	Forbidden       Code = "forbidden"       // known, and may not
	TooLarge        Code = "too_large"       // over a size limit
	Throttled       Code = "throttled"       // over a concurrency or rate limit; retry later
	Timeout         Code = "timeout"         // a deadline ended the work
	Canceled        Code = "canceled"        // the caller went away
	Unavailable     Code = "unavailable"     // cannot be served now; retry later
	Unsupported     Code = "unsupported"     // ebb or this machine cannot do it
	Failed          Code = "failed"          // the user's code or build failed
	Internal        Code = "internal"        // a fault of ebb
)

// Error is an error with a Code and, where there is one, a hint that says how to mend it.
type Error struct {
	Code Code
	Msg  string // lower-case, no full stop; complete without Err
	Hint string // a sentence that says what to do, or empty
	Err  error  // the cause, or nil
}

// Error returns the message and, behind a colon, the cause.
func (e *Error) Error() string {
	if _, printed := e.Err.(silent); printed || e.Err == nil {
		return e.Msg
	}
	if e.Msg == "" {
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New returns an error with a Code. A %w in the format is kept as cause.
func New(code Code, format string, args ...any) *Error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Code: code, Msg: wrapped.Error(), Err: hidden(wrapped)}
}

// WithHint returns e with the hint set.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// hidden keeps the chain for errors.Is and errors.As without printing it twice.
func hidden(err error) error {
	if errors.Unwrap(err) == nil {
		return nil
	}
	return silent{err}
}

type silent struct{ error }

func (s silent) Unwrap() error { return errors.Unwrap(s.error) }

// CodeOf returns the outermost Code in err's chain. A context's end counts as
// Canceled or Timeout where nothing in the chain says more.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	}
	return Internal
}

// HintOf returns the outermost hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

package capture

import "github.com/ebb-run/ebb/internal/sandbox"

// Tests plan their sockets themselves.

func (anything) Declared(string) []sandbox.Destination { return nil }
func (book) Declared(string) []sandbox.Destination     { return nil }

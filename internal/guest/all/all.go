// Package all lists the guest protocols.
//
// Main function: [Protocols].
//
// Guarantees:
//
//  1. Names are unique.
//  2. A protocol that cannot be made is an error, never left out.
//
// It chooses none; whoever starts a Unit does.
package all

import (
	"fmt"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/guest/lambda"
)

// Protocols returns every protocol by name. They may keep files in dir.
func Protocols(dir string) (map[string]guest.Protocol, error) {
	l, err := lambda.New(dir)
	if err != nil {
		return nil, fmt.Errorf("make the lambda protocol: %w", err)
	}
	return map[string]guest.Protocol{l.Name(): l}, nil
}

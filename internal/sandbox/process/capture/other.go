//go:build !linux

package capture

import (
	"errors"
	"net"
	"net/netip"

	"github.com/ebb-run/ebb/internal/sandbox"
)

// original is never asked where there are no network namespaces.
func original(net.Conn) (netip.AddrPort, sandbox.Destination, error) {
	return netip.AddrPort{}, sandbox.Destination{}, errors.ErrUnsupported
}

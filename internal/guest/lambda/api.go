package lambda

import ("github.com/ebb-run/ebb/internal/guest"
"context"
"net"
"github.com/ebb-run/ebb/internal/sandbox"
)

func openAPI(ctx context.Context, l net.Listener, u *guest.Unit) (guest.Session, error) { return nil, nil }
func openRPC(ctx context.Context, c sandbox.Conn, u *guest.Unit) (guest.Session, error) { return nil, nil }

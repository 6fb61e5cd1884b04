// Package sts answers AWS's Security Token Service: who a client is.
//
// Main type: none; [New] gives the wire.Service.
//
// Guarantees:
//
//  1. Every caller whose signature holds is told its own account and ARN, whatever it may do else.
//
// It hands out no credentials.
package sts

import (
	"context"

	"github.com/ebb-run/ebb/internal/wire"
)

// New returns the service.
func New() *wire.Service {
	return &wire.Service{Name: "sts", Operations: map[string]wire.Operation{"GetCallerIdentity": wire.Op(getCallerIdentity)}}
}

type identity struct{ Account, Arn, UserId string } //nolint:revive // the member's name

func getCallerIdentity(_ context.Context, c *wire.Call, _ *struct{}) (*identity, error) {
	return &identity{Account: c.Caller.Account, Arn: c.Caller.ARN, UserId: c.Caller.UserID}, nil
}

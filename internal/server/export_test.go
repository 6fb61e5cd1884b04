package server

import (
	"context"

	"github.com/ebb-run/ebb/internal/bus"
	"github.com/ebb-run/ebb/internal/export"
	"github.com/ebb-run/ebb/internal/state"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// Mounts says whether Sandboxes here have files of their own.
func (s *Server) Mounts() bool { return s.driver.Traits().Mounts }

// Rehearsals is how many are to come, the one in progress included.
func Rehearsals(s *Server) int {
	s.rehearsals.mu.Lock()
	defer s.rehearsals.mu.Unlock()
	if s.rehearsals.mu.busy {
		return max(len(s.rehearsals.mu.queue), 1)
	}
	return len(s.rehearsals.mu.queue)
}

// LoseSubscription takes a Subscription out of the bus without the Server's knowledge.
func LoseSubscription(ctx context.Context, s *Server, name string) error {
	return s.events.bus.Unsubscribe(ctx, name)
}

// Peek shows messages of a queue without receiving them, behind the receipt of the last one seen.
func Peek(ctx context.Context, s *Server, queue, after string) ([]bus.Received, error) {
	return s.events.bus.PeekQueue(ctx, tenant+"/"+queue, after, 1000)
}

// LoseTopic takes a topic out of the bus without the Server's knowledge.
func LoseTopic(ctx context.Context, s *Server, name string) error {
	return s.events.bus.DeleteTopic(ctx, tenant+"/"+name)
}

// Tables gives the store of tables.
func Tables(s *Server) store.Tables { return s.tableStore }

// SharedTables gives what clients of wires make tables in.
func SharedTables(s *Server) store.Tables { return s.sharedTables() }

// SharedObjects gives what clients of wires make buckets in.
func SharedObjects(s *Server) store.Objects { return s.sharedObjects() }

// PutParameter writes a parameter that is a secret.
func PutParameter(ctx context.Context, s *Server, name, value string) error {
	_, err := portableParameters{s}.Put(ctx, export.Parameter{Name: name, Type: "SecureString", Value: &value}, false)
	return err
}

// FunctionKeys gives the credentials of a Function.
func FunctionKeys(s *Server, app, stage, function string) sign.Credentials {
	c := s.wires.credentials(state.StackKey{Tenant: tenant, App: app, Stage: stage}, function, "")
	return sign.Credentials{AccessKey: c.AccessKey, Secret: c.Secret, Token: c.Token}
}

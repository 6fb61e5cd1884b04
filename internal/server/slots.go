package server

import (
	"context"
	"time"

	"github.com/ebb-run/ebb/internal/bus/slots"
	"github.com/ebb-run/ebb/internal/engine"
)

// openSlots makes what shares the reserved concurrency of Functions among the Nodes of one store; nil where this Node is alone.
func (s *Server) openSlots(ctx context.Context) (engine.Sharer, error) {
	if s.o.Config.NATS == "" {
		return nil, nil
	}
	all, err := slots.Open(ctx, s.nats.JetStream(), slots.Options{Node: nodeName(s.o.Config.Data), Replicas: s.replicas(), Log: s.o.Log})
	if err != nil {
		return nil, s.oneCopy(err)
	}
	s.closing(all.Close)
	s.slots = all
	return sharer{all}, nil
}

type sharer struct{ *slots.Slots }

// Share names a ceiling after its Function.
func (s sharer) Share(tenant, function string, ceiling int, give func(n int, until time.Time) (running int)) engine.Share {
	return s.Slots.Share("function/"+tenant+"/"+function, ceiling, give)
}

package server

import (
	"context"
	"fmt"

	"github.com/ebb-run/ebb/internal/bus"
)

// settle makes what an App declares of one kind on the bus what it is to be, and tells what cannot be. What another Stack declares stays as it is.
func settle[T bus.Queue | bus.Topic | bus.Stream](ctx context.Context, s *Server, kind string, want []T, list func(context.Context) ([]T, error), put func(context.Context, T) error) (faults []string) {
	if err := s.events.bus.Sync(ctx); err != nil { // what was put a moment ago is there
		return []string{err.Error()}
	}
	standing, err := list(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	have := map[string]T{}
	for _, one := range standing {
		key, _, _ := described(one)
		have[key] = one
	}
	for _, one := range want {
		key, name, owner := described(one)
		if old, stands := have[key]; stands {
			if _, _, whose := described(old); whose != owner {
				faults = append(faults, fmt.Sprintf("%s %s belongs to %s, and stays as it is", kind, name, whose))
				continue
			}
			if sameJSON(old, one) {
				continue
			}
		}
		if err := put(ctx, one); err != nil {
			faults = append(faults, err.Error())
		}
	}
	return faults
}

// described gives the key, the name and the Stack of something on the bus.
func described(v any) (key, name, owner string) {
	switch v := v.(type) {
	case bus.Queue:
		return v.Key(), v.Name, v.Tags[ownerTag]
	case bus.Topic:
		return v.Key(), v.Name, v.Tags[ownerTag]
	case bus.Stream:
		return v.Key(), v.Name, v.Tags[ownerTag]
	}
	return "", "", "" // no other type is let in
}

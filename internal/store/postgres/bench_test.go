package postgres_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/store"
)

func BenchmarkWrite(b *testing.B) {
	s := open(b, fresh(b))
	table := simple("t")
	table.Indexes = nil
	if _, err := s.Create(b.Context(), "default", table); err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		id := fmt.Sprintf("%p", pb)
		for i := 0; pb.Next(); i++ {
			it := item(id+strconv.Itoa(i), i)
			it["payload"] = store.Text(strings.Repeat("x", 200))
			if err := s.Write(context.Background(), "default", put(it)); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := open(b, fresh(b))
	if _, err := s.Create(b.Context(), "default", simple("t")); err != nil {
		b.Fatal(err)
	}
	it := item("k", 1)
	it["payload"] = store.Text(strings.Repeat("x", 200))
	if err := s.Write(context.Background(), "default", put(it)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Get(context.Background(), "default", []store.Lookup{{Table: "t", Key: it}}); err != nil {
			b.Fatal(err)
		}
	}
}

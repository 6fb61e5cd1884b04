package lambda_test

import (
	"context"
	"testing"

	"github.com/ebb-run/ebb/internal/guest/guesttest"
	"github.com/ebb-run/ebb/internal/invocation"
)

func roundTrips(b *testing.B, g *guesttest.Guest) {
	b.Helper()
	inv := guesttest.Direct(`{"name":"ann"}`)
	sink := &invocation.Buffer{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		sink.Started = false
		sink.Body.Reset()
		if err := g.Invoke(ctx, inv, sink); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRoundTrip_Node(b *testing.B) {
	roundTrips(b, launch(b, nodeUnit(b, "index.handler", map[string]string{"index.js": `exports.handler = async (e) => ({message: "hello " + e.name})`})))
}

func BenchmarkRoundTrip_Python(b *testing.B) {
	roundTrips(b, launch(b, pythonUnit(b, "app.handler", map[string]string{"app.py": "def handler(e, c):\n    return {'message': 'hello ' + e['name']}\n"})))
}

func BenchmarkRoundTrip_Go(b *testing.B) {
	roundTrips(b, launch(b, goUnit(b, "provided.al2023", "gofn")))
}

func BenchmarkRoundTrip_GoRPC(b *testing.B) {
	roundTrips(b, launch(b, goUnit(b, "go1.x", "gorpc")))
}

package gateway

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/invocation"
)

const benchRequest = "GET /hello/ann?x=1 HTTP/1.1\r\nHost: localhost:3000\r\nUser-Agent: bench/1\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nX-Custom: v\r\n\r\n"

// drive sends requests over 16 connections and reads their answers.
func drive(b *testing.B, addr string) {
	b.Helper()
	b.SetParallelism(8) // times GOMAXPROCS
	b.ReportAllocs()
	before := cpu()
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		for pb.Next() {
			if _, err := io.WriteString(c, benchRequest); err != nil {
				b.Error(err)
				return
			}
			length := 0
			for {
				line, err := br.ReadSlice('\n')
				if err != nil {
					b.Error(err)
					return
				}
				if len(line) <= 2 {
					break
				}
				if len(line) > 16 && string(line[:15]) == "Content-Length:" {
					length = int(line[16] - '0')
					if line[17] != '\r' {
						length = length*10 + int(line[17]-'0')
					}
				}
			}
			if _, err := br.Discard(length); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") // steadier on a busy machine
}

// cpu is the processor time of this process, client side included, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkServe compares requests per second of the gateway in front of a function that costs nothing with those of a
// bare net/http handler.
func BenchmarkServe(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"hello":"ann"}`)
		})}
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
		drive(b, l.Addr().String())
	})
	b.Run("gateway", func(b *testing.B) {
		answer := []byte(`{"hello":"ann"}`)
		head := invocation.Head{Status: 200, Header: []invocation.Field{{Name: "content-type", Value: "application/json"}}, Length: int64(len(answer))}
		s := start(b, Options{Access: func(Access) {}, Invoker: invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
			if err := s.Start(head); err != nil {
				return err
			}
			_, err := s.Write(answer)
			return err
		})}, Mount{App: shop(app.HTTP, "$default", "GET /hello/{name}", "GET /other", "ANY /files/{proxy+}")})
		drive(b, s.addr)
	})
}

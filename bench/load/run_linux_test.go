package load

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func serve(t *testing.T, h http.HandlerFunc) Target {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return Target{Addr: strings.TrimPrefix(s.URL, "http://"), Path: "/x", Body: 5}
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }

func TestClosed_TimesEveryAnswer(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	r, err := Closed(serve(t, func(w http.ResponseWriter, q *http.Request) { n.Add(1); hello(w, q) }), 4, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if got := int64(len(r.Latency)); got == 0 || got != n.Load() {
		t.Errorf("%d latencies of %d requests", got, n.Load())
	}
}

func TestClosed_EndsWithTheFirstWrongAnswer(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		bad  http.HandlerFunc
		want error
	}{
		"status": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hell", http.StatusBadGateway) }, errStatus},
		"length": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello!")) }, errLength},
		"closed": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, errShort},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			target := serve(t, func(w http.ResponseWriter, q *http.Request) {
				if n.Add(1) == 20 {
					row.bad(w, q)
					return
				}
				hello(w, q)
			})
			if _, err := Closed(target, 2, 5*time.Second); !errors.Is(err, row.want) {
				t.Errorf("error %v, want %v", err, row.want)
			}
		})
	}
}

func TestOpen_SendsWhatTheScheduleHas(t *testing.T) {
	t.Parallel()
	r, err := Open(serve(t, hello), 4, 1000, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Latency) != 100 || r.Elapsed < 99*time.Millisecond {
		t.Errorf("%d requests in %v, want 100 in no less than 99 ms", len(r.Latency), r.Elapsed)
	}
}

// The server stands still once; every request that was due in that time has to show it.
func TestOpen_CountsTheWaitOfRequestsThatCouldNotBeSent(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	const still = 200 * time.Millisecond
	r, err := Open(serve(t, func(w http.ResponseWriter, q *http.Request) {
		if n.Add(1) == 10 {
			time.Sleep(still)
		}
		hello(w, q)
	}), 1, 500, 400*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	slow := 0
	for _, l := range r.Latency {
		if l > still/4 {
			slow++
		}
	}
	if len(r.Latency) != 200 || slow < 70 {
		t.Errorf("%d of %d requests show a stall of %v in which 100 were due", slow, len(r.Latency), still)
	}
}

package wire_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/sign"
	"github.com/ebb-run/ebb/internal/wire/sts"
)

// stalled is a body that gives one half, and the other when it may.
type stalled struct {
	first, second io.Reader
	sent          func() // the first half is
	proceed       <-chan struct{}
}

func (s *stalled) Read(p []byte) (int, error) {
	n, err := s.first.Read(p)
	if err == nil {
		return n, nil
	}
	s.sent()
	<-s.proceed
	return s.second.Read(p)
}

// small is sts, with a body of at most 256 KiB.
func small(t *testing.T, o wire.Options) *wire.Handler {
	t.Helper()
	s := sts.New()
	s.MaxBody = 256 << 10
	o.Services = []*wire.Service{s}
	o.Authenticate = func(context.Context, string, string) (string, wire.Caller, error) {
		return "secret", wire.Caller{Tenant: "default", Account: "000000000000"}, nil
	}
	h, err := wire.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func signed(t *testing.T, ctx context.Context, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	sign.Sign(r, []byte(body), sign.Credentials{AccessKey: "AKIA", Secret: "secret"}, "us-east-1", "sts", time.Now())
	return r
}

// Whatever slow clients send, no more than the budget is held of it; those that find no room are refused in AWS's form, and all is given back.
func TestHandler_HoldsNoMoreOfSlowClientsThanItsBudget(t *testing.T) {
	t.Parallel()
	const clients, budget = 200, 1 << 20
	h := small(t, wire.Options{BodyBudget: budget, BodyPatience: 50 * time.Millisecond})
	srv := httptest.NewServer(h)
	defer srv.Close()
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 0}}
	defer client.CloseIdleConnections()
	body := "Action=GetCallerIdentity&Version=2011-06-15&Pad=" + strings.Repeat("x", 200<<10)
	half := len(body) / 2
	proceed := make(chan struct{})
	var sent atomic.Int32
	var answered, refused atomic.Int32
	var peak atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			r := signed(t, t.Context(), srv.URL, body)
			r.Body = io.NopCloser(&stalled{first: strings.NewReader(body[:half]), second: strings.NewReader(body[half:]), proceed: proceed, sent: func() {
				if sent.Add(1) == clients {
					close(proceed)
				}
				peak.Store(max(peak.Load(), h.BodiesHeld()))
			}})
			resp, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			switch {
			case resp.StatusCode == 200 && strings.Contains(string(text), "<Account>"):
				answered.Add(1)
			case resp.StatusCode == 503 && strings.Contains(string(text), "<Code>ServiceUnavailable</Code>"):
				refused.Add(1)
			default:
				t.Errorf("%s %s", resp.Status, text)
			}
		})
	}
	wg.Wait()
	if answered.Load()+refused.Load() != clients || refused.Load() == 0 {
		t.Errorf("%d answered, %d refused", answered.Load(), refused.Load())
	}
	if peak.Load() > budget || peak.Load() == 0 {
		t.Errorf("%d bytes were held; the budget is %d", peak.Load(), budget)
	}
	resp, err := client.Do(signed(t, t.Context(), srv.URL, body))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("afterwards: %v %v", resp, err)
	}
	resp.Body.Close()
	srv.Close() // waits for the handlers
	if n := h.BodiesHeld(); n != 0 {
		t.Errorf("%d bytes are held for nobody", n)
	}
}

// A body that finds no room waits, and is taken when there is some.
func TestHandler_BodiesWaitForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := small(t, wire.Options{BodyBudget: 256<<10 + 1, BodyPatience: time.Minute})
		body := "Action=GetCallerIdentity&Version=2011-06-15&Pad=" + strings.Repeat("x", 200<<10)
		proceed := make(chan struct{})
		serve := func(r *http.Request) <-chan string {
			done := make(chan string, 1)
			go func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				done <- fmt.Sprint(w.Code)
			}()
			return done
		}
		first := signed(t, t.Context(), "http://sts.us-east-1.amazonaws.com/", body)
		first.Body = io.NopCloser(&stalled{first: strings.NewReader(body[:len(body)-1]), second: strings.NewReader(body[len(body)-1:]), proceed: proceed, sent: func() {}})
		one := serve(first)
		synctest.Wait()
		two := serve(signed(t, t.Context(), "http://sts.us-east-1.amazonaws.com/", body))
		synctest.Wait()
		select {
		case code := <-two:
			t.Fatalf("the second was answered %s while the first held the room", code)
		default:
		}
		close(proceed)
		if a, b := <-one, <-two; a != "200" || b != "200" {
			t.Errorf("answered %s and %s", a, b)
		}
		if n := h.BodiesHeld(); n != 0 {
			t.Errorf("%d bytes are held for nobody", n)
		}
	})
}

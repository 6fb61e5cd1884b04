package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

func TestInvoke_GivesAWholeAnswerWhateverComesAfterIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		length int64
		body   string
		cut    bool
	}{
		{name: "whole", length: 5, body: "whole"},
		{name: "large", length: 100_000, body: strings.Repeat("x", 100_000)},
		{name: "empty", length: 0},
		{name: "short", length: 6, body: "short", cut: true},
		{name: "nothing of it", length: 6, cut: true},
		{name: "of unknown length", length: -1, body: "some", cut: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := open(t)
			read := make(chan struct{}) // closed when the caller has the answer
			n.invoke = func(_ *invocation.Invocation, _ []byte, s invocation.Sink) error {
				if err := s.Start(invocation.Head{Length: c.length}); err != nil {
					return err
				}
				if _, err := io.WriteString(s, c.body); err != nil {
					return err
				}
				if !c.cut {
					select { // the guest works on
					case <-read:
					case <-time.After(10 * time.Second):
						t.Error("the answer waits for the guest's work after it")
					}
				}
				return errs.New(errs.Timeout, "the guest worked on for too long")
			}
			a, err := n.client.Invoke(t.Context(), "hello", nil, "")
			close(read)
			if (err != nil) != c.cut {
				t.Fatalf("error %v, want one: %v", err, c.cut)
			}
			if err == nil && string(a.Payload) != c.body {
				t.Errorf("payload of %d bytes, want %d", len(a.Payload), len(c.body))
			}
		})
	}
}

func TestInvoke_SaysTheLengthItKnows(t *testing.T) {
	t.Parallel()
	n := open(t)
	n.invoke = func(_ *invocation.Invocation, _ []byte, s invocation.Sink) error {
		if err := s.Start(invocation.Head{Length: 4}); err != nil {
			return err
		}
		_, err := io.WriteString(s, "four")
		return err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/v1/functions/hello/invocations", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+string(token))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ContentLength != 4 {
		t.Errorf("Content-Length %d, want 4", resp.ContentLength)
	}
}

func TestInvoke_ACallerThatLeavesEndsOnlyWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		canceled   bool
	}{
		{"with half an answer", "ha", true},
		{"with the whole answer", "half", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			left, begun, over := make(chan struct{}), make(chan struct{}), make(chan error, 1)
			b := &backend{during: func(ctx context.Context, s invocation.Sink) error {
				_ = s.Start(invocation.Head{Length: 4})
				_, _ = io.WriteString(s, c.body)
				close(begun)
				<-left
				select {
				case <-ctx.Done():
				case <-time.After(map[bool]time.Duration{true: 10 * time.Second, false: 50 * time.Millisecond}[c.canceled]):
				}
				over <- ctx.Err()
				return nil
			}}
			ctx, leave := context.WithCancel(t.Context())
			req := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://localhost/v1/functions/hello/invocations", strings.NewReader("{}"))
			req.Header.Set("Authorization", "Bearer "+string(token))
			served := make(chan struct{})
			go func() {
				defer close(served)
				api.NewServer(b, token, slog.New(slog.DiscardHandler)).ServeHTTP(httptest.NewRecorder(), req)
			}()
			<-begun
			leave()
			close(left)
			if err := <-over; (err != nil) != c.canceled {
				t.Errorf("the invocation's context says %v, want an end: %v", err, c.canceled)
			}
			<-served
		})
	}
}

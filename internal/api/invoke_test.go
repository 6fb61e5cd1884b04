package api_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

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

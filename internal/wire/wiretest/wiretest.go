// Package wiretest serves services of package wire for their tests, without a Node.
//
// Main type: [Endpoint], a server on a port of its own with one set of credentials, for real clients.
//
// It is for tests alone.
package wiretest

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// The credentials of an Endpoint, and who has them.
const (
	AccessKey = "AKIAEBBTESTEBBTESTEB"
	SecretKey = "wiretest+secret/0123456789abcdefghijklmn"
	Account   = "000000000000"
	Region    = "us-east-1"
)

// Endpoint serves services.
type Endpoint struct {
	URL string

	mu struct {
		sync.Mutex
		refused []string
	}
}

// New serves services until the test ends.
func New(t testing.TB, services ...*wire.Service) *Endpoint {
	t.Helper()
	e := &Endpoint{}
	h, err := wire.New(wire.Options{
		Services: services,
		Log:      slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError})),
		Authenticate: func(_ context.Context, key, _ string) (string, wire.Caller, error) {
			if key != AccessKey {
				return "", wire.Caller{}, wire.ErrUnknownKey
			}
			return SecretKey, wire.Caller{Tenant: "default", Account: Account, Key: key, ARN: "arn:aws:iam::" + Account + ":user/test", UserID: "test"}, nil
		},
		Anonymous: wire.Caller{Tenant: "default", Account: Account},
		Answered: func(_ *wire.Call, service, operation string, status int) {
			if status < 300 {
				Seen(t, service, operation)
			}
		},
		Refused: func(_ context.Context, _ wire.Caller, what string) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.mu.refused = append(e.mu.refused, what)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	e.URL = srv.URL
	return e
}

// seenFile in the environment is where it is written which operations tests have seen to succeed, for the pages that tell what is here.
const seenFile = "EBB_WIRE_SEEN"

var seen sync.Map // service, operation and test that were written already

// Seen notes that a test has seen an operation succeed.
func Seen(t testing.TB, service, operation string) {
	path := os.Getenv(seenFile)
	name, _, _ := strings.Cut(t.Name(), "/")
	line := service + " " + operation + " " + name + "\n"
	if _, twice := seen.LoadOrStore(line, true); path == "" || operation == "" || twice {
		return
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(line); err != nil {
		t.Error(err)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// Refused is what was asked for that is not here.
func (e *Endpoint) Refused() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.mu.refused...)
}

// Do signs a request for a service and sends it.
func (e *Endpoint) Do(t testing.TB, service, method, path string, header map[string]string, body string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, e.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	sign.Sign(r, []byte(body), sign.Credentials{AccessKey: AccessKey, Secret: SecretKey}, Region, service, time.Now())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

// JSON calls an operation of a service with the JSON protocol: target is "AmazonSQS.SendMessage".
func (e *Endpoint) JSON(t testing.TB, service, target, body string) (*http.Response, string) {
	t.Helper()
	return e.Do(t, service, http.MethodPost, "/", map[string]string{"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.0"}, body)
}

// Form calls an operation with the query protocol: body is "Action=…".
func (e *Endpoint) Form(t testing.TB, service, path, body string) (*http.Response, string) {
	t.Helper()
	return e.Do(t, service, http.MethodPost, path, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, body)
}

package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
)

// extGuest has a session in its Init, and a Layer with one external extension, "outer".
type extGuest struct {
	*apiClient // the runtime's
	ln         net.Listener
	opened     chan error
	session    guest.Session
}

func startExtGuest(t *testing.T) *extGuest {
	t.Helper()
	layer := t.TempDir()
	if err := os.MkdirAll(filepath.Join(layer, "extensions"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layer, "extensions", "outer"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &extGuest{ln: ln, opened: make(chan error, 1)}
	u := &guest.Unit{Function: "f", Version: "$LATEST", Handler: "h", Account: "1", ARN: "arn:aws:lambda:us-east-1:1:function:f", Timeout: 3 * time.Second, Layers: layer}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	go func() {
		s, err := openAPI(ctx, ln, u, newPool())
		g.session = s
		g.opened <- err
	}()
	g.apiClient = dialAPI(t, ln.Addr().String())
	return g
}

func (g *extGuest) open() {
	g.t.Helper()
	if err := <-g.opened; err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.session.Close() })
}

// ask sends a request of any path.
func (c *apiClient) ask(method, path, body string, header ...string) {
	c.t.Helper()
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n", method, path, len(body))
	for _, h := range header {
		text += h + "\r\n"
	}
	c.send(text + "\r\n" + body)
}

// register gives the extension's id header line.
func (c *apiClient) register(name, events string) string {
	c.t.Helper()
	c.ask("POST", "/2020-01-01/extension/register", `{"events":[`+events+`]}`, "Lambda-Extension-Name: "+name)
	st, header, body := c.read()
	if st != "200 OK" || body != `{"functionName":"f","functionVersion":"$LATEST","handler":"h"}` {
		c.t.Fatalf("register %s: %s %s", name, st, body)
	}
	for _, h := range header {
		if strings.HasPrefix(h, "Lambda-Extension-Identifier: ") {
			return h
		}
	}
	c.t.Fatalf("no identifier in %v", header)
	return ""
}

func (c *apiClient) nextEvent(id string) { c.ask("GET", "/2020-01-01/extension/event/next", "", id) }

// event reads the answer to nextEvent.
func (c *apiClient) event() map[string]any {
	c.t.Helper()
	st, header, body := c.read()
	var e map[string]any
	if err := json.Unmarshal([]byte(body), &e); err != nil || st != "200 OK" || !strings.Contains(strings.Join(header, "\n"), "Lambda-Extension-Event-Identifier: ") {
		c.t.Fatalf("event: %s %v %s", st, header, body)
	}
	return e
}

func TestExtension_AnInvocationLastsUntilItAsksForTheNext(t *testing.T) {
	t.Parallel()
	g := startExtGuest(t)
	x, y := dialAPI(t, g.addr), dialAPI(t, g.addr)
	xID, yID := x.register("inner", `"INVOKE"`), y.register("quiet", ``)
	g.send(getNext)
	select {
	case err := <-g.opened:
		t.Fatalf("Init is over before the extensions are ready: %v", err)
	default:
	}
	y.nextEvent(yID)
	x.nextEvent(xID)
	g.open()
	for range 3 {
		done := start(t, g.session, direct(`{"a":1}`))
		e := x.event()
		tracing, _ := e["tracing"].(map[string]any)
		if e["eventType"] != "INVOKE" || e["requestId"] != testID || e["deadlineMs"] != 1700000003000.0 || e["invokedFunctionArn"] != "arn:aws:lambda:us-east-1:1:function:f" ||
			tracing["type"] != "X-Amzn-Trace-Id" || !strings.HasPrefix(fmt.Sprint(tracing["value"]), "Root=1-0af76519-") {
			t.Fatalf("%v", e)
		}
		if _, _, body := g.read(); body != `{"a":1}` {
			t.Fatalf("the runtime gets %s", body)
		}
		if st, _ := g.do("POST", "runtime/invocation/"+testID+"/response", "2"); st != "202 Accepted" {
			t.Fatal(st)
		}
		g.send(getNext)
		select {
		case <-done:
			t.Fatal("the Invocation is over while the extension works")
		default:
		}
		x.nextEvent(xID)
		if r := <-done; r.err != nil || r.Body.String() != "2" {
			t.Fatalf("%q %v", r.Body.String(), r.err)
		}
	}
}

func TestExtension_OnTheRuntimesOwnConnection(t *testing.T) {
	t.Parallel()
	g := startExtGuest(t)
	x := dialAPI(t, g.addr)
	id := x.register("inner", `"INVOKE"`)
	x.nextEvent(id)
	g.send(getNext)
	g.open()
	done := start(t, g.session, direct(`{}`))
	x.event()
	g.read()
	g.do("POST", "runtime/invocation/"+testID+"/response", "2")
	// A client with a pool of connections may mix them up.
	g.nextEvent(id)
	x.send(getNext)
	if r := <-done; r.err != nil || r.Body.String() != "2" {
		t.Fatalf("%q %v", r.Body.String(), r.err)
	}
	done = start(t, g.session, direct(`{}`))
	g.event()
	x.read()
	x.do("POST", "runtime/invocation/"+testID+"/response", "3")
	x.send(getNext)
	g.nextEvent(id)
	if r := <-done; r.err != nil || r.Body.String() != "3" {
		t.Fatalf("%q %v", r.Body.String(), r.err)
	}
}

func TestExtension_IsToldOfTheEnd(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"hangs up", "asks again", "is busy", "says nothing"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			g := startExtGuest(t)
			x := dialAPI(t, g.addr)
			id := x.register("outer", `"INVOKE","SHUTDOWN"`)
			x.nextEvent(id)
			g.send(getNext)
			g.open()
			if how == "is busy" {
				done := start(t, g.session, direct(`{}`))
				x.event()
				defer func() { g.session.Close(); <-done }()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			over := make(chan struct{})
			go func() {
				g.session.(guest.Shutter).Shutdown(ctx, guest.Timeout)
				close(over)
			}()
			if how == "is busy" {
				x.nextEvent(id)
			}
			if e := x.event(); e["eventType"] != "SHUTDOWN" || e["shutdownReason"] != "timeout" || e["deadlineMs"].(float64) < 1.7e12 {
				t.Fatalf("%v", e)
			}
			switch how {
			case "hangs up":
				x.conn.Close()
			case "asks again", "is busy":
				x.nextEvent(id)
			default:
				cancel()
			}
			<-over
		})
	}
}

func TestExtension_ThatGivesUpTakesTheInstanceWithIt(t *testing.T) {
	t.Parallel()
	t.Run("in Init", func(t *testing.T) {
		t.Parallel()
		g := startExtGuest(t)
		id := g.register("inner", ``)
		g.ask("POST", "/2020-01-01/extension/init/error", `{}`, id, "Lambda-Extension-Function-Error-Type: Extension.NoConfig")
		var e *guest.InitError
		if err := <-g.opened; !errors.As(err, &e) || e.Type != "Extension.InitError" || !strings.Contains(e.Message, "inner has given up: Extension.NoConfig") || len(e.Payload) == 0 {
			t.Errorf("%v", err)
		}
	})
	t.Run("later", func(t *testing.T) {
		t.Parallel()
		g := startExtGuest(t)
		x := dialAPI(t, g.addr)
		id := x.register("inner", `"INVOKE"`)
		x.nextEvent(id)
		g.send(getNext)
		g.open()
		done := start(t, g.session, direct(`{}`))
		x.event()
		x.ask("POST", "/2020-01-01/extension/exit/error", `{}`, id, "Lambda-Extension-Function-Error-Type: Extension.Lost")
		if st, _, _ := x.read(); st != "202 Accepted" {
			t.Error(st)
		}
		if r := <-done; r.err == nil || !strings.Contains(r.err.Error(), "Extension.Lost") {
			t.Errorf("%v", r.err)
		}
	})
}

func TestExtension_RefusesWhatIsOutOfOrder(t *testing.T) {
	t.Parallel()
	const reg, next = "/2020-01-01/extension/register", "/2020-01-01/extension/event/next"
	name := func(s string) []string { return []string{"Lambda-Extension-Name: " + s} }
	id := func(s string) []string { return []string{"Lambda-Extension-Identifier: " + s} }
	g := startExtGuest(t)
	known := g.register("known", ``)
	for i, c := range []struct {
		method, path, body string
		header             []string
		status, kind       string
	}{
		{"POST", reg, `{"events":[]}`, nil, "403 Forbidden", "Extension.InvalidExtensionName"},
		{"POST", reg, `{`, name("a"), "403 Forbidden", "InvalidRequestFormat"},
		{"POST", reg, `{"events":["LATER"]}`, name("a"), "403 Forbidden", "Extension.InvalidEventType"},
		{"POST", reg, `{"events":["SHUTDOWN"]}`, name("a"), "403 Forbidden", "ShutdownEventNotSupportedForInternalExtension"},
		{"POST", reg, `{"events":["SHUTDOWN"]}`, name("../extensions/outer"), "403 Forbidden", "ShutdownEventNotSupportedForInternalExtension"},
		{"POST", reg, `{"events":[]}`, name("known"), "403 Forbidden", "Extension.InvalidExtensionState"},
		{"GET", reg, ``, name("a"), "405 Method Not Allowed", ""},
		{"GET", next, ``, nil, "403 Forbidden", "Extension.MissingExtensionIdentifier"},
		{"GET", next, ``, id("x"), "403 Forbidden", "Extension.InvalidExtensionIdentifier"},
		{"GET", next, ``, id(testID), "403 Forbidden", "Extension.UnknownExtensionIdentifier"},
		{"POST", "/2020-01-01/extension/exit/error", ``, []string{known}, "403 Forbidden", "Extension.MissingHeader"},
		{"POST", "/2020-01-01/extension/other", ``, []string{known}, "404 Not Found", ""},
		{"PUT", "/2022-07-01/telemetry", `{}`, nil, "403 Forbidden", "Extension.MissingExtensionIdentifier"},
		{"PUT", "/2022-07-01/telemetry", `{}`, []string{known}, "202 Accepted", "Telemetry.NotSupported"},
		{"PUT", "/2020-08-15/logs", `{}`, []string{known}, "202 Accepted", "Logs.NotSupported"},
	} {
		g.ask(c.method, c.path, c.body, c.header...)
		if st, _, body := g.read(); st != c.status || !strings.Contains(body, c.kind) {
			t.Errorf("%d: %s %s: %s %s", i, c.method, c.path, st, body)
		}
	}
	for i := range maxExtensions - 1 {
		g.register(fmt.Sprint("more", i), ``)
	}
	g.ask("POST", reg, `{"events":[]}`, name("eleventh")...)
	if st, _, body := g.read(); st != "403 Forbidden" || !strings.Contains(body, "Extension limit (10) reached") {
		t.Errorf("%s %s", st, body)
	}
	x := dialAPI(t, g.addr)
	g.send(getNext)
	for { // the runtime's request comes on another connection
		x.ask("POST", reg, `{"events":[]}`, name("late")...)
		if _, _, body := x.read(); strings.Contains(body, "Extension.RegistrationClosed") {
			break
		}
	}
}

func TestExtension_GivesTheAccountToWhoAsksForIt(t *testing.T) {
	t.Parallel()
	g := startExtGuest(t)
	g.ask("POST", "/2020-01-01/extension/register", `{"events":["INVOKE"]}`, "Lambda-Extension-Name: a", "Lambda-Extension-Accept-Feature: other, accountId")
	if _, _, body := g.read(); !strings.HasSuffix(body, `,"accountId":"1"}`) {
		t.Error(body)
	}
}

package lambda

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/guest"
	"github.com/ebb-run/ebb/internal/invocation"
)

const (
	// maxExtensions is how many may register: Lambda, "Using the Lambda Extensions API", "Limits".
	maxExtensions = 10

	extensionPrefix = "/2020-01-01/extension/"
	idHeader        = "Lambda-Extension-Identifier"
)

// extension is one that has registered (AWS: "Using the Lambda Extensions API", 2020-01-01). The session's mu guards it.
type extension struct {
	id, name string
	invoke   bool     // wants INVOKE
	shutdown bool     // wants SHUTDOWN
	conn     *apiConn // has asked for the next event there, and has none
	told     bool     // of SHUTDOWN
	done     bool     // and has ended its work
	external bool     // a program of its own, whose end is told
}

// extensions are those of one session. Its mu guards them.
type extensions struct {
	byID   map[string]*extension
	order  []*extension
	names  []string // of those that were started beside the runtime
	fault  error    // one of them has given up: the Instance has to go
	broke  func()   // called once with the fault; or nil
	ending []byte
}

// readyLocked says that the runtime and all extensions wait for what comes next.
func (s *apiSession) readyLocked() bool {
	if s.mu.waiter == nil && !s.alone {
		return false
	}
	for _, x := range s.mu.ext.order {
		if x.conn == nil {
			return false
		}
	}
	return true
}

// extended says whether extensions have to be waited for.
func (s *apiSession) extended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.ext.order) > 0
}

// extension is a request to the Extensions API, or to that of telemetry.
func (c *apiConn) extension(q *apiRequest) (*apiStatus, step) {
	what, ok := strings.CutPrefix(q.path, extensionPrefix)
	want := "POST"
	switch {
	case q.path == "/2022-07-01/telemetry":
		what, want = "Telemetry", "PUT"
	case q.path == "/2020-08-15/logs":
		what, want = "Logs", "PUT"
	case !ok:
		return c.refuse(q, statusNotFound)
	case what == "event/next":
		want = "GET"
	case what != "register" && what != "init/error" && what != "exit/error":
		return c.refuse(q, statusNotFound)
	}
	if q.method != want {
		return c.refuse(q, statusMethod)
	}
	b := c.s.pool.Get().(*scratch)
	defer keep(c.s.pool, b)
	doc, over, err := c.readAll(q, b)
	switch {
	case err != nil:
		return nil, ends
	case over:
		return statusTooLarge, ends
	case what == "register":
		return c.s.register(q, doc), goes
	}
	x, st := c.s.known(q)
	switch {
	case st != nil:
		return st, goes
	case want == "PUT":
		return failure("202 Accepted", what+".NotSupported", what+" API is not supported"), goes
	case what != "event/next":
		return c.s.gaveUp(c, x, q, what), goes
	}
	c.inside = false
	return c.s.nextEvent(c, x)
}

// register takes an extension in, while Init lasts.
func (s *apiSession) register(q *apiRequest, doc []byte) *apiStatus {
	refuse := func(kind, format string, a ...any) *apiStatus {
		return failure("403 Forbidden", kind, fmt.Sprintf(format, a...))
	}
	if q.extName == "" {
		return refuse("Extension.InvalidExtensionName", "Empty extension name")
	}
	var in struct{ Events []string }
	if err := json.Unmarshal(doc, &in); err != nil {
		return refuse("InvalidRequestFormat", "%s", err)
	}
	x := &extension{name: q.extName}
	for _, e := range in.Events {
		switch {
		case e == "INVOKE":
			x.invoke = true
		case e != "SHUTDOWN":
			return refuse("Extension.InvalidEventType", "%s: ErrorInvalidEventType", e)
		case !slices.Contains(s.mu.ext.names, q.extName) && !external(s.unit, q.extName):
			return refuse("Extension.InvalidEventType", "%s: ShutdownEventNotSupportedForInternalExtension", e)
		default:
			x.shutdown = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.ready {
		return refuse("Extension.RegistrationClosed", "Extension registration closed already")
	}
	for _, old := range s.mu.ext.order {
		if old.name == x.name {
			return refuse("Extension.InvalidExtensionState", "Extension with this name already registered")
		}
	}
	if len(s.mu.ext.order) == maxExtensions {
		return refuse("Extension.TooManyExtensions", "Extension limit (%d) reached", maxExtensions)
	}
	x.external = slices.Contains(s.mu.ext.names, x.name)
	x.id = newUUID()
	if s.mu.ext.byID == nil {
		s.mu.ext.byID = map[string]*extension{}
	}
	s.mu.ext.byID[x.id] = x
	s.mu.ext.order = append(s.mu.ext.order, x)
	if x.external {
		s.notify() // the runtime's start waits for it
	}
	st := &apiStatus{line: "200 OK", kind: "application/json", head: idHeader + ": " + x.id + "\r\n"}
	body := appendString([]byte(`{"functionName":`), s.unit.Function)
	body = appendString(append(body, `,"functionVersion":`...), s.unit.Version)
	body = appendString(append(body, `,"handler":`...), s.unit.Handler)
	for feature := range strings.SplitSeq(q.extAccept, ",") {
		if strings.TrimSpace(feature) == "accountId" {
			body = appendString(append(body, `,"accountId":`...), s.unit.Account)
			break
		}
	}
	st.body = string(append(body, '}'))
	return st
}

// external says whether the Layers have an extension of this name to start.
func external(u *guest.Unit, name string) bool {
	return u.Layers != "" && name == filepath.Base(name) && isFile(filepath.Join(u.Layers, "extensions", name))
}

// known gives the extension that asks.
func (s *apiSession) known(q *apiRequest) (*extension, *apiStatus) {
	if q.extID == "" {
		return nil, failure("403 Forbidden", "Extension.MissingExtensionIdentifier", "Missing "+idHeader+" header")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.mu.ext.byID[q.extID]; x != nil {
		return x, nil
	}
	if len(q.extID) != 36 {
		return nil, failure("403 Forbidden", "Extension.InvalidExtensionIdentifier", "Invalid "+idHeader)
	}
	return nil, failure("403 Forbidden", "Extension.UnknownExtensionIdentifier", "Unknown extension "+q.extID)
}

// gaveUp is POST init/error and exit/error.
func (s *apiSession) gaveUp(c *apiConn, x *extension, q *apiRequest, what string) *apiStatus {
	if q.extError == "" {
		return failure("403 Forbidden", "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found")
	}
	kind := "Extension.ExitError"
	if what == "init/error" {
		kind = "Extension.InitError"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == "Extension.InitError" && s.mu.ready {
		return failure("403 Forbidden", "Extension.InvalidExtensionState", "State transition from Ready to InitError failed for extension "+x.name+". Error: State transition is not allowed")
	}
	x.done = true
	s.faultLocked(&guest.InitError{Type: kind, Message: "the extension " + x.name + " has given up: " + q.extError})
	s.changedLocked(c)
	return statusAccepted
}

// nextEvent is GET event/next. The connection waits, as a rule.
func (s *apiSession) nextEvent(c *apiConn, x *extension) (*apiStatus, step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := x.conn; old != nil && old != c {
		x.conn = nil
		s.endLocked(old) // it has given that one up
	}
	switch {
	case x.told:
		x.done = true
	case x.shutdown && s.mu.ext.ending != nil:
		x.told = true
		return eventAnswer(s.mu.ext.ending), goes
	}
	x.conn = c
	s.changedLocked(c)
	if s.mu.lent == c || s.mu.ext.ending != nil {
		s.notify()
	}
	return nil, waits
}

// eventAnswer is an answer to GET event/next.
func eventAnswer(body []byte) *apiStatus {
	return &apiStatus{line: "200 OK", kind: "application/json", head: "Lambda-Extension-Event-Identifier: " + newUUID() + "\r\n", body: string(body)}
}

// tellExtensions gives those that wait for it an event, and their connections back to their goroutines.
func (s *apiSession) tellExtensions(body []byte, wants func(*extension) bool) {
	var conns []*apiConn
	s.mu.Lock()
	for _, x := range s.mu.ext.order {
		if x.conn != nil && wants(x) {
			conns = append(conns, x.conn)
			x.conn = nil
		}
	}
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.conn.SetWriteDeadline(time.Now().Add(grace)) // an answer of this size is taken at once, or the guest is not well
		c.over = c.respond(eventAnswer(body), c.last) != nil || c.last
		_ = c.conn.SetWriteDeadline(time.Time{})
		if c.over {
			c.conn.Close()
		}
		c.turn <- struct{}{}
	}
}

// invoked is the INVOKE event.
func invoked(u *guest.Unit, inv *invocation.Invocation) []byte {
	b := append([]byte(`{"eventType":"INVOKE","deadlineMs":`), strconv.FormatInt(deadline(u, inv).UnixMilli(), 10)...)
	b = appendString(append(b, `,"requestId":`...), inv.ID)
	b = appendString(append(b, `,"invokedFunctionArn":`...), string(appendARN(nil, u, inv)))
	b = appendString(append(b, `,"tracing":{"type":"X-Amzn-Trace-Id","value":`...), traceHeader(inv))
	return append(b, "}}"...)
}

// Shutdown gives the SHUTDOWN event to the extensions that want it, and waits until they have ended their work or ctx ends.
func (s *apiSession) Shutdown(ctx context.Context, reason guest.Reason) {
	by, ok := ctx.Deadline()
	if !ok {
		by = time.Now()
	}
	body := append([]byte(`{"eventType":"SHUTDOWN","shutdownReason":`), strconv.Quote(string(reason))...)
	body = append(append(append(body, `,"deadlineMs":`...), strconv.FormatInt(by.UnixMilli(), 10)...), '}')
	s.mu.Lock()
	any := false
	for _, x := range s.mu.ext.order {
		any = any || x.shutdown && !x.done
	}
	if any && s.mu.ext.ending == nil {
		s.mu.ext.ending = body
	}
	s.mu.Unlock()
	if !any {
		return
	}
	s.tellExtensions(body, func(x *extension) bool {
		wants := x.shutdown && !x.told && !x.done
		x.told = x.told || wants
		return wants
	})
	for {
		s.mu.Lock()
		left, closed := false, s.mu.closed
		for _, x := range s.mu.ext.order {
			left = left || x.shutdown && !x.done
		}
		s.mu.Unlock()
		if !left || closed || ctx.Err() != nil {
			return
		}
		select {
		case <-s.wake:
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

// hungUpLocked notes for extensions that one of the guest's connections is gone: who was told to end and hangs up has ended.
func (s *apiSession) hungUpLocked(c *apiConn) {
	for _, x := range s.mu.ext.order {
		if x.conn == c {
			x.conn = nil
		}
		if x.told && !x.external && c.speaks == x.id {
			x.done = true
			s.notify()
		}
	}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// extensionFault makes the end of an extension during Init an InitError.
func extensionFault(err error) *guest.InitError {
	var e *guest.InitError
	if errors.As(err, &e) {
		return &guest.InitError{Type: e.Type, Message: e.Message, Payload: bytes.Clone(errorDocument(e.Type, e.Message))}
	}
	return nil
}

var _ guest.Shutter = (*apiSession)(nil)

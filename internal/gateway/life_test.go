package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/invocation"
)

// within fails the test when c gives nothing for long.
func within[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
	panic("unreachable")
}

func TestGateway_AnswersAtTheTimeoutAndLetsTheFunctionRunOn(t *testing.T) {
	t.Parallel()
	for kind, want := range map[app.APIKind]string{app.REST: `504 {"message": "Endpoint request timed out"}`, app.HTTP: `503 {"message":"Service Unavailable"}`} {
		goOn, result := make(chan struct{}), make(chan error, 1)
		inv := invokerFunc(func(ctx context.Context, _ *invocation.Invocation, s invocation.Sink) error {
			<-goOn
			err := text(s, "late")
			if err == nil {
				err = ctx.Err()
			}
			result <- err
			return err
		})
		a := shop(kind, "$default", "GET /x")
		a.Routes[0].TimeoutMS = 20
		s := start(t, Options{Invoker: inv}, Mount{App: a})
		status, body, _ := ask(t, s, "GET", "/x")
		if got := fmt.Sprint(status, " ", body); got != want {
			t.Errorf("%s: %s", kind, got)
		}
		close(goOn)
		if err := within(t, result, "the function's end"); err != nil {
			t.Errorf("%s: the function was disturbed: %v", kind, err)
		}
	}
}

func TestGateway_CancelsWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	seen, ended, logged := make(chan struct{}), make(chan error, 1), make(chan Access, 1)
	inv := invokerFunc(func(ctx context.Context, _ *invocation.Invocation, _ invocation.Sink) error {
		close(seen)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	s := start(t, Options{Invoker: inv, Access: func(a Access) { logged <- a }}, Mount{App: shop(app.HTTP, "$default", "POST /x")})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"); err != nil {
		t.Fatal(err)
	}
	within(t, seen, "the invocation")
	c.Close()
	if err := within(t, ended, "the cancellation"); errs.CodeOf(err) != errs.Canceled {
		t.Errorf("ended with %v", err)
	}
	if a := within(t, logged, "the access record"); a.Status != statusGone {
		t.Errorf("status %d", a.Status)
	}
}

func TestGateway_DoesNotInvokeForASlowClient(t *testing.T) {
	t.Parallel()
	inv := invokerFunc(func(context.Context, *invocation.Invocation, invocation.Sink) error {
		t.Error("invoked without a whole body")
		return nil
	})
	hasty := func(g *Gateway) { g.idle = 30 * time.Millisecond }
	s := startWith(t, Options{Invoker: inv}, hasty, Mount{App: shop(app.HTTP, "$default", "POST /x")})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 408 || !resp.Close {
		t.Errorf("status %d, close %v", resp.StatusCode, resp.Close)
	}
}

func TestGateway_LetsGoOfAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{false, true} {
		done, logged := make(chan error, 1), make(chan Access, 1)
		inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
			const parts, size = 64, 1 << 20
			err := s.Start(invocation.Head{Status: 200, Length: parts * size})
			for i := 0; i < parts && err == nil; i++ {
				_, err = s.Write(make([]byte, size))
			}
			done <- err
			return err
		})
		hasty := func(g *Gateway) { g.idle = 100 * time.Millisecond }
		s := startWith(t, Options{Invoker: inv, Access: func(a Access) { logged <- a }}, hasty, Mount{App: withURL(app.URL{Auth: "none", Stream: stream})})
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		err = within(t, done, "the function's end")
		if stream != (errs.CodeOf(err) == errs.Canceled) {
			t.Errorf("stream %v: the function ended with %v", stream, err)
		}
		if a := within(t, logged, "the access record"); a.Bytes >= 64<<20 {
			t.Errorf("stream %v: %d bytes are said to be sent", stream, a.Bytes)
		}
	}
}

func TestGateway_SurvivesAPanic(t *testing.T) {
	t.Parallel()
	inv := invokerFunc(func(context.Context, *invocation.Invocation, invocation.Sink) error { panic("boom") })
	s := start(t, Options{Invoker: inv}, Mount{App: shop(app.HTTP, "$default", "GET /x")})
	for range 2 {
		if status, body, _ := ask(t, s, "GET", "/x"); status != 500 || body != `{"message":"Internal Server Error"}` {
			t.Errorf("%d %s", status, body)
		}
	}
}

func TestGateway_StreamsAsItComes(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
		if err := s.Start(invocation.Head{Status: 200, Length: -1}); err != nil {
			return err
		}
		for _, part := range []string{"one", "two"} {
			if _, err := io.WriteString(s, part); err != nil {
				return err
			}
			<-next
		}
		return nil
	})
	s := start(t, Options{Invoker: inv}, Mount{App: withURL(app.URL{Auth: "none", Stream: true})})
	resp, err := http.Get("http://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 3)
	for _, want := range []string{"one", "two"} {
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != want {
			t.Fatalf("%q, %v", buf, err)
		}
		next <- struct{}{} // the function waits until the client has the part
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestGateway_AnswersBeforeTheInvocationIsOver(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
		if err := text(s, "now"); err != nil {
			return err
		}
		<-goOn // work after the answer
		return nil
	})
	s := start(t, Options{Invoker: inv}, Mount{App: shop(app.HTTP, "$default", "GET /x")})
	got := raw(t, s.addr, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
	if strings.Join(got, ",") != "200 now,200 now" {
		t.Errorf("answers %q", got)
	}
	close(goOn)
}

func TestGateway_UpgradesAConnection(t *testing.T) {
	t.Parallel()
	inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
		c, err := s.Upgrade(invocation.Head{Status: 101, Header: []invocation.Field{{Name: "Upgrade", Value: "echo"}, {Name: "Connection", Value: "Upgrade"}}})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = io.CopyN(c, c, 4)
		return err
	})
	s := start(t, Options{Invoker: inv}, Mount{App: shop(app.HTTP, "$default", "GET /x")})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nping"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n") || !strings.HasSuffix(string(b), "\r\n\r\nping") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestGateway_SpeaksHTTP2(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Invoker: invokerFunc(names)}, Mount{App: shop(app.HTTP, "$default", "POST /x")})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	for range 2 {
		r, err := http.NewRequest("POST", "http://"+s.addr+"/x", strings.NewReader("hi"))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "h"
		r.Header.Set("X-Big-Name", "v")
		r.Header.Set("User-Agent", "u")
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := "host=h,accept-encoding=gzip,content-length=2,user-agent=u,x-big-name=v|hi"; err != nil || resp.ProtoMajor != 2 || string(b) != want {
			t.Errorf("%s %q, %v", resp.Proto, b, err)
		}
	}
}

func TestGateway_ChoosesTheAppByHost(t *testing.T) {
	t.Parallel()
	named := func(name, stage string, a *app.App) *app.App {
		b := *a
		b.Name, b.Stage = name, stage
		return &b
	}
	one := named("Shop", "dev", shop(app.HTTP, "$default", "GET /x=f"))
	two := named("blog", "prod", shop(app.REST, "prod", "GET /x=g"))
	three := named("fn", "dev", withURL(app.URL{Auth: "none"}))
	s := start(t, Options{}, Mount{App: one}, Mount{App: two}, Mount{App: three})
	for name, row := range map[string]struct{ host, path, want string }{
		"dots":              {"shop.dev.localhost:1", "/x", "200 shop-dev-f /x /x[]"},
		"dash, case, dot":   {"SHOP-dev.localhost.", "/x", "200 shop-dev-f /x /x[]"},
		"other":             {"blog.prod.localhost", "/prod/x", "200 shop-dev-g /x /x[]"},
		"url host":          {"f.url.localhost", "/a%20b", "200 shop-dev-f $default /a%20b[]"},
		"url host of app":   {"f.url.fn.dev.localhost", "/", "200 shop-dev-f $default /[]"},
		"url at root":       {"fn.dev.localhost", "/a", "200 shop-dev-f $default /a[]"},
		"url at its prefix": {"fn.dev.localhost", "/_url/f/a/", "200 shop-dev-f $default /a/[]"},
		"nobody": {"127.0.0.1", "/x", `404 {"message":"No app is served at this host.","hosts":["blog.prod.localhost",` +
			`"fn.dev.localhost","shop.dev.localhost"]}`},
	} {
		status, body, _ := ask(t, s, "GET", row.path, "Host", row.host)
		if got := fmt.Sprint(status, " ", body); got != row.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	s.Unmount("default", "blog", "prod")
	s.Unmount("default", "fn", "dev")
	if status, body, _ := ask(t, s, "GET", "/x", "Host", "anything"); status != 200 {
		t.Errorf("one app left: %d %s", status, body)
	}
	s.Unmount("default", "Shop", "dev")
	if status, body, _ := ask(t, s, "GET", "/x"); status != 404 || body != `{"message":"No app is deployed.","hosts":[]}` {
		t.Errorf("none left: %d %s", status, body)
	}
}

func TestGateway_MixesFrontsByTheMostSpecificPattern(t *testing.T) {
	t.Parallel()
	a := shop(app.HTTP, "$default", "$default", "GET /both/{x}")
	a.APIs = append(a.APIs, app.API{ID: "Rest", Kind: app.REST, Stage: "dev"})
	a.Functions[1].URL = &app.URL{Auth: "NONE"}
	for _, p := range []string{"/both/one", "/rest/{proxy+}"} {
		a.Routes = append(a.Routes, app.Route{API: "Rest", Method: "ANY", Path: p, Function: "g"})
	}
	s := start(t, Options{}, Mount{App: a})
	for path, want := range map[string]string{
		"/both/one":     "shop-dev-g /both/one /both/one[]",
		"/both/two":     "shop-dev-f /both/{x} /both/two[{x two}]",
		"/dev/both/one": "shop-dev-g /both/one /both/one[]",
		"/rest/a":       "shop-dev-g /rest/{proxy+} /rest/a[{proxy a}]",
		"/else":         "shop-dev-f $default /else[]",
		"/_url/g":       "shop-dev-g $default /[]",
		"/_url/h":       "shop-dev-f $default /_url/h[]",
	} {
		if status, body, _ := ask(t, s, "GET", path); status != 200 || body != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	var got []string
	for _, i := range s.Routes("default", "shop", "dev") {
		got = append(got, i.Method+" "+i.Path+" "+i.Key+" "+i.URL)
	}
	want := "ANY * f /; GET /both/{x} f /both/{x}; ANY /both/one g /both/one; ANY /rest/{proxy+} g /rest/{proxy+}; ANY * g /_url/g/"
	if strings.Join(got, "; ") != want {
		t.Errorf("routes %q", got)
	}
}

func TestGateway_FillsTheInvocation(t *testing.T) {
	t.Parallel()
	a := shop(app.REST, "dev", "GET /users/{id}")
	a.APIs[0].StageVars = map[string]app.Value{"lit": app.Lit("1"), "ref": app.Attr("T", "Ref")}
	a.APIs[0].Binary = []string{"*/*"}
	type both struct {
		Inv *invocation.Invocation
		Req *invocation.Request
	}
	got := make(chan both, 1)
	logged := make(chan Access, 1)
	inv := invokerFunc(func(_ context.Context, inv *invocation.Invocation, s invocation.Sink) error {
		got <- both{inv, inv.Payload.(*invocation.Request)}
		return text(s, "ok")
	})
	resolve := func(v app.Value) (string, error) { return "<" + v.String() + ">", nil }
	s := start(t, Options{Invoker: inv, Access: func(a Access) { logged <- a }}, Mount{App: a, Account: "123456789012", Region: "eu-west-1", StageVars: resolve})
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	_, _, h := ask(t, s, "GET", "/dev/users/a%2Fb?q=%20&q", "Host", "my.host:9", "traceparent", trace)
	b := within(t, got, "the invocation")
	q := b.Req
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.Inv.ID) || b.Inv.ID != h.Get("X-Amzn-Requestid") {
		t.Errorf("id %q, header %q", b.Inv.ID, h.Get("X-Amzn-Requestid"))
	}
	if b.Inv.Tenant != "default" || b.Inv.Mode != invocation.ModeRequest || b.Inv.Attempt != 1 || b.Inv.Trace != trace || time.Since(b.Inv.Received) > time.Minute {
		t.Errorf("invocation %+v", b.Inv)
	}
	if q.Path != "/users/a%2Fb" || q.FullPath != "/dev/users/a%2Fb" || q.Query != "q=%20&q" || q.Host != "my.host:9" || q.RemoteIP != "127.0.0.1" || q.Scheme != "http" || q.Proto != "HTTP/1.1" {
		t.Errorf("request %+v", q)
	}
	id := APIID("default", "shop", "dev", "Api")
	route, err := json.Marshal(q.Route)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"APIKind":"rest","APIID":"` + id + `","Domain":"` + id + `.execute-api.eu-west-1.amazonaws.com","Account":"123456789012","Stage":"dev",` +
		`"StageVars":{"lit":"1","ref":"\u003c${T.Ref}\u003e"},"Method":"GET","Pattern":"/users/{id}","ResourceID":"` + stableID(6, id, "/users/{id}") +
		`","Format":"1.0","Binary":["*/*"],"Stream":false,"Params":[{"Name":"id","Value":"a%2Fb"}]}`
	if string(route) != want {
		t.Errorf("route %s", route)
	}
	l := within(t, logged, "the access record")
	if l.Duration <= 0 || l.RequestID != b.Inv.ID {
		t.Errorf("access %+v", l)
	}
	l.Time, l.Duration, l.RequestID = time.Time{}, 0, ""
	if l != (Access{Tenant: "default", App: "shop", Stage: "dev", Function: "shop-dev-f", Method: "GET", Path: "/dev/users/a%2Fb", Route: "GET /users/{id}", Status: 200, Bytes: 2}) {
		t.Errorf("access %+v", l)
	}
	if err := New(Options{}).Mount(Mount{App: a}); err == nil {
		t.Error("a stage variable that nothing resolves is accepted")
	}
}

func TestTrace_TakesOnlyWhatIsOne(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": true,
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331":    false,
		"": false,
	} {
		h := http.Header{}
		h.Set("traceparent", in)
		if got := trace(h); (got == in && in != "") != ok {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestIDs_AreAllDifferent(t *testing.T) {
	t.Parallel()
	g := new(ids)
	var (
		mu   sync.Mutex
		seen = map[string]bool{}
		wg   sync.WaitGroup
	)
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				id := g.next()
				mu.Lock()
				if seen[id] {
					t.Errorf("%s twice", id)
				}
				seen[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestGateway_SwapsAppsUnderLoad(t *testing.T) {
	t.Parallel()
	s := start(t, Options{}, Mount{App: shop(app.HTTP, "$default", "GET /x")})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := http.Get("http://" + s.addr + "/x")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
					return
				}
			}
		})
	}
	for i := range 200 {
		a := shop(app.HTTP, "$default", "GET /x", fmt.Sprintf("GET /%d", i))
		if err := s.Mount(Mount{Tenant: "default", App: a}); err != nil {
			t.Error(err)
		}
	}
	stop()
	wg.Wait()
}

func TestServe_GivesUpWhenTheGraceIsOver(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{})
	inv := invokerFunc(func(ctx context.Context, _ *invocation.Invocation, _ invocation.Sink) error {
		close(seen)
		<-ctx.Done()
		return ctx.Err()
	})
	s := start(t, Options{Invoker: inv, ShutdownGrace: 50 * time.Millisecond}, Mount{App: shop(app.HTTP, "$default", "GET /x")})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	within(t, seen, "the invocation")
	s.stop()
	if err := within(t, s.served, "the end of Serve"); err == nil {
		t.Error("Serve says nothing of the request that was cut off")
	}
	s.served <- nil
}

func TestGateway_AClientThatLeavesEndsAWriteThatWaitsForIt(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	inv := invokerFunc(func(ctx context.Context, _ *invocation.Invocation, s invocation.Sink) error {
		err := s.Start(invocation.Head{Status: 200, Length: -1})
		for part := make([]byte, 1<<20); err == nil; {
			_, err = s.Write(part)
		}
		<-ctx.Done()
		ended <- err
		return err
	})
	s := start(t, Options{Invoker: inv}, Mount{App: withURL(app.URL{Auth: "none", Stream: true})})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	// It reads nothing more, and says that it is done: only its end of the connection tells the gateway.
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a write to nobody is taken")
		}
	case <-time.After(20 * time.Second): // of the 30 that a silent client has
		t.Error("the write still waits for the client")
	}
}

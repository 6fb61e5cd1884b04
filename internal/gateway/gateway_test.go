package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/invocation"
)

// invokerFunc is an Invoker.
type invokerFunc func(ctx context.Context, inv *invocation.Invocation, s invocation.Sink) error

func (f invokerFunc) Invoke(ctx context.Context, inv *invocation.Invocation, s invocation.Sink) error {
	return f(ctx, inv, s)
}

// text answers 200 with a body.
func text(s invocation.Sink, body string) error {
	if err := s.Start(invocation.Head{Status: 200, Header: []invocation.Field{{Name: "content-type", Value: "text/plain"}}, Length: int64(len(body))}); err != nil {
		return err
	}
	_, err := io.WriteString(s, body)
	return err
}

// echo answers with what the Invocation is.
func echo(_ context.Context, inv *invocation.Invocation, s invocation.Sink) error {
	r, ok := inv.Payload.(*invocation.Request)
	if !ok {
		return text(s, fmt.Sprintf("%s raw %s", inv.Function, inv.Payload))
	}
	return text(s, fmt.Sprintf("%s %s %s%v", inv.Function, r.Route.Pattern, r.Path, r.Route.Params))
}

// server is a Gateway behind a real socket.
type server struct {
	*Gateway
	addr   string
	stop   context.CancelFunc
	served chan error
}

func start(t testing.TB, o Options, mounts ...Mount) *server {
	t.Helper()
	return startWith(t, o, func(*Gateway) {}, mounts...)
}

func startWith(t testing.TB, o Options, tune func(*Gateway), mounts ...Mount) *server {
	t.Helper()
	if o.Invoker == nil {
		o.Invoker = invokerFunc(echo)
	}
	g := New(o)
	tune(g)
	for _, m := range mounts {
		if m.Tenant == "" {
			m.Tenant = "default"
		}
		if err := g.Mount(m); err != nil {
			t.Fatal(err)
		}
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // whose sockets take no filter: see narrow
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{Gateway: g, addr: l.Addr().String(), stop: cancel, served: make(chan error, 1)}
	go func() { s.served <- g.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-s.served:
		case <-time.After(20 * time.Second):
			t.Error("Serve did not end")
		}
	})
	return s
}

func fn(key string) app.Function {
	return app.Function{Key: key, Name: "shop-dev-" + key, Runtime: "nodejs22.x", Handler: "h.h", MemoryMB: 128, TimeoutSec: 6}
}

// shop is an App with one API of the kind and a route to function "f" for each "METHOD /path" given, or to the function
// behind "=": "GET /x=g".
func shop(kind app.APIKind, stage string, routes ...string) *app.App {
	a := &app.App{Name: "shop", Stage: "dev", Functions: []app.Function{fn("f"), fn("g")},
		APIs: []app.API{{ID: "Api", Kind: kind, Stage: stage}}}
	for _, r := range routes {
		r, f, ok := strings.Cut(r, "=")
		if !ok {
			f = "f"
		}
		m, p, ok := strings.Cut(r, " ")
		if !ok {
			m, p = "ANY", r
		}
		a.Routes = append(a.Routes, app.Route{API: "Api", Method: m, Path: p, Function: f})
	}
	return a
}

// ask sends a request and returns status and body.
func ask(t testing.TB, s *server, method, path string, header ...string) (int, string, http.Header) {
	t.Helper()
	return send(t, s, method, path, nil, header...)
}

func send(t testing.TB, s *server, method, path string, body io.Reader, header ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+s.addr, body)
	if err != nil {
		t.Fatal(err)
	}
	r.URL.Opaque = path // as it is
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestGateway_RoutesLikeTheKind(t *testing.T) {
	t.Parallel()
	const missing, none = `{"message":"Missing Authentication Token"}`, `{"message":"Not Found"}`
	rest := []string{"GET /", "GET /users", "GET /users/{id}", "POST /users/{id}=g", "GET /users/me", "ANY /files/{proxy+}", "GET /users/{id}/pets/{pet}",
		"GET /a/b/c", "GET /a/{x}/d", "GET /h%C3%A9"}
	http := []string{"GET /pets/dog/1", "GET /pets/dog/{id}", "GET /pets/{proxy+}", "ANY /x/{proxy+}=g", "GET /x/{a}/{b}", "GET /slash/", "GET /"}
	for name, row := range map[string]struct {
		kind   app.APIKind
		stage  string
		routes []string
		method string
		path   string
		status int
		body   string
	}{
		"rest root":                 {app.REST, "dev", rest, "GET", "/", 200, "shop-dev-f / /[]"},
		"rest root at stage":        {app.REST, "dev", rest, "GET", "/dev", 200, "shop-dev-f / /[]"},
		"rest root at stage/":       {app.REST, "dev", rest, "GET", "/dev/", 200, "shop-dev-f / /[]"},
		"rest static":               {app.REST, "dev", rest, "GET", "/users/me", 200, "shop-dev-f /users/me /users/me[]"},
		"rest static at stage":      {app.REST, "dev", rest, "GET", "/dev/users/me", 200, "shop-dev-f /users/me /users/me[]"},
		"rest param":                {app.REST, "dev", rest, "GET", "/users/a%2Fb", 200, "shop-dev-f /users/{id} /users/a%2Fb[{id a%2Fb}]"},
		"rest method":               {app.REST, "dev", rest, "POST", "/users/7", 200, "shop-dev-g /users/{id} /users/7[{id 7}]"},
		"rest wrong method":         {app.REST, "dev", rest, "DELETE", "/users/7", 403, missing},
		"rest static wrong method":  {app.REST, "dev", rest, "POST", "/users/me", 403, missing},
		"rest HEAD is not GET":      {app.REST, "dev", rest, "HEAD", "/users/7", 403, ""},
		"rest trailing slash":       {app.REST, "dev", rest, "GET", "/users/", 200, "shop-dev-f /users /users/[]"},
		"rest two params":           {app.REST, "dev", rest, "GET", "/users/1/pets/2", 200, "shop-dev-f /users/{id}/pets/{pet} /users/1/pets/2[{id 1} {pet 2}]"},
		"rest greedy":               {app.REST, "dev", rest, "PUT", "/files/a/b%20c", 200, "shop-dev-f /files/{proxy+} /files/a/b%20c[{proxy a/b%20c}]"},
		"rest greedy needs a part":  {app.REST, "dev", rest, "GET", "/files", 403, missing},
		"rest greedy needs a part/": {app.REST, "dev", rest, "GET", "/files/", 403, missing},
		"rest backtracks":           {app.REST, "dev", rest, "GET", "/a/b/d", 200, "shop-dev-f /a/{x}/d /a/b/d[{x b}]"},
		"rest case":                 {app.REST, "dev", rest, "GET", "/USERS", 403, missing},
		"rest encoded static":       {app.REST, "dev", rest, "GET", "/%75sers/me", 200, "shop-dev-f /users/me /%75sers/me[]"},
		"rest declared encoded":     {app.REST, "dev", rest, "GET", "/h%c3%a9", 200, "shop-dev-f /h%C3%A9 /h%c3%a9[]"},
		"rest unknown":              {app.REST, "dev", rest, "GET", "/nothing", 403, missing},
		"http static":               {app.HTTP, "$default", http, "GET", "/pets/dog/1", 200, "shop-dev-f /pets/dog/1 /pets/dog/1[]"},
		"http param":                {app.HTTP, "$default", http, "GET", "/pets/dog/2", 200, "shop-dev-f /pets/dog/{id} /pets/dog/2[{id 2}]"},
		"http greedy":               {app.HTTP, "$default", http, "GET", "/pets/cat/2", 200, "shop-dev-f /pets/{proxy+} /pets/cat/2[{proxy cat/2}]"},
		"http wrong method":         {app.HTTP, "$default", http, "POST", "/pets/dog/1", 404, none},
		"http full before greedy":   {app.HTTP, "$default", http, "GET", "/x/1/2", 200, "shop-dev-f /x/{a}/{b} /x/1/2[{a 1} {b 2}]"},
		"http greedy by method":     {app.HTTP, "$default", http, "PUT", "/x/1/2", 200, "shop-dev-g /x/{proxy+} /x/1/2[{proxy 1/2}]"},
		"http trailing slash":       {app.HTTP, "$default", http, "GET", "/pets/dog/1/", 200, "shop-dev-f /pets/{proxy+} /pets/dog/1/[{proxy dog/1/}]"},
		"http slash declared":       {app.HTTP, "$default", http, "GET", "/slash/", 404, none},
		"http unknown":              {app.HTTP, "$default", http, "GET", "/nothing", 404, none},
		"http no stage in path":     {app.HTTP, "$default", http, "GET", "/$default/pets/dog/1", 404, none},
		"http at stage":             {app.HTTP, "dev", http, "GET", "/dev/pets/dog/1", 200, "shop-dev-f /pets/dog/1 /pets/dog/1[]"},
		"http without stage":        {app.HTTP, "dev", http, "GET", "/pets/dog/1", 200, "shop-dev-f /pets/dog/1 /pets/dog/1[]"},
		"http default":              {app.HTTP, "$default", []string{"$default", "GET /a=g"}, "GET", "/b/c", 200, "shop-dev-f $default /b/c[]"},
		"http default by method":    {app.HTTP, "$default", []string{"$default", "GET /a=g"}, "PUT", "/a", 200, "shop-dev-f $default /a[]"},
		"stage read first":          {app.HTTP, "dev", []string{"ANY /{proxy+}"}, "GET", "/dev/a", 200, "shop-dev-f /{proxy+} /a[{proxy a}]"},
		"stage as text of a route":  {app.HTTP, "dev", []string{"GET /dev", "ANY /{proxy+}"}, "GET", "/dev", 200, "shop-dev-f /dev /dev[]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{}, Mount{App: shop(row.kind, row.stage, row.routes...)})
			status, body, h := ask(t, s, row.method, row.path)
			if status != row.status || body != row.body {
				t.Errorf("%d %q, want %d %q", status, body, row.status, row.body)
			}
			if row.kind == app.REST && (h.Get("X-Amzn-Requestid") == "" || row.status == 403 && h.Get("X-Amzn-Errortype") != "MissingAuthenticationTokenException") ||
				row.kind == app.HTTP && h.Get("Apigw-Requestid") == "" {
				t.Errorf("header %v", h)
			}
		})
	}
}

// raw sends bytes over one connection, in pieces where there is a zero byte, and reads one answer for each request.
func raw(t *testing.T, addr string, requests ...string) []string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(c)
	var out []string
	for _, r := range requests {
		for piece := range strings.SplitSeq(r, "\x00") {
			if _, err := io.WriteString(c, piece); err != nil {
				t.Fatal(err)
			}
		}
		for range strings.Count(strings.ReplaceAll(r, "\x00", ""), " HTTP/1.1\r\n") {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%d %s", resp.StatusCode, b))
		}
	}
	return out
}

// names answers with the header names and the body.
func names(_ context.Context, inv *invocation.Invocation, s invocation.Sink) error {
	r := inv.Payload.(*invocation.Request)
	var n []string
	for _, f := range r.Header {
		n = append(n, f.Name+"="+f.Value)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	return text(s, strings.Join(n, ",")+"|"+string(b))
}

func TestGateway_KeepsHeaderNamesOverOneConnection(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Invoker: invokerFunc(names)}, Mount{App: shop(app.REST, "dev", "ANY /{proxy+}")})
	got := raw(t, s.addr,
		"GET /a HTTP/1.1\r\nhOST: x\r\nX-GitHub-Event: push\r\nx-amz-meta-filekey:  k \r\nX-GitHub-Event: again\r\n\r\n",
		"POST /b HTTP/1.1\r\nHost: x\r\ncontent-LENGTH: 5\r\n\r\nh\r\n\r\n",
		"GET /in/pie\x00ces HTTP/1.1\r\nH\x00ost: x\r\nAb: 1\r\x00\n\r\x00\n",
		"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\n\r\n\r\n0\r\nTrailing: t\r\n\r\n",
		"GET /d HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nzZ: 1\r\n\r\n",
		"GET /e HTTP/1.1\r\nHost: x\r\naA: 1\r\n\r\nGET /f HTTP/1.1\r\nHost: x\r\nbB: 2\r\n\r\n",
	)
	want := []string{
		"200 hOST=x,X-GitHub-Event=push,x-amz-meta-filekey=k,X-GitHub-Event=again|",
		"200 Host=x,content-LENGTH=5|h\r\n\r\n",
		"200 Host=x,Ab=1|",
		"200 Host=x,Transfer-encoding=chunked|abc\r\n",
		"200 Host=x,Upgrade=h2c,Connection=Upgrade,zZ=1|",
		"200 Host=x,aA=1|",
		"200 Host=x,bB=2|",
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("answer %d: got %q, want %q", i, got[min(i, len(got)-1)], want[i])
		}
	}
}

func TestServe_EndsWithEveryRequestAnswered(t *testing.T) {
	t.Parallel()
	inv := invokerFunc(func(_ context.Context, _ *invocation.Invocation, s invocation.Sink) error {
		return text(s, "ok")
	})
	s := start(t, Options{Invoker: inv}, Mount{App: shop(app.HTTP, "$default", "$default")})
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		bad   []error
		count int
	)
	for range 16 {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			for {
				resp, err := client.Post("http://"+s.addr+"/x", "text/plain", strings.NewReader("body"))
				var op *net.OpError
				if errors.As(err, &op) && op.Op == "dial" {
					return // the door is shut: nothing was sent
				}
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != 200 {
						err = fmt.Errorf("status %d", resp.StatusCode)
					}
				}
				mu.Lock()
				count++
				if err != nil {
					bad = append(bad, err)
				}
				full := count == 400
				mu.Unlock()
				if full {
					s.stop()
				}
			}
		})
	}
	wg.Wait()
	if len(bad) > 0 {
		t.Errorf("%d of %d requests failed: %v", len(bad), count, bad[0])
	}
	if err := <-s.served; err != nil {
		t.Errorf("Serve = %v", err)
	}
	s.served <- nil
}

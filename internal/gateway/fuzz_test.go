package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
)

// pieces is a connection whose reads end where the cuts say.
type pieces struct {
	net.Conn
	data []byte
	cut  int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(len(p.data), p.cut)])
	p.data = p.data[n:]
	return n, nil
}

// FuzzHeadConn_AgreesWithNetHTTP reads requests through a headConn: each head it gives has the header net/http read, or
// is not used, and plain requests that net/http understands are understood here.
func FuzzHeadConn_AgreesWithNetHTTP(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\nHost: y\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: x\r\n\r\n",
		"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n2;a\nab\n0\nT: t\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
	} {
		f.Add([]byte(s), 7)
		f.Add([]byte(s), 4096)
	}
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		if cut < 1 || len(data) > maxHead {
			return
		}
		c := &headConn{Conn: &pieces{data: data, cut: cut}}
		br := bufio.NewReader(c)
		for range 10 {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			r.Header.Del("Host")
			head := c.take()
			if head != "" {
				fields, ok := parseHead(head, r)
				if !ok {
					c.lose()
				}
				for _, f := range fields {
					if ok && !strings.EqualFold(f.Name, strings.TrimSpace(f.Name)) {
						t.Fatalf("name %q", f.Name)
					}
				}
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
		}
	})
}

// FuzzMatch_IsTheSameForWhatAPatternSays checks that every path finds at most one route, whose parameters put into its
// pattern give the path again.
func FuzzMatch_IsTheSameForWhatAPatternSays(f *testing.F) {
	for _, p := range []string{"/", "/a", "/a/b/c", "/a/%2F/", "//", "/a//b", "/%zz", "/dev/a/b"} {
		f.Add(p, "GET")
	}
	patterns := []string{"GET /", "GET /a", "GET /a/{x}", "POST /a/{x}", "GET /a/{x}/c", "ANY /a/b/{p+}", "GET /{y}/b", "PUT /{p+}"}
	sites := map[app.APIKind]*site{}
	for _, kind := range []app.APIKind{app.REST, app.HTTP} {
		s, err := compile(Mount{App: shop(kind, "dev", patterns...)}, false)
		if err != nil {
			f.Fatal(err)
		}
		sites[kind] = s
	}
	f.Fuzz(func(t *testing.T, path, method string) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		for kind, s := range sites {
			m := s.match(method, path)
			if m.route == nil {
				continue
			}
			if m.route.route.Method != "ANY" && m.route.route.Method != method {
				t.Fatalf("%s %s: found %s", method, path, m.route.label)
			}
			made := m.route.route.Pattern
			for _, p := range m.params {
				made = strings.Replace(strings.Replace(made, "{"+p.Name+"}", p.Value, 1), "{"+p.Name+"+}", p.Value, 1)
			}
			made, want := decode(made), decode(m.path)
			same := made == want || kind == app.REST && made+"/" == want
			if !same && !strings.ContainsAny(path, "{}") {
				t.Fatalf("%s: %s of %s with %v gives %s", kind, m.route.label, path, m.params, made)
			}
		}
	})
}

package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/sandbox"
)

func TestLine_AnswersWhoHasSaidAllAndStillListens(t *testing.T) {
	t.Parallel()
	l := newLine()
	from := &origin{function: "f"}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, originOf(r.Context()).function+" "+string(body))
	}), ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, originKey{}, c.(*call).from)
	}}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c, err := l.dial(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "f hello" {
		t.Errorf("%q, %v", body, err)
	}
	// The far end closes as well, without a time that would have to pass.
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := l.dial(t.Context(), from); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("after its end: %v", err)
	}
}

func TestLine_BoundsTheConnectionsOfAnInstance(t *testing.T) {
	t.Parallel()
	l := newLine()
	from, other := &origin{}, &origin{}
	accepted := make(chan net.Conn, 2*sinkConns)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	defer l.Close()
	for range sinkConns {
		if _, err := l.dial(t.Context(), from); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.dial(t.Context(), from); errs.CodeOf(err) != errs.Throttled {
		t.Errorf("one more: %v", err)
	}
	if _, err := l.dial(t.Context(), other); err != nil {
		t.Errorf("of another Instance: %v", err)
	}
	first := <-accepted
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Error(err)
	}
	if _, err := l.dial(t.Context(), from); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
	if _, err := l.dial(t.Context(), from); errs.CodeOf(err) != errs.Throttled {
		t.Errorf("one closed twice makes room for two: %v", err)
	}
}

func TestOutward_AnswersItsOwnNameForFunctionsAlone(t *testing.T) {
	t.Parallel()
	k := &sink{line: newLine()}
	k.instances.Store("here", &origin{})
	o := outward{sink: k}
	go func() {
		for {
			if _, err := k.line.Accept(); err != nil {
				return
			}
		}
	}()
	defer k.line.Close()
	for name, c := range map[string]struct {
		d    sandbox.Destination
		code errs.Code
	}{
		"a function":    {sandbox.Destination{Sandbox: "here", Host: sinkHost, Port: 80}, ""},
		"in capitals":   {sandbox.Destination{Sandbox: "here", Host: strings.ToUpper(sinkHost), Port: 80}, ""},
		"by TLS":        {sandbox.Destination{Sandbox: "here", Host: sinkHost, Port: 443}, errs.Forbidden},
		"a build":       {sandbox.Destination{Sandbox: "there", Host: sinkHost, Port: 80}, errs.Forbidden},
		"nobody at all": {sandbox.Destination{Host: sinkHost, Port: 80}, errs.Forbidden},
	} {
		if !o.Resolves(c.d) || o.Missing(t.Context(), c.d) {
			t.Errorf("%s: the name is not there", name)
		}
		conn, err := o.Dial(t.Context(), c.d)
		if errs.CodeOf(err) != c.code && (err != nil || c.code != "") {
			t.Errorf("%s: %v", name, err)
		}
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// Command floor is the least that a host of Lambda guests can do: net/http in front, N guests behind, each in turn.
//
// Its guests are the ones ebb runs: ebb's own bootstraps for Node.js and Python, spoken to in the same frames over a socket pair, and
// a Go binary under the stock Runtime API client, spoken to in HTTP/1.1 on loopback. Every guest gets an event of the same shape and
// size as behind ebb's gateway.
//
// It has no routes, limits, deadlines, cancellation, scaling, logs or metrics. What ebb takes beyond it is the price of being ebb.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// guest is one process. Its line is used under mu.
type guest struct {
	mu   sync.Mutex
	line interface {
		// invoke gives the event and returns the answer's JSON, valid until the next call.
		invoke() ([]byte, error)
	}
}

func main() {
	kind := flag.String("runtime", "node", "node, python or go")
	n := flag.Int("n", 2, "guests")
	code := flag.String("code", "", "folder with the handler, or the Go binary")
	boot := flag.String("bootstraps", "", "folder with ebb's bootstraps")
	program := flag.String("interpreter", "", "node or python program")
	flag.Parse()
	if err := run(*kind, *n, *code, *boot, *program); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(kind string, n int, code, boot, program string) error {
	guests := make([]*guest, n)
	for i := range guests {
		var err error
		if kind == "go" {
			guests[i], err = startAPI(code)
		} else {
			guests[i], err = startFrames(kind, code, boot, program)
		}
		if err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", l.Addr())
	var turn atomic.Uint64
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := guests[turn.Add(1)%uint64(len(guests))]
		if err := g.serve(w); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}))
}

// serve invokes the guest and writes what it answered.
func (g *guest) serve(w http.ResponseWriter) error {
	var answer struct {
		Status  int               `json:"statusCode"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
	}
	g.mu.Lock()
	doc, err := g.line.invoke()
	if err == nil {
		err = json.Unmarshal(doc, &answer)
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	h := w.Header()
	for k, v := range answer.Headers {
		h.Set(k, v)
	}
	h["Content-Length"] = []string{strconv.Itoa(len(answer.Body))}
	w.WriteHeader(answer.Status)
	_, _ = io.WriteString(w, answer.Body) // the client may be gone
	return nil
}

// start runs a guest that ends with this process.
func start(cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the guest: %w", err)
	}
	go func() {
		_ = cmd.Wait()
		fmt.Fprintln(os.Stderr, "floor: a guest has ended")
		os.Exit(1)
	}()
	return nil
}

// socketPair gives the host's end as a connection and the guest's as a file.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	host, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	defer host.Close()
	c, err := net.FileConn(host)
	if err != nil {
		return nil, nil, fmt.Errorf("use the socket pair: %w", err)
	}
	return c, theirs, nil
}

const (
	requestID = "AFcGmr8Sr1P3__-="
	arn       = "arn:aws:lambda:us-east-1:000000000000:function:bench-dev-hello"
	traceID   = "Root=1-6b03acde-12b54f7fbfe5964aa01ac5c0"
	deadline  = "4102444800000"
)

// event is what a guest behind ebb's gateway gets for the benchmarks' request.
var event = bytes.TrimSpace([]byte(`
{"version":"2.0","routeKey":"GET /hello","rawPath":"/hello","rawQueryString":"","headers":{"host":"127.0.0.1:44981","user-agent":"ebb-bench","accept":"application/json","content-length":"0","x-amzn-trace-id":"Root=1-6b03acde-12b54f7fbfe5964aa01ac5c0","x-forwarded-for":"127.0.0.1","x-forwarded-port":"44981","x-forwarded-proto":"http"},"requestContext":{"accountId":"000000000000","apiId":"fq0hvy8gss","domainName":"fq0hvy8gss.execute-api.us-east-1.amazonaws.com","domainPrefix":"fq0hvy8gss","http":{"method":"GET","path":"/hello","protocol":"HTTP/1.1","sourceIp":"127.0.0.1","userAgent":"ebb-bench"},"requestId":"AFcGmr8Sr1P3__-=","routeKey":"GET /hello","stage":"$default","time":"23/Nov/2026:03:02:54 +0000","timeEpoch":1795402974390},"isBase64Encoded":false}
`))

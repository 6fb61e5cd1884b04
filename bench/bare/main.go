// Command bare is a Go net/http server that answers the benchmarks' JSON from a constant: what everything is compared with.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	body := []byte(`{"message":"Hello, world!"}`)
	length := []string{strconv.Itoa(len(body))}
	kind := []string{"application/json"}
	fmt.Printf("http://%s\n", l.Addr())
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Content-Type"], h["Content-Length"] = kind, length
		_, _ = w.Write(body) // the client may be gone
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

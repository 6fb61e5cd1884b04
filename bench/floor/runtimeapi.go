package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
)

// apiLine is the connection of a guest that speaks the Runtime API of 2018-06-01. The stock Go client uses one connection for all it
// asks, one request after the other, so one goroutine can read its GET next, answer it, and read its POST response.
type apiLine struct {
	conn net.Conn
	br   *bufio.Reader
	next []byte // the answer to GET next
	body []byte
}

func startAPI(program string) (*guest, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close() // a second connection would find nobody, and the guest's end would end the floor
	cmd := exec.Command(program)
	cmd.Dir = filepath.Dir(program)
	cmd.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + ln.Addr().String(), "AWS_REGION=us-east-1", "AWS_LAMBDA_FUNCTION_NAME=bench-dev-hello",
		"AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128", "AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/bench-dev-hello",
		"AWS_LAMBDA_LOG_STREAM_NAME=bench", "LAMBDA_TASK_ROOT=" + filepath.Dir(program), "_HANDLER=bootstrap", "GOMAXPROCS=1", "PATH=/usr/bin:/bin",
	}
	if err := start(cmd); err != nil {
		return nil, err
	}
	conn, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	l := &apiLine{conn: conn, br: bufio.NewReaderSize(conn, 4<<10), body: make([]byte, 0, 4<<10)}
	l.next = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: %s\r\n"+
		"Lambda-Runtime-Deadline-Ms: %s\r\nLambda-Runtime-Invoked-Function-Arn: %s\r\nLambda-Runtime-Trace-Id: %s\r\nContent-Length: %d\r\n\r\n%s",
		requestID, deadline, arn, traceID, len(event), event)
	return &guest{line: l}, nil
}

var accepted = []byte("HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"status\":\"OK\"}\n")

func (l *apiLine) invoke() ([]byte, error) {
	if _, _, err := l.head("GET "); err != nil {
		return nil, fmt.Errorf("read GET next: %w", err)
	}
	if _, err := l.conn.Write(l.next); err != nil {
		return nil, err
	}
	length, chunked, err := l.head("POST ")
	if err != nil {
		return nil, fmt.Errorf("read POST response: %w", err)
	}
	if err := l.read(length, chunked); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	_, err = l.conn.Write(accepted)
	return l.body, err
}

// head reads the head of a request and finds how long its body is.
func (l *apiLine) head(method string) (length int, chunked bool, err error) {
	for first := true; ; first = false {
		line, err := l.br.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case first && !bytes.HasPrefix(line, []byte(method)):
			return 0, false, fmt.Errorf("%s is not a %s", line, method)
		case len(line) == 0:
			return length, chunked, nil
		case bytes.HasPrefix(line, []byte("Transfer-Encoding: chunked")):
			chunked = true
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			if length, err = strconv.Atoi(string(line[len("Content-Length: "):])); err != nil {
				return 0, false, err
			}
		}
	}
}

// read takes the body into l.body, and the trailers after a chunked one.
func (l *apiLine) read(length int, chunked bool) error {
	l.body = l.body[:0]
	if !chunked {
		return l.take(length)
	}
	for {
		line, err := l.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 32)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		if err := l.take(int(size)); err != nil {
			return err
		}
		if _, err := l.br.Discard(2); err != nil {
			return err
		}
	}
	for {
		line, err := l.br.ReadSlice('\n')
		if err != nil || len(bytes.TrimRight(line, "\r\n")) == 0 {
			return err
		}
	}
}

func (l *apiLine) take(n int) error {
	at := len(l.body)
	if at+n > 1<<20 {
		return errors.New("the answer is too long")
	}
	l.body = append(l.body, make([]byte, n)...)
	_, err := io.ReadFull(l.br, l.body[at:])
	return err
}

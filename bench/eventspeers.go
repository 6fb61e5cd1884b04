package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// broker is a peer that keeps messages.
type broker struct {
	name  string
	what  string // with how durable it is
	start func(ctx context.Context, b *bench, dir string) (running, error)
}

// running is a broker that runs, empty.
type running interface {
	publisher() (publisher, error)
	consumer() (consumer, error)
	cpu() float64 // processor time so far, in seconds
	stop()
}

// consumer takes messages and acknowledges them.
type consumer interface {
	// take waits for at least one message, up to a second or so, and gives their numbers.
	take(most int) ([]int64, error)
	// ack says that what take gave is done.
	ack() error
	close()
}

func brokers() []broker {
	return []broker{
		{"jetstream", "JetStream, sync always, in process", startJetStream},
		{"redis", "Redis streams, appendfsync always", startRedis},
		{"goaws", "goaws (SQS), in memory only", startGoAWS},
	}
}

var filler = strings.Repeat("x", 240)

// payload is a message of about 256 bytes that begins with its number.
func payload(n int64) string { return strconv.FormatInt(n, 10) + " " + filler }

func numberOf(text string) (int64, error) {
	first, _, _ := strings.Cut(text, " ")
	return strconv.ParseInt(first, 10, 64)
}

// natsPeer is a JetStream server as ebb embeds it, with a stream and one durable consumer, and nothing else.
type natsPeer struct {
	srv  *natsserver.Server
	conn *natsgo.Conn
	js   jetstream.JetStream
	cons jetstream.Consumer
}

func startJetStream(ctx context.Context, _ *bench, dir string) (running, error) {
	srv, err := natsserver.NewServer(&natsserver.Options{DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true})
	if err != nil {
		return nil, err
	}
	p := &natsPeer{srv: srv}
	go srv.Start()
	if !srv.ReadyForConnections(soon) {
		p.stop()
		return nil, errors.New("the server does not start")
	}
	if p.conn, err = natsgo.Connect("", natsgo.InProcessServer(srv)); err == nil {
		p.js, err = jetstream.New(p.conn)
	}
	var s jetstream.Stream
	if err == nil {
		s, err = p.js.CreateStream(ctx, jetstream.StreamConfig{Name: "BENCH", Subjects: []string{"bench"}, Storage: jetstream.FileStorage})
	}
	if err == nil {
		p.cons, err = s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000})
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *natsPeer) stop() {
	if p.conn != nil {
		p.conn.Close()
	}
	p.srv.Shutdown()
	p.srv.WaitForShutdown()
}

func (p *natsPeer) cpu() float64 { return taken(os.Getpid()) }

func (p *natsPeer) publisher() (publisher, error) { return &natsEnd{p: p}, nil }

func (p *natsPeer) consumer() (consumer, error) { return &natsEnd{p: p}, nil }

type natsEnd struct {
	p    *natsPeer
	have []jetstream.Msg
}

func (e *natsEnd) publish(n int64) error {
	_, err := e.p.js.Publish(context.Background(), "bench", []byte(payload(n)))
	return err
}

func (e *natsEnd) take(most int) ([]int64, error) {
	e.have = e.have[:0]
	got, err := e.p.cons.Fetch(most, jetstream.FetchMaxWait(time.Second))
	if err != nil {
		return nil, err
	}
	var all []int64
	for m := range got.Messages() {
		n, err := numberOf(string(m.Data()))
		if err != nil {
			return nil, err
		}
		e.have, all = append(e.have, m), append(all, n)
	}
	return all, nil
}

func (e *natsEnd) ack() error {
	var err error
	for _, m := range e.have {
		err = errors.Join(err, m.Ack())
	}
	return err
}

func (e *natsEnd) close() {}

// redisPeer is a redis-server of its own with one stream and one group.
type redisPeer struct {
	s    *server
	addr string
}

func startRedis(ctx context.Context, b *bench, dir string) (running, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s, err := b.launch(dir, nil, true, program, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", "")
	if err != nil {
		return nil, err
	}
	p := &redisPeer{s, "127.0.0.1:" + port}
	for deadline := time.Now().Add(soon); ; {
		c, err := dialRedis(p.addr)
		if err == nil {
			_, err = c.do("XGROUP", "CREATE", "bench", "g", "$", "MKSTREAM")
			c.close()
		}
		if err == nil {
			return p, nil
		}
		if pauseErr := s.pause(ctx, deadline, 5*time.Millisecond); pauseErr != nil {
			s.stop()
			return nil, fmt.Errorf("%w (%w)", pauseErr, err)
		}
	}
}

func (p *redisPeer) stop()                         { p.s.stop() }
func (p *redisPeer) cpu() float64                  { return taken(p.s.cmd.Process.Pid) }
func (p *redisPeer) publisher() (publisher, error) { return dialRedis(p.addr) }
func (p *redisPeer) consumer() (consumer, error)   { return dialRedis(p.addr) }

// redisEnd speaks RESP over one connection.
type redisEnd struct {
	conn net.Conn
	in   *bufio.Reader
	ids  []string
}

func dialRedis(addr string) (*redisEnd, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return nil, err
	}
	return &redisEnd{conn: conn, in: bufio.NewReader(conn)}, nil
}

func (e *redisEnd) close() { _ = e.conn.Close() }

func (e *redisEnd) do(args ...string) (any, error) {
	out := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		out = fmt.Appendf(out, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := e.conn.Write(out); err != nil {
		return nil, err
	}
	return e.read()
}

// read gives a string, an int64, a list or nil.
func (e *redisEnd) read() (any, error) {
	line, err := e.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSpace(line)
	if line == "" {
		return nil, errors.New("an empty line")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return nil, errors.New(rest)
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	switch {
	case err != nil || kind == ':' || n < 0:
		if n < 0 && kind != ':' {
			return nil, err
		}
		return n, err
	case kind == '$':
		b := make([]byte, n+2)
		_, err := io.ReadFull(e.in, b)
		return string(b[:n]), err
	}
	list := make([]any, n)
	for i := range list {
		if list[i], err = e.read(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (e *redisEnd) publish(n int64) error {
	_, err := e.do("XADD", "bench", "*", "d", payload(n))
	return err
}

func (e *redisEnd) take(most int) ([]int64, error) {
	e.ids = e.ids[:0]
	got, err := e.do("XREADGROUP", "GROUP", "g", "c", "COUNT", strconv.Itoa(most), "BLOCK", "1000", "STREAMS", "bench", ">")
	if err != nil || got == nil {
		return nil, err
	}
	// [[stream, [[id, [field, value]], …]]]
	streams, _ := got.([]any)
	if len(streams) != 1 {
		return nil, fmt.Errorf("an answer of another shape: %v", got)
	}
	pair, _ := streams[0].([]any)
	if len(pair) != 2 {
		return nil, fmt.Errorf("an answer of another shape: %v", got)
	}
	entries, _ := pair[1].([]any)
	var all []int64
	for _, one := range entries {
		entry, _ := one.([]any)
		if len(entry) != 2 {
			return nil, fmt.Errorf("an answer of another shape: %v", got)
		}
		fields, _ := entry[1].([]any)
		if len(fields) != 2 {
			return nil, fmt.Errorf("an answer of another shape: %v", got)
		}
		n, err := numberOf(fmt.Sprint(fields[1]))
		if err != nil {
			return nil, err
		}
		e.ids, all = append(e.ids, fmt.Sprint(entry[0])), append(all, n)
	}
	return all, nil
}

func (e *redisEnd) ack() error {
	if len(e.ids) == 0 {
		return nil
	}
	_, err := e.do(append([]string{"XACK", "bench", "g"}, e.ids...)...)
	return err
}

// goaws in a pinned version; it is no part of ebb's build.
const goawsModule = "github.com/Admiral-Piett/goaws/app/cmd@v0.4.4"

type goawsPeer struct {
	s    *server
	addr string
}

func startGoAWS(ctx context.Context, b *bench, dir string) (running, error) {
	program, err := b.installGo(ctx, "goaws", goawsModule)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "goaws.yaml")
	text := "Local:\n  Host: localhost\n  Port: " + port + "\n  Region: us-east-1\n  AccountId: \"100010001000\"\n  LogToFile: false\n  Queues:\n    - Name: bench\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	s, err := b.launch(dir, nil, false, program, "-config", conf)
	if err != nil {
		return nil, err
	}
	p := &goawsPeer{s, "127.0.0.1:" + port}
	for deadline := time.Now().Add(soon); ; {
		c, err := dialCaller(p.addr, "")
		if err == nil {
			_, err = (&goawsEnd{caller: c}).call(url.Values{"Action": {"ListQueues"}})
			c.close()
		}
		if err == nil {
			return p, nil
		}
		if pauseErr := s.pause(ctx, deadline, 5*time.Millisecond); pauseErr != nil {
			s.stop()
			return nil, fmt.Errorf("%w (%w)", pauseErr, err)
		}
	}
}

func (p *goawsPeer) stop()                         { p.s.stop() }
func (p *goawsPeer) cpu() float64                  { return taken(p.s.cmd.Process.Pid) }
func (p *goawsPeer) publisher() (publisher, error) { return p.end() }
func (p *goawsPeer) consumer() (consumer, error)   { return p.end() }

func (p *goawsPeer) end() (*goawsEnd, error) {
	c, err := dialCaller(p.addr, "")
	return &goawsEnd{caller: c}, err
}

// goawsEnd speaks SQS's query protocol over one connection.
type goawsEnd struct {
	*caller
	handles []string
}

func (e *goawsEnd) call(v url.Values) ([]byte, error) {
	v.Set("Version", "2012-11-05")
	if v.Get("Action") != "ListQueues" {
		v.Set("QueueUrl", "http://localhost/100010001000/bench")
	}
	return e.post("/100010001000/bench", "application/x-www-form-urlencoded", []byte(v.Encode()))
}

func (e *goawsEnd) publish(n int64) error {
	_, err := e.call(url.Values{"Action": {"SendMessage"}, "MessageBody": {payload(n)}})
	return err
}

var (
	bodyRE   = regexp.MustCompile(`<Body>([^<]*)</Body>`)
	handleRE = regexp.MustCompile(`<ReceiptHandle>([^<]*)</ReceiptHandle>`)
)

func (e *goawsEnd) take(most int) ([]int64, error) {
	e.handles = e.handles[:0]
	out, err := e.call(url.Values{"Action": {"ReceiveMessage"}, "MaxNumberOfMessages": {strconv.Itoa(most)}, "WaitTimeSeconds": {"1"}})
	if err != nil {
		return nil, err
	}
	var all []int64
	for _, m := range bodyRE.FindAllSubmatch(out, -1) {
		n, err := numberOf(string(m[1]))
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	for _, m := range handleRE.FindAllSubmatch(out, -1) {
		e.handles = append(e.handles, string(bytes.ReplaceAll(m[1], []byte("&#34;"), []byte(`"`))))
	}
	return all, nil
}

func (e *goawsEnd) ack() error {
	switch len(e.handles) {
	case 0:
		return nil
	case 1:
		_, err := e.call(url.Values{"Action": {"DeleteMessage"}, "ReceiptHandle": {e.handles[0]}})
		return err
	}
	v := url.Values{"Action": {"DeleteMessageBatch"}}
	for i, h := range e.handles {
		at := "DeleteMessageBatchRequestEntry." + strconv.Itoa(i+1)
		v.Set(at+".Id", strconv.Itoa(i))
		v.Set(at+".ReceiptHandle", h)
	}
	_, err := e.call(v)
	return err
}

package bus_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ebb-run/ebb/internal/nats"
)

// With -bus.cluster all tests that start a world have it over three servers in processes of their own, with three copies of all, in place of the
// embedded one. Tests that open a folder's store themselves (kills, full disks) stay with that.
var overCluster = flag.Bool("bus.cluster", false, "run over three servers, each a process, instead of the embedded one")

// childServer in the environment makes the test binary a message server with that file as its configuration.
const childServer = "EBB_BUS_SERVER"

// accounts is how many worlds there can be over the cluster: each has an account of its own.
const accounts = 200

// serveMessages ends with its standard input: so no server outlives the tests.
func serveMessages(config string) error {
	o, err := natsserver.ProcessConfigFile(config)
	if err != nil {
		return err
	}
	o.NoSigs = true
	s, err := natsserver.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// shared is the cluster, started by the first test that needs it.
var shared struct {
	once sync.Once
	err  error
	urls []string // of clients, without the account
	// lines are the servers' standard inputs, open until this process ends.
	lines []io.Closer
	mu    struct {
		sync.Mutex
		account map[string]int // by folder
	}
}

func startShared() error {
	var ports []string
	for range 6 { // found free, and given back: each has to know where the others will be
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		ports = append(ports, l.Addr().String())
		if err := l.Close(); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "ebb-bus-cluster-")
	if err != nil {
		return err
	}
	var users strings.Builder
	for i := range accounts {
		fmt.Fprintf(&users, "a%d { jetstream: enabled, users: [{user: a%d, password: x}] }\n", i, i)
	}
	for i := range 3 {
		config := filepath.Join(dir, fmt.Sprint("n", i, ".conf"))
		text := fmt.Sprintf("server_name: n%d\nlisten: %q\njetstream { store_dir: %q, sync_interval: always }\ncluster { name: c, listen: %q, routes: [\"nats://%s\", \"nats://%s\", \"nats://%s\"] }\naccounts {\n%s}\n",
			i, ports[i], filepath.Join(dir, fmt.Sprint("n", i)), ports[3+i], ports[3], ports[4], ports[5], users.String())
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return err
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childServer+"="+config)
		cmd.Stderr = os.Stderr
		line, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		shared.lines = append(shared.lines, line)
		if err := cmd.Start(); err != nil {
			return err
		}
		shared.urls = append(shared.urls, ports[i])
	}
	return nil
}

// over gives the cluster's address with the account that a folder stands for; its streams are removed at the end of the test.
func over(t testing.TB, dir string) string {
	t.Helper()
	shared.once.Do(func() { shared.err = startShared() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	shared.mu.Lock()
	if shared.mu.account == nil {
		shared.mu.account = map[string]int{}
	}
	n, known := shared.mu.account[dir]
	if !known {
		n = len(shared.mu.account)
		shared.mu.account[dir] = n
	}
	shared.mu.Unlock()
	if n >= accounts {
		t.Fatalf("the cluster has %d accounts", accounts)
	}
	var all []string
	for _, at := range shared.urls {
		all = append(all, fmt.Sprintf("nats://a%d:x@%s", n, at))
	}
	url := strings.Join(all, ",")
	if !known {
		ready(t, url)
		t.Cleanup(func() { clear(t, url) })
	}
	return url
}

// ready waits until the cluster keeps streams.
func ready(t testing.TB, url string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := natsgo.Connect(url)
		if err == nil {
			var js jetstream.JetStream
			if js, err = jetstream.New(conn); err == nil {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				_, err = js.AccountInfo(ctx)
				cancel()
			}
			conn.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// clear removes an account's streams: what is not needed any more would slow the other tests down.
func clear(t testing.TB, url string) {
	conn, err := natsgo.Connect(url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for name := range js.StreamNames(ctx).Name() {
		if err := js.DeleteStream(ctx, name); err != nil {
			t.Error(err)
		}
	}
}

// stored opens the store of a folder: the embedded one in it, or what stands for it in the cluster.
func stored(t testing.TB, dir string) nats.Options {
	if *overCluster {
		return nats.Options{URL: over(t, dir)}
	}
	return kept(dir)
}

// embedded skips a test that does something to the files of the embedded store.
func embedded(t *testing.T) {
	t.Helper()
	if *overCluster {
		t.Skip("it does something to the embedded store's files")
	}
}

package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/server"
)

// killDir in the environment makes the test binary a server that publishes until it is killed; killRound makes its messages unique.
const (
	killDir   = "EBB_SERVER_KILL_DIR"
	changeDir = "EBB_SERVER_CHANGE_DIR" // the same for one that changes things
	killRound = "EBB_SERVER_KILL_ROUND"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		fmt.Println("error", publishForever(dir, os.Getenv(killRound)))
		os.Exit(1)
	}
	if dir := os.Getenv(changeDir); dir != "" {
		fmt.Println("error", changeForever(dir, os.Getenv(killRound)))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// publishForever publishes to a standard and a FIFO topic from several goroutines, and invokes a function; it prints what was acknowledged after it was.
func publishForever(dir, round string) error {
	cfg, err := config.Load(config.Sources{Flags: map[string]string{"listen": "127.0.0.1:0", "data": dir}})
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := server.Open(ctx, server.Options{Config: cfg, Version: "test", Log: slog.New(slog.DiscardHandler), Env: os.LookupEnv})
	if err != nil {
		return err
	}
	failed := make(chan error)
	go func() { failed <- s.Run(ctx) }()
	client := api.NewClient(s.APIURL(), s.Token())
	if _, err := client.Topics(ctx); err != nil {
		return err
	}
	_, _ = os.Stdout.WriteString("ready\n")
	for g := range 4 {
		for _, topic := range []string{"t", "t.fifo"} {
			go func() {
				for i := 0; ; i++ {
					m := api.TopicMessage{Message: fmt.Sprintf("%s/%s/%d/%d", topic, round, g, i)}
					if topic == "t.fifo" {
						m.Group, m.Dedup = fmt.Sprintf("%s-%d", round, g), m.Message
					}
					if _, err := client.PublishTopic(ctx, topic, m); err != nil {
						failed <- err
						return
					}
					_, _ = os.Stdout.WriteString("ack " + m.Message + "\n") // one write: a kill leaves at most the last one cut off
				}
			}()
		}
	}
	go func() {
		for {
			got, err := client.InvokeAsync(ctx, "hello", []byte("{}"), "")
			if err != nil {
				failed <- err
				return
			}
			_, _ = os.Stdout.WriteString("ack " + invoked + got.ID + "\n")
			time.Sleep(5 * time.Millisecond) // so that they are run meanwhile
		}
	}()
	return <-failed
}

// invoked begins what is acknowledged of invocations.
const invoked = "invocation "

// killOnce runs the child until it is killed, and collects what was acknowledged.
func killOnce(t *testing.T, dir string, round int, acked map[string]bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir, fmt.Sprintf("%s=%d", killRound, round))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(pipe)
	var killed atomic.Bool
	kill := sync.OnceFunc(func() {
		time.AfterFunc(time.Duration(100+rand.IntN(900))*time.Millisecond, func() {
			killed.Store(true)
			_ = cmd.Process.Kill()
		})
	})
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch word {
		case "ready":
		case "ack":
			acked[rest] = true
			kill() // not before everything has been done once
		case "error":
			if !killed.Load() {
				t.Fatalf("round %d: %s", round, line)
			}
		}
	}
	_ = cmd.Wait()
	if !killed.Load() {
		t.Fatalf("round %d: the child ended by itself", round)
	}
}

// Killed at any moment, every publication that was acknowledged arrives in the queue; in the FIFO queue once, and in order. So does what is told of each
// invocation that was acknowledged.
func TestTopics_LoseNothingToKill(t *testing.T) {
	t.Parallel()
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	a, tree := shop("shop", "dev", says("x"))
	for _, name := range []string{"t", "t.fifo"} {
		fifo := name != "t"
		id := strings.ToUpper(strings.ReplaceAll(name, ".", ""))
		queue, topic := map[string]any{"QueueName": name}, map[string]any{"TopicName": name}
		if fifo {
			queue["FifoQueue"], topic["FifoTopic"] = true, true
		}
		a.Resources = append(a.Resources, resource("Q"+id, "AWS::SQS::Queue", queue), resource("T"+id, "AWS::SNS::Topic", topic),
			resource("S"+id, "AWS::SNS::Subscription", map[string]any{"Protocol": "sqs", "Endpoint": app.Attr("Q"+id, "Arn"), "TopicArn": app.Attr("T"+id, "Ref"), "RawMessageDelivery": true}))
	}
	a.Resources = append(a.Resources, resource("Told", "AWS::SQS::Queue", map[string]any{"QueueName": "told"}))
	a.Functions[0].Async = &app.Async{OnSuccess: app.Attr("Told", "Arn")}
	if d, err := n.deploy(t, a, tree); err != nil || len(d.Warnings) > 0 {
		t.Fatal(d, err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	acked := map[string]bool{}
	for i := range rounds {
		if i%4 == 3 { // an index that is gone is made again from the log
			if err := os.RemoveAll(filepath.Join(dir, "events")); err != nil {
				t.Fatal(err)
			}
		}
		killOnce(t, dir, i, acked)
	}
	if len(acked) < rounds {
		t.Fatalf("only %d publications were acknowledged", len(acked))
	}
	n = open(t, dir)
	there := map[string]int{}
	eventually(t, n, "all that was published is delivered", func() bool {
		list, err := n.client.Subscriptions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pending := 0
		for _, s := range list {
			pending += s.Pending
		}
		return pending == 0
	})
	last := map[string]int{}
	for _, queue := range []string{"t", "t.fifo"} {
		for _, m := range inQueue(t, n, queue) {
			body := string(m.Body)
			there[body]++
			if queue == "t" {
				continue
			}
			group, number := body[:strings.LastIndexByte(body, '/')], body[strings.LastIndexByte(body, '/')+1:]
			i, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			if prev, seen := last[group]; seen && i != prev+1 || !seen && i != 0 {
				t.Errorf("group %s: %d comes after %d", group, i, prev)
			}
			last[group] = i
			if there[body] > 1 {
				t.Errorf("%s is in the FIFO queue %d times", body, there[body])
			}
		}
	}
	for _, m := range inQueue(t, n, "told") {
		var record struct {
			RequestContext struct{ RequestID string }
		}
		if err := json.Unmarshal(m.Body, &record); err != nil {
			t.Fatal(err)
		}
		there[invoked+record.RequestContext.RequestID]++
	}
	twice := 0
	for id := range acked {
		if there[id] == 0 {
			t.Errorf("%s was lost", id)
		}
		twice += max(there[id]-1, 0)
	}
	t.Logf("%d rounds: %d acknowledged, %d in the queues, %d twice", rounds, len(acked), len(there), twice)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/wire/sign"
)

// awsPeer answers some of the services on AWS's wire.
type awsPeer struct {
	name  string
	what  string   // with how durable it is
	has   []string // services
	start func(ctx context.Context, b *bench, dir string) (*awsServer, error)
}

// DynamoDB Local and ElasticMQ come from places that are no package registry of Go, npm or Debian.
func awsPeers() []awsPeer {
	return []awsPeer{
		{ebbServed, "ebb serve, on disk before it answers", []string{"dynamodb", "s3", "sqs"}, startEbbAWS},
		{"moto", "moto_server, in memory", []string{"dynamodb", "s3", "sqs"}, startMoto},
		{"dynalite", "dynalite, in memory", []string{"dynamodb"}, startDynalite},
		{"versitygw", "versitygw, files without sync", []string{"s3"}, startVersity},
		{"goaws", "goaws, in memory", []string{"sqs"}, startGoAWSQueues},
	}
}

var (
	dynalite = peer{"dynalite", []string{"dynalite@4.0.0"}}
	// made up, for who checks no signature or is told what to expect
	benchKeys = sign.Credentials{AccessKey: "AKIABENCHBENCHBENCH0", Secret: "bench-secret-bench-secret-bench-secret00"}
)

func startEbbAWS(ctx context.Context, b *bench, dir string) (*awsServer, error) {
	s, err := b.launch(b.work, nil, true, b.ebb, "serve", "--data", dir, "--listen", "127.0.0.1:0", "--aws-listen", "127.0.0.1:0", "--json")
	if err != nil {
		return nil, err
	}
	a := &awsServer{server: s}
	line, err := s.line(ctx, `"event":"ready"`, soon)
	if err == nil {
		var ready struct{ AWS string }
		err = json.Unmarshal([]byte(line), &ready)
		a.endpoint = ready.AWS
	}
	if err == nil {
		var out []byte
		var keys struct{ AccessKeyID, SecretAccessKey string }
		if out, err = exec.CommandContext(ctx, b.ebb, "keys", "create", "bench", "--role", "admin", "--data", dir, "--json").Output(); err == nil {
			err = json.Unmarshal(out, &keys)
		}
		a.credentials = sign.Credentials{AccessKey: keys.AccessKeyID, Secret: keys.SecretAccessKey}
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	return a, nil
}

// startAWS starts a peer on a free port, which command is given, and waits until it answers.
func startAWS(ctx context.Context, b *bench, dir string, env []string, command func(port string) []string) (*awsServer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s, err := b.launch(dir, env, false, command(port)...)
	if err != nil {
		return nil, err
	}
	a := &awsServer{server: s, endpoint: "http://127.0.0.1:" + port, credentials: benchKeys}
	for deadline := time.Now().Add(soon); ; {
		answer, err := http.Get(a.endpoint + "/")
		if err == nil {
			answer.Body.Close() // whatever it says
			return a, nil
		}
		if pauseErr := s.pause(ctx, deadline, 10*time.Millisecond); pauseErr != nil {
			s.stop()
			return nil, fmt.Errorf("%w (%w)", pauseErr, err)
		}
	}
}

func startMoto(ctx context.Context, b *bench, dir string) (*awsServer, error) {
	program, err := exec.LookPath("moto_server")
	if err != nil {
		return nil, err
	}
	return startAWS(ctx, b, dir, nil, func(port string) []string { return []string{program, "-H", "127.0.0.1", "-p", port} })
}

func startDynalite(ctx context.Context, b *bench, dir string) (*awsServer, error) {
	if err := b.install(ctx, dynalite); err != nil {
		return nil, err
	}
	script := filepath.Join(b.folder(dynalite.name), "node_modules", "dynalite", "cli.js")
	return startAWS(ctx, b, dir, nil, func(port string) []string {
		return []string{b.nodeOr(), script, "--port", port, "--createTableMs", "0", "--updateTableMs", "0", "--deleteTableMs", "0"}
	})
}

const versityModule = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

func startVersity(ctx context.Context, b *bench, dir string) (*awsServer, error) {
	program, err := b.installGo(ctx, "versitygw", versityModule)
	if err != nil {
		return nil, err
	}
	files := filepath.Join(dir, "files")
	if err := os.MkdirAll(files, 0o755); err != nil {
		return nil, err
	}
	env := []string{"ROOT_ACCESS_KEY=" + benchKeys.AccessKey, "ROOT_SECRET_KEY=" + benchKeys.Secret}
	return startAWS(ctx, b, dir, env, func(port string) []string {
		return []string{program, "--port", "127.0.0.1:" + port, "--region", awsRegion, "posix", files}
	})
}

// startGoAWSQueues starts goaws, which has SQS's older protocol alone.
func startGoAWSQueues(ctx context.Context, b *bench, dir string) (*awsServer, error) {
	r, err := startGoAWS(ctx, b, dir)
	if err != nil {
		return nil, err
	}
	p := r.(*goawsPeer)
	return &awsServer{server: p.s, passing: func() (publisher, error) {
		e, err := p.end()
		return goawsPass{e}, err
	}}, nil
}

// goawsPass sends a message, receives one, and deletes that.
type goawsPass struct{ *goawsEnd }

func (e goawsPass) publish(n int64) error {
	if err := e.goawsEnd.publish(n); err != nil {
		return err
	}
	for range 5 {
		got, err := e.take(1)
		if err != nil {
			return err
		}
		if len(got) > 0 {
			return e.ack()
		}
	}
	return errNoMessage
}

// installGo builds a program into the cache once. It is no part of ebb's build.
func (b *bench) installGo(ctx context.Context, name, module string) (string, error) {
	path, version, _ := strings.Cut(module, "@")
	dir := filepath.Join(b.cache, name+"-"+version)
	program := filepath.Join(dir, filepath.Base(path)) // as its folder is called
	if _, err := os.Stat(program); err == nil {
		return program, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	b.say("install %s into %s", module, b.cache)
	cmd := exec.CommandContext(ctx, "go", "install", module)
	cmd.Dir, cmd.Env = b.work, append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("go install: %w: %s", err, lines[len(lines)-1])
	}
	return program, nil
}

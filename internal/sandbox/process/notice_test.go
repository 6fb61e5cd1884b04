package process

import (
	"bytes"
	"strings"
	"testing"
)

func TestNotices_SayWhoseLocalhostWasTried(t *testing.T) {
	t.Parallel()
	for text, ports := range map[string]string{
		"Error: connect ECONNREFUSED 127.0.0.1:5432\n": "5432",
		"AggregateError [ECONNREFUSED]: \n    Error: connect ECONNREFUSED ::1:8000\n    connect ECONNREFUSED 127.0.0.1:8000\n": "8000",
		`connection to server at "localhost" (127.0.0.1), port 5432 failed: Connection refused` + "\n":                         "5432",
		`connection to server at "localhost" (::1), port 5433 failed: Connection refused` + "\n":                               "5433",
		"HTTPConnectionPool(host='localhost', port=8000): [Errno 111] Connection refused'))\n":                                 "8000",
		"Could not connect to the endpoint URL: \"http://localhost:4566/\"\n":                                                  "4566",
		"dial tcp [::1]:6379: connect: connection refused\n":                                                                   "6379",
		"Error 111 connecting to localhost:6379. Connection refused.\n":                                                        "6379",
		"connect ECONNREFUSED 10.0.0.7:5432\n":                                                                                 "",
		"listening on localhost:8080\n":                                                                                        "",
		"listening on localhost:8080\nconnect ECONNREFUSED 10.0.0.7:5432\n":                                                    "",
	} {
		out := &bytes.Buffer{}
		n := newNotices(out)
		for range 2 {
			if _, err := n.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		var said []string
		for line := range strings.Lines(out.String()) {
			if rest, ok := strings.CutPrefix(line, "ebb: localhost:"); ok {
				said = append(said, rest[:strings.IndexByte(rest, ' ')])
				if !strings.HasSuffix(line, "--egress anything,localhost:"+said[0]+"\n") {
					t.Errorf("no mend in %q", line)
				}
			}
		}
		if got := strings.Join(said, " "); got != ports {
			t.Errorf("%q: said %q, want %q", text, got, ports)
		}
	}
}

func TestNotices_SayWhatASandboxHasNot(t *testing.T) {
	t.Parallel()
	for text, paths := range map[string]string{
		"Error: ENOENT: no such file or directory, open '/root/a b/c.js'\n":                        "/root/a",
		"spawnSync /home/ann/bin/tool ENOENT\n":                                                    "/home/ann/bin/tool",
		"FileNotFoundError: [Errno 2] No such file or directory: '/srv/data.csv'\n":                "/srv/data.csv",
		"Cannot find module '/home/ann/shop/cfg.json'\\nRequire stack:\\n- /var/task/handler.js\n": "/home/ann/shop/cfg.json",
		"connect ENOENT /var/run/docker.sock\n":                                                    "/var/run/docker.sock",
		"open /run/secrets/x: no such file or directory\n":                                         "/run/secrets/x",
		"ENOENT: no such file or directory, mkdir '/home/sbx_user1051/.cache'\n":                   "",
		"ENOENT: no such file or directory, open '/var/task/x', '/tmp/home/x'\n":                   "",
		"serving /srv/data.csv\n":                                                                  "",
	} {
		out := &bytes.Buffer{}
		n := newNotices(out)
		for range 2 {
			_, _ = n.Write([]byte(text))
		}
		var said []string
		for line := range strings.Lines(out.String()) {
			if rest, ok := strings.CutPrefix(line, "ebb: "); ok {
				said = append(said, rest[:strings.Index(rest, " is not inside the function's sandbox")])
			}
		}
		if got := strings.Join(said, " "); got != paths {
			t.Errorf("%q: said %q, want %q", text, got, paths)
		}
	}
}

func TestNotices_BeginALineOfTheirOwn(t *testing.T) {
	t.Parallel()
	out := &bytes.Buffer{}
	n := newNotices(out)
	_, _ = n.Write([]byte("whole\n"))
	n.Say("one")
	_, _ = n.Write([]byte("half"))
	n.Say("two\nlines")
	n.Say("three")
	if got, want := out.String(), "whole\nebb: one\nhalf\nebb: two lines\nebb: three\n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func FuzzRefusedPorts(f *testing.F) {
	f.Add([]byte("connect ECONNREFUSED 127.0.0.1:5432\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, port := range refusedPorts(p) {
			if len(port) < 2 || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
				t.Errorf("%q is no port", port)
			}
		}
	})
}

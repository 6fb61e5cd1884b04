package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/errs"
)

func TestLoad_FlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	t.Parallel()
	src := config.Sources{
		Flags: map[string]string{"queue": "4"},
		Env: func(k string) (string, bool) {
			v, ok := map[string]string{"EBB_QUEUE": "3", "EBB_KEEP_ALIVE": "3s"}[k]
			return v, ok
		},
		File: "ebb.yaml",
		Read: func(string) ([]byte, error) { return []byte("queue: 2\nkeep-alive: 2s\nmax-body: 2\n"), nil },
	}
	c, err := config.Load(src)
	if err != nil {
		t.Fatal(err)
	}
	if c.Queue != 4 || c.KeepAlive != 3*time.Second || c.MaxBodyMB != 2 || c.Listen != "127.0.0.1:3000" {
		t.Errorf("got %+v", c)
	}
}

func TestLoad_NamesThePlaceOfEveryFault(t *testing.T) {
	t.Parallel()
	_, err := config.Load(config.Sources{
		Flags: map[string]string{"queue": "many", "account": "12"},
		Env:   func(k string) (string, bool) { return "loud", k == "EBB_LOG_LEVEL" },
	})
	for _, want := range []string{"flag --queue", "EBB_LOG_LEVEL", "flag --account"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	_, err = config.Load(config.Sources{File: "s.yaml", Read: func(string) ([]byte, error) { return []byte("listen: a\nqeue: 3\n"), nil }})
	if err == nil || !strings.Contains(err.Error(), "s.yaml:2") || errs.HintOf(err) != "Did you mean queue?" {
		t.Errorf("unknown key: %v, hint %q", err, errs.HintOf(err))
	}
}

func TestLoad_FreezeAfterIsADurationOrNever(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]time.Duration{"": time.Second, "250ms": 250 * time.Millisecond, "never": -1, "0s": 0, "-1s": 0, "soon": 0} {
		flags := map[string]string{"freeze-after": value}
		if value == "" {
			flags = nil
		}
		c, err := config.Load(config.Sources{Flags: flags})
		if want == 0 {
			if err == nil || !strings.Contains(err.Error(), "never") {
				t.Errorf("%q: %v, want an error that names never", value, err)
			}
		} else if err != nil || c.FreezeAfter != want {
			t.Errorf("%q: %v, %v", value, c, err)
		}
	}
}

func TestLoad_CertificatesComeFromOnePlace(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		flags map[string]string
		fault string
		tls   bool
	}{
		"none":            {map[string]string{}, "", false},
		"files":           {map[string]string{"tls-cert": "a", "tls-key": "b"}, "", true},
		"own":             {map[string]string{"tls-self-signed": "true", "tls-names": "A.example, ,10.0.0.1"}, "", true},
		"domain":          {map[string]string{"tls-domain": "a.example"}, "", true},
		"no key":          {map[string]string{"tls-cert": "a"}, "belong together", true},
		"no cert":         {map[string]string{"tls-key": "a"}, "belong together", true},
		"two":             {map[string]string{"tls-domain": "a", "tls-self-signed": "true"}, "from one place", true},
		"names of others": {map[string]string{"tls-cert": "a", "tls-key": "b", "tls-names": "x"}, "--tls-names is for", true},
		"scratch alone":   {map[string]string{"seal-scratch": "/x"}, "--seal-scratch is for", true},
		"not yes or no":   {map[string]string{"plain-http": "perhaps"}, "flag --plain-http", true},
	} {
		c, err := config.Load(config.Sources{Flags: row.flags})
		if row.fault != "" {
			if err == nil || !strings.Contains(err.Error(), row.fault) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || c.TLS() != row.tls {
			t.Errorf("%s: %+v %v", name, c, err)
		}
		if name == "own" && strings.Join(c.TLSNames, " ") != "a.example 10.0.0.1" {
			t.Errorf("names %q", c.TLSNames)
		}
	}
}

func TestLoad_TakesNoPasswordOnTheCommandLineAndShowsNone(t *testing.T) {
	t.Parallel()
	const secret = "s3cr%zt"
	for name, row := range map[string]struct{ flag, env, file, fault string }{
		"none":               {},
		"user alone":         {flag: "postgres://ebb@db/ebb"},
		"in the environment": {env: "postgres://ebb:" + secret + "@db/ebb"},
		"by a file":          {file: "/run/secrets/tables"},
		"on the line":        {flag: "postgres://ebb:good@db/ebb", fault: "--tables-file"},
		"unreadable":         {flag: "postgres://ebb:" + secret + "@db/ebb", fault: "--tables-file"},
		"as a parameter":     {flag: "postgres://db/ebb?user=x&password=" + secret, fault: "--tables-file"},
		"twice":              {flag: "postgres://db/ebb", file: "f", fault: "from one place"},
		"another database":   {env: "mysql://ebb:" + secret + "@db/ebb", fault: "postgres://USER@HOST"},
	} {
		flags := map[string]string{}
		if row.flag != "" {
			flags["tables"] = row.flag
		}
		if row.file != "" {
			flags["tables-file"] = row.file
		}
		_, err := config.Load(config.Sources{Flags: flags, Env: func(k string) (string, bool) { return row.env, k == "EBB_TABLES" && row.env != "" }})
		if (err != nil) != (row.fault != "") || err != nil && (!strings.Contains(err.Error(), row.fault) || strings.Contains(err.Error(), secret)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoad_WordsAreChecked(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.Sources{})
	if err != nil || c.CPULimits != config.CPUNone {
		t.Errorf("default: %v, %v", c, err)
	}
	_, err = config.Load(config.Sources{Flags: map[string]string{"cpu-limits": "half"}})
	if err == nil || !strings.Contains(err.Error(), "none, shared, proportional") {
		t.Errorf("half: %v", err)
	}
}

func TestReference_IsWhatTheDocsHold(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "settings.md"))
	if err != nil || string(data) != config.Reference() {
		t.Errorf("docs/reference/settings.md is stale (%v); run `make docs`", err)
	}
}

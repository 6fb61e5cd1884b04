package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/api"
	"github.com/ebb-run/ebb/internal/app"
	"github.com/ebb-run/ebb/internal/wire/sign"
)

// plain deploys an App whose function runs as a plain process and gives its environment.
func plain(t *testing.T, n *node, change func(*app.App)) (env map[string]string, d *api.Deployed) {
	t.Helper()
	a, tree := shop("shop", "dev", "exports.hello = async () => process.env;")
	if change != nil {
		change(a)
	}
	d, err := n.deploy(t, a, tree)
	if err != nil {
		t.Fatal(err)
	}
	n.invoke(t, "shop-dev-hello", nil, &env)
	return env, d
}

func TestCapture_KnowsWhichInvocationCalls(t *testing.T) {
	t.Parallel()
	n := openWith(t, t.TempDir(), map[string]string{"isolation": "none"})
	var env map[string]string
	a, tree := shop("shop", "dev", "exports.hello = async () => process.env;")
	if _, err := n.deploy(t, a, tree); err != nil {
		t.Fatal(err)
	}
	answer, err := n.client.Invoke(t.Context(), "shop-dev-hello", []byte("{}"), "")
	if err == nil {
		err = json.Unmarshal(answer.Payload, &env)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &eventsClient{n, sign.Credentials{AccessKey: env["AWS_ACCESS_KEY_ID"], Secret: env["AWS_SECRET_ACCESS_KEY"], Token: env["AWS_SESSION_TOKEN"]}}
	c.must(t, "PutEvents", `{"Entries":[{"Source":"s","DetailType":"t","Detail":"{}"}]}`, `"FailedEntryCount":0`)
	var said []string
	if err := n.client.Events(t.Context(), api.EventQuery{}, nil, func(e api.RecordedEvent) error {
		said = append(said, e.Event.Extension("ebbparent")+" "+e.Event.Extension("ebbpublisher")+" "+e.Event.Extension("ebbhops"))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{answer.ID + " shop-dev-hello 1"}; !slices.Equal(said, want) {
		t.Errorf("caused by %q, want %q", said, want)
	}
}

func TestCapture_TheProxyIsTheInstances(t *testing.T) {
	t.Parallel()
	n := openWith(t, t.TempDir(), map[string]string{"isolation": "none", "egress": "closed"})
	env, _ := plain(t, n, nil)
	at, err := url.Parse(env["HTTPS_PROXY"])
	if err != nil || at.User == nil {
		t.Fatalf("HTTPS_PROXY=%s: %v", env["HTTPS_PROXY"], err)
	}
	// get gives the status with which the proxy, or what is behind it, answers.
	get := func(user *url.Userinfo, to string) int {
		proxy := *at
		proxy.User = user
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: func(*http.Request) (*url.URL, error) { return &proxy, nil }}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to, strings.NewReader(`{"specversion":"1.0","id":"1","source":"/s","type":"t"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/cloudevents+json")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	token, _ := at.User.Password()
	for name, user := range map[string]*url.Userinfo{
		"nobody": nil, "another token": url.UserPassword(at.User.Username(), strings.Repeat("A", len(token))), "another Instance": url.UserPassword("0123456789abcdef", token),
		"the sink's token": url.UserPassword(at.User.Username(), env["K_SINK"][strings.LastIndex(env["K_SINK"], "/")+1:]),
	} {
		if got := get(user, "http://sqs.us-east-1.amazonaws.com/"); got != http.StatusProxyAuthRequired {
			t.Errorf("%s: %d", name, got)
		}
	}
	for to, want := range map[string]int{
		"http://sqs.us-east-1.amazonaws.com/?Action=ListQueues": http.StatusForbidden, "http://events.ebb.internal/": http.StatusAccepted,
		"http://198.51.100.7/": http.StatusForbidden, "http://events.ebb.internal:81/": http.StatusForbidden,
	} {
		if got := get(at.User, to); got != want {
			t.Errorf("%s: %d, want %d", to, got, want)
		}
	}
	if err := n.client.Remove(t.Context(), "shop", "dev"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); get(at.User, "http://events.ebb.internal/") != http.StatusProxyAuthRequired; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it outlives the Instance")
		}
	}
}

func TestCapture_SaysWhatHasNoEffect(t *testing.T) {
	t.Parallel()
	n := openWith(t, t.TempDir(), map[string]string{"isolation": "none"})
	_, d := plain(t, n, func(a *app.App) {
		a.Functions[0].Env["HTTPS_PROXY"], a.Functions[0].Env["MINE"] = app.Lit("http://proxy:8080"), app.Lit("x")
	})
	const want = "HTTPS_PROXY of hello would lead past ebb"
	if !slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.HasPrefix(w, want) }) {
		t.Errorf("warnings %q, want %q", d.Warnings, want)
	}
}

package server_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/app"
)

// tells prints the keys that its events are of.
const tells = `exports.hello = async (e) => { for (const r of e.Records) console.log("STORED " + r.s3.bucket.name + "/" + r.s3.object.key); };`

// onBucket is an App whose function runs for what is created in a bucket, which the App declares or not.
func onBucket(name, bucket string, declared bool) *app.App {
	a, _ := shop(name, "dev", "")
	source := app.Lit("arn:aws:s3:::" + bucket)
	if declared {
		a.Resources = []app.Resource{bucketResource("Bucket", bucket)}
		source = app.Attr("Bucket", "Arn")
	}
	a.Triggers = []app.Trigger{{ID: "Stored", Function: "hello", Kind: "s3", Enabled: true, Source: source, Settings: map[string]any{"Event": "s3:ObjectCreated:*"}}}
	return a
}

func bucketResource(id, name string) app.Resource {
	return app.Resource{ID: id, Kind: app.Bucket, Type: "AWS::S3::Bucket", Name: app.Lit(name), Properties: map[string]any{"BucketName": name}}
}

func (n *node) deployOnBucket(t *testing.T, a *app.App) (warnings []string) {
	t.Helper()
	_, tree := shop("shop", "dev", tells)
	d, err := n.deploy(t, a, tree)
	if err != nil {
		t.Fatalf("deploy: %v\n%s", err, n.log)
	}
	return d.Warnings
}

// store puts a bucket or an object from outside.
func (c *eventsClient) store(t *testing.T, path, body string) {
	t.Helper()
	if status, text := c.send(t, "s3", http.MethodPut, path, nil, body); status != http.StatusOK {
		t.Fatalf("PUT %s: %d %s\n%s", path, status, text, c.n.log)
	}
}

// What is stored right after a deploy has answered runs the function, in a bucket that was made by this deploy; many, because an answer from the
// bus that came a moment early once left a bucket unwatched.
func TestBuckets_WhatIsStoredRightAfterTheDeployIsTold(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	c := n.eventBridge(t, "deploy")
	for i := range 12 {
		bucket := fmt.Sprintf("fresh-%d", i)
		if got := n.deployOnBucket(t, onBucket(fmt.Sprintf("app%d", i), bucket, true)); len(got) > 0 {
			t.Errorf("warnings %q", got)
		}
		c.store(t, "/"+bucket+"/key", "x")
	}
	eventually(t, n, "all were told", func() bool { return strings.Count(n.logs(t), "STORED fresh-") == 12 })
}

// A Trigger on a bucket that is not there is told of by name and holds up no deploy; it begins when the bucket is made, by a client or by another
// App, also after a restart.
func TestBuckets_ATriggerBeginsWhenItsBucketAppears(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	for name, bucket := range map[string]string{"one": "late-one", "two": "late-two", "three": "late-three", "four": "late-four"} {
		want := []string{"bucket " + bucket + " is not there yet: its triggers begin when it is created"}
		a := onBucket(name, bucket, false)
		a.Functions[0].Role = "Role" // names the bucket, which may be another App's
		a.Roles = []app.Role{{ID: "Role", Statements: []map[string]any{{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::" + bucket}}}}
		if got := n.deployOnBucket(t, a); !slices.Equal(got, want) {
			t.Errorf("warnings %q, want %q", got, want)
		}
	}
	c := n.eventBridge(t, "deploy")
	by := func(bucket string) {
		a, _ := shop("by"+bucket, "dev", "")
		a.Resources = []app.Resource{bucketResource("Bucket", bucket)}
		if got := n.deployOnBucket(t, a); len(got) > 0 {
			t.Errorf("warnings %q", got)
		}
	}
	c.store(t, "/late-one", "")
	by("late-two")
	for _, bucket := range []string{"one", "two"} {
		c.store(t, "/late-"+bucket+"/key", "x")
		eventually(t, n, bucket+" was told", func() bool { return strings.Contains(n.logs(t), "STORED late-"+bucket+"/key") })
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	c.n = n
	c.store(t, "/late-three", "")
	by("late-four")
	for _, bucket := range []string{"one", "two", "three", "four"} {
		c.store(t, "/late-"+bucket+"/after", "x")
		eventually(t, n, bucket+" was told after a restart", func() bool { return strings.Contains(n.logs(t), "STORED late-"+bucket+"/after") })
	}
}

// What is stored while an App is deployed again, or while a client puts notifications of its own, is told like everything else.
func TestBuckets_NothingIsMissedWhileTheyAreDeclaredAgain(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.deployOnBucket(t, onBucket("shop", "busy", true))
	c := n.eventBridge(t, "deploy")
	done := make(chan error, 1)
	go func() {
		_, tree := shop("shop", "dev", tells)
		for i := range 4 {
			a := onBucket("shop", "busy", true)
			a.Functions[0].Env["TURN"] = app.Lit(fmt.Sprint(i))
			if _, err := n.deploy(t, a, tree); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	want := 0
	for running := true; running; want++ {
		select {
		case err := <-done:
			if running = false; err != nil {
				t.Fatal(err)
			}
		default:
		}
		c.store(t, fmt.Sprintf("/busy/%d", want), "x")
		if want%10 == 0 {
			c.store(t, "/busy?notification", `<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></NotificationConfiguration>`)
		}
	}
	eventually(t, n, fmt.Sprintf("all %d were told", want), func() bool {
		logs := n.logs(t)
		for i := range want {
			if !strings.Contains(logs, fmt.Sprintf("STORED busy/%d\n", i)) {
				return false
			}
		}
		return true
	})
}

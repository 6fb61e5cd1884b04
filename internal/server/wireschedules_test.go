package server_test

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/server"
	"github.com/ebb-run/ebb/internal/wire/events"
	"github.com/ebb-run/ebb/internal/wire/scheduler"
)

// A schedule that is put fires to queues and functions with the input that it says, stands after a restart, and is gone once it has run its course.
func TestScheduler_FiresWhatWasPut(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.takesEvents(t)
	c := n.eventBridge(t, "deploy")
	schedule := func(status int, method, name, body, want string) {
		t.Helper()
		got, text := c.send(t, "scheduler", method, "/schedules/"+name, map[string]string{"Content-Type": "application/json"}, body)
		if got != status || !strings.Contains(text, want) {
			t.Errorf("%s %s %s: %d %s, want %d %s", method, name, body, got, text, status, want)
		}
	}
	soon := time.Now().UTC().Add(2 * time.Second).Format("2006-01-02T15:04:05")
	role := `"RoleArn":"arn:aws:iam::000000000000:role/x"`
	once := func(target string) string {
		return fmt.Sprintf(`{"ScheduleExpression":"at(%s)","FlexibleTimeWindow":{"Mode":"OFF"},"ActionAfterCompletion":"DELETE","ClientToken":"t","Target":{%s,%s}}`, soon, role, target)
	}
	queue := `"Arn":"arn:aws:sqs:us-east-1:000000000000:jobs"`
	schedule(200, "POST", "text", once(queue+`,"Input":"just text"`), `{"ScheduleArn":"arn:aws:scheduler:us-east-1:000000000000:schedule/default/text"}`)
	schedule(200, "POST", "text", once(queue+`,"Input":"just text"`), `schedule/default/text`) // the same request again
	schedule(200, "POST", "json", once(queue+`,"Input":"{\"at\":\"<aws.scheduler.scheduled-time>\"}"`), `schedule/default/json`)
	schedule(200, "POST", "run", once(`"Arn":"arn:aws:lambda:us-east-1:000000000000:function:shop-dev-hello"`), `schedule/default/run`)
	schedule(200, "POST", "far", strings.Replace(once(queue), soon, "2099-01-01T00:00:00", 1), "far")
	eventually(t, n, "the queue has both", func() bool {
		got := bodies(t, n, "jobs")
		slices.Sort(got)
		return slices.Equal(got, []string{"just text", `{"at":"` + soon + `Z"}`})
	})
	eventually(t, n, "the function ran", func() bool {
		return strings.Contains(n.logs(t), `"source":"aws.scheduler","account":"000000000000","time":"`+soon+`Z","region":"us-east-1","resources":["arn:aws:scheduler:us-east-1:000000000000:schedule/default/run"],"detail":"{}"}`)
	})
	eventually(t, n, "what has run its course is gone", func() bool {
		status, _ := c.send(t, "scheduler", http.MethodGet, "/schedules/text", nil, "")
		return status == http.StatusNotFound
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	c.n = n
	n.takesEvents(t)
	schedule(200, "GET", "far", "", `"ScheduleExpression":"at(2099-01-01T00:00:00)"`)
	soon = time.Now().UTC().Add(time.Second).Format("2006-01-02T15:04:05")
	schedule(200, "PUT", "far", once(queue+`,"Input":"\"later\""`), "far")
	eventually(t, n, "the queue has what was changed", func() bool { return slices.Contains(bodies(t, n, "jobs"), `"later"`) })
	if got := bodies(t, n, "jobs"); len(got) != 3 {
		t.Errorf("the queue has %q", got)
	}
}

// Schedules stand in groups, are listed, changed and deleted with them, and what is wrong with them is told as AWS does.
func TestScheduler_KeepsSchedulesInGroups(t *testing.T) {
	t.Parallel()
	n := open(t, filepath.Join(t.TempDir(), "data"))
	n.takesEvents(t)
	c := n.eventBridge(t, "deploy")
	body := func(more string) string {
		return `{"ScheduleExpression":"rate(1 hour)","GroupName":"g","FlexibleTimeWindow":{"Mode":"OFF"},"Target":{"RoleArn":"r","Arn":"arn:aws:sqs:us-east-1:000000000000:jobs"}` + more + `}`
	}
	for _, v := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/schedules/a", body(``), 404, `Schedule group g does not exist.`},
		{"POST", "/schedule-groups/g", `{"Tags":[{"Key":"k","Value":"v"}]}`, 200, `"ScheduleGroupArn":"arn:aws:scheduler:us-east-1:000000000000:schedule-group/g"`},
		{"POST", "/schedule-groups/g", `{}`, 409, `Schedule group g already exists.`},
		{"GET", "/tags/arn%3Aaws%3Ascheduler%3Aus-east-1%3A000000000000%3Aschedule-group%2Fg", "", 200, `{"Tags":[{"Key":"k","Value":"v"}]}`},
		{"POST", "/schedules/a", body(`,"State":"DISABLED","Description":"d"`), 200, `schedule/g/a`},
		{"POST", "/schedules/a", body(``), 409, `Schedule a already exists.`},
		{"POST", "/schedules/b", body(`,"ScheduleExpressionTimezone":"Europe/Berlin"`), 200, `schedule/g/b`},
		{"GET", "/schedules/a?groupName=g", "", 200, `"State":"DISABLED"`},
		{"GET", "/schedules/a", "", 404, `Schedule a does not exist.`},
		{"GET", "/schedules?ScheduleGroup=g&MaxResults=1", "", 200, `"NextToken":"`},
		{"GET", "/schedules?State=ENABLED", "", 200, `"Name":"b"`},
		{"GET", "/schedule-groups", "", 200, `"Name":"default"`},
		{"POST", "/schedules/c", strings.Replace(body(``), "rate(1 hour)", "rate(1 fortnight)", 1), 400, `Invalid Schedule Expression rate(1 fortnight).`},
		{"POST", "/schedules/c", body(`,"ScheduleExpressionTimezone":"Mars"`), 400, `Invalid ScheduleExpressionTimezone Mars.`},
		{"POST", "/schedules/c", strings.Replace(body(``), `"OFF"`, `"FLEXIBLE"`, 1), 400, `MaximumWindowInMinutes`},
		{"POST", "/schedules/c", strings.Replace(body(``), `arn:aws:sqs:us-east-1:000000000000:jobs`, "jobs", 1), 400, `Provided Arn is not in correct format.`},
		{"POST", "/schedules/c", strings.Replace(body(``), `:sqs:`, ":states:", 1), 400, `functions, queues and topics are`},
		{"POST", "/schedules/c", `{}`, 400, `ValidationException|Member must not be null`},
		{"DELETE", "/schedules/a?groupName=g", "", 200, ``},
		{"DELETE", "/schedules/a?groupName=g", "", 404, `Schedule a does not exist.`},
		{"DELETE", "/schedule-groups/default", "", 400, `default`},
		{"DELETE", "/schedule-groups/g", "", 200, ``},
		{"GET", "/schedules", "", 200, `{"Schedules":[]}`},
	} {
		got, text := c.send(t, "scheduler", v.method, v.path, map[string]string{"Content-Type": "application/json"}, v.body)
		_, part, both := strings.Cut(v.want, "|")
		if !both {
			part = v.want
		}
		if got != v.status || !strings.Contains(text, part) {
			t.Errorf("%s %s %s: %d %s, want %d %s", v.method, v.path, v.body, got, text, v.status, v.want)
		}
	}
	list, err := n.client.Schedules(t.Context(), 1)
	if err != nil || len(list) != 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
}

// What a Node kept of rules and schedules when it was killed is followed by its next start; what it had begun to delete goes.
func TestEventBridge_CatchesUpAfterAKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	n := open(t, dir)
	n.takesEvents(t)
	const queue = "arn:aws:sqs:us-east-1:000000000000:jobs"
	input, at := `"fired"`, time.Now().UTC().Add(-time.Second).Format("2006-01-02T15:04:05")
	schedule := func(name, expression string) *scheduler.Schedule {
		return &scheduler.Schedule{Group: "default", Name: name, Region: "us-east-1", Asked: scheduler.Asked{
			ScheduleExpression: expression, ActionAfterCompletion: "DELETE", FlexibleTimeWindow: &scheduler.FlexibleTimeWindow{Mode: "OFF"},
			Target: &scheduler.Target{Arn: queue, Input: &input},
		}}
	}
	rule := &events.Rule{Name: "kept", Bus: "default", Region: "us-east-1", Pattern: `{"source":["shop"]}`, Targets: []events.Target{{Id: "q", Arn: queue}}}
	if err := errors.Join(server.KeepRule(t.Context(), n.Server, rule), server.KeepSchedule(t.Context(), n.Server, schedule("kept", "at("+at+")")),
		server.LeaveSchedule(t.Context(), n.Server, schedule("left", "rate(1 day)"))); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	n.takesEvents(t)
	c := n.eventBridge(t, "deploy")
	eventually(t, n, "the schedule fired", func() bool { return slices.Contains(bodies(t, n, "jobs"), input) })
	names := func() (out []string) {
		list, err := n.client.Schedules(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			out = append(out, one.Name)
		}
		return out
	}
	eventually(t, n, "the schedule that was left is gone, and so is the one that has fired", func() bool { return len(names()) == 0 })
	eventually(t, n, "the rule stands", func() bool {
		c.must(t, "PutEvents", `{"Entries":[{"Source":"shop","DetailType":"T","Detail":"{}"}]}`)
		return slices.ContainsFunc(bodies(t, n, "jobs"), func(s string) bool { return strings.Contains(s, `"source":"shop"`) })
	})
	eventually(t, n, "the schedule is gone", func() bool {
		status, _ := c.send(t, "scheduler", http.MethodGet, "/schedules/kept", nil, "")
		return status == http.StatusNotFound
	})
}

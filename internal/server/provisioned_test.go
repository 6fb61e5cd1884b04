package server

import (
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/app"
)

func TestProvisioned_FollowsTheScheduleFromWhateverTimeItIs(t *testing.T) {
	t.Parallel()
	f := &app.Function{Provisioned: 1, Schedule: []app.Scaling{
		{When: "cron(0 8 ? * MON-FRI *)", Provisioned: 5},
		{When: "cron(0 18 ? * MON-FRI *)", Provisioned: 2},
		{When: "nonsense", Provisioned: 99},
	}}
	keep := provisioned(f)
	for _, c := range []struct {
		now   string
		n     int
		until string
	}{
		{"2026-11-23T07:59:59Z", 2, "2026-11-23T08:00:00Z"},
		{"2026-11-23T08:00:00Z", 5, "2026-11-23T18:00:00Z"},
		{"2026-11-23T18:00:00Z", 2, "2026-11-24T08:00:00Z"},
		{"2026-11-28T12:00:00Z", 2, "2026-11-30T08:00:00Z"},
	} {
		now, _ := time.Parse(time.RFC3339, c.now)
		if n, until := keep(now); n != c.n || until.Format(time.RFC3339) != c.until {
			t.Errorf("%s: %d until %v, want %d until %s", c.now, n, until, c.n, c.until)
		}
	}
	f.Schedule = []app.Scaling{{When: "at(2030-01-01T00:00:00)", Provisioned: 7}}
	if n, until := provisioned(f)(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)); n != 1 || until.Year() != 2030 {
		t.Errorf("%d until %v before the first change", n, until)
	}
	if n, until := provisioned(f)(time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)); n != 7 || !until.IsZero() {
		t.Errorf("%d until %v after the last change", n, until)
	}
	if provisioned(&app.Function{}) != nil {
		t.Error("a function without any is asked")
	}
}

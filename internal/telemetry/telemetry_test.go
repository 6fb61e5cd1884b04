package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/telemetry"
)

func TestFormat_IsThatOfLambda(t *testing.T) {
	t.Parallel()
	const id = "8f507cfc-1111-4697-b07a-ac58fc914c95"
	ms := time.Millisecond
	for name, c := range map[string]struct{ got, want string }{
		"start": {telemetry.FormatStart(id, "$LATEST"), "START RequestId: " + id + " Version: $LATEST"},
		"end":   {telemetry.FormatEnd(id), "END RequestId: " + id},
		"report": {telemetry.FormatReport(telemetry.Report{ID: id, Duration: 102*ms + 246*time.Microsecond, Billed: 103 * ms, MemoryMB: 128, MaxMemoryMB: 95}),
			"REPORT RequestId: " + id + "\tDuration: 102.25 ms\tBilled Duration: 103 ms\tMemory Size: 128 MB\tMax Memory Used: 95 MB\t"},
		"cold": {telemetry.FormatReport(telemetry.Report{ID: id, Duration: 5 * ms, Billed: 205*ms + 1, Init: 200*ms + 40*time.Microsecond, MemoryMB: 1024, MaxMemoryMB: 68}),
			"REPORT RequestId: " + id + "\tDuration: 5.00 ms\tBilled Duration: 206 ms\tMemory Size: 1024 MB\tMax Memory Used: 68 MB\tInit Duration: 200.04 ms\t"},
		"cold, broken down": {telemetry.FormatReport(telemetry.Report{ID: id, Duration: 5 * ms, Billed: 5 * ms, Init: 50 * ms, MemoryMB: 128, MaxMemoryMB: 68, Queue: ms / 2, Sandbox: 4 * ms, HandlerInit: 20 * ms}),
			"REPORT RequestId: " + id + "\tDuration: 5.00 ms\tBilled Duration: 5 ms\tMemory Size: 128 MB\tMax Memory Used: 68 MB\tInit Duration: 50.00 ms\tQueue: 0.50 ms\tSandbox: 4.00 ms\tRuntime Init: 30.00 ms\tHandler Init: 20.00 ms\t"},
		"cold, the handler's part not known": {telemetry.FormatReport(telemetry.Report{ID: id, Duration: 5 * ms, Billed: 5 * ms, Init: 50 * ms, MemoryMB: 128, MaxMemoryMB: 68, Sandbox: 4 * ms}),
			"REPORT RequestId: " + id + "\tDuration: 5.00 ms\tBilled Duration: 5 ms\tMemory Size: 128 MB\tMax Memory Used: 68 MB\tInit Duration: 50.00 ms\tQueue: 0.00 ms\tSandbox: 4.00 ms\t"},
		"timeout": {telemetry.FormatReport(telemetry.Report{ID: id, Duration: 3000 * ms, Billed: 3000 * ms, MemoryMB: 128, MaxMemoryMB: 33, Init: 121 * ms, Status: "timeout"}),
			"REPORT RequestId: " + id + "\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\tMemory Size: 128 MB\tMax Memory Used: 33 MB\tInit Duration: 121.00 ms\tStatus: timeout"},
		"error": {telemetry.FormatReport(telemetry.Report{ID: id, Duration: 12 * ms, Billed: 12 * ms, MemoryMB: 128, MaxMemoryMB: 128, Status: "error", ErrorType: "Runtime.OutOfMemory"}),
			"REPORT RequestId: " + id + "\tDuration: 12.00 ms\tBilled Duration: 12 ms\tMemory Size: 128 MB\tMax Memory Used: 128 MB\tStatus: error\tError Type: Runtime.OutOfMemory"},
		"traced": {telemetry.FormatReport(telemetry.Report{ID: id, Duration: ms, Billed: ms, MemoryMB: 128, MaxMemoryMB: 20, TraceID: "1-5-a", SegmentID: "1f"}),
			"REPORT RequestId: " + id + "\tDuration: 1.00 ms\tBilled Duration: 1 ms\tMemory Size: 128 MB\tMax Memory Used: 20 MB\t\nXRAY TraceId: 1-5-a\tSegmentId: 1f\tSampled: true\t"},
		"task": {telemetry.FormatTimeout(time.Date(2026, 1, 2, 4, 4, 5, 6e6, time.FixedZone("", 3600)), id, 3*time.Second+4*ms),
			"2026-01-02T03:04:05.006Z " + id + " Task timed out after 3.00 seconds"},
		"init": {telemetry.FormatInitReport(998*ms+150*time.Microsecond, "invoke", "error", "Runtime.Unknown"),
			"INIT_REPORT Init Duration: 998.15 ms\tPhase: invoke\tStatus: error\tError Type: Runtime.Unknown"},
	} {
		if c.got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, c.got, c.want)
		}
	}
}

func TestServerLog_IsOneJSONObjectALine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := telemetry.NewServerLog(&out, slog.LevelInfo)
	log.Debug("not shown")
	log.Info("started", "took", 1500*time.Millisecond, "err", errors.New("no\nroom"), slog.Group("g", "time", "kept"))
	var v map[string]any
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || strings.Count(out.String(), "\n") != 1 {
		t.Fatal(out.String(), err)
	}
	if v["msg"] != "started" || v["took"] != "1.5s" || v["err"] != "no\nroom" || v["g"].(map[string]any)["time"] != "kept" {
		t.Errorf("got %v", v)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000Z", v["time"].(string)); err != nil {
		t.Error(err)
	}
}

func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body.String())
	}
	return w.Body.String()
}

func expect(t *testing.T, text string, want map[string]bool) {
	t.Helper()
	for s, is := range want {
		if strings.Contains(text, s) != is {
			t.Errorf("%q is there: %t", s, !is)
		}
	}
}

func TestMetrics_CountWhatHappens(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	m.SetBuild("1.2.3")
	m.SetLogDrops(func() uint64 { return 7 })
	m.SetInstances(func() []telemetry.InstanceCount {
		return []telemetry.InstanceCount{
			{Tenant: "default", App: "shop", Stage: "dev", Function: "f", State: "busy", N: 2},
			{Tenant: "default", App: "shop", Stage: "dev", Function: "f", State: "busy", N: 1}, // an older Revision
		}
	})
	f, same := m.Function("default", "shop", "dev", "f"), m.Function("default", "shop", "dev", "f")
	m.Function("default", "shop", "dev", "never-called")
	f.Invocation(telemetry.Succeeded, 3*time.Millisecond)
	same.Invocation(telemetry.Succeeded, 3*time.Millisecond)
	f.Invocation(telemetry.FailedTimeout, time.Second)
	f.Invocation(telemetry.Outcome(99), time.Second)
	f.ColdStart(telemetry.ColdStart{Queue: time.Millisecond, Sandbox: 3 * time.Millisecond, Init: 40 * time.Millisecond, Handler: 10 * time.Millisecond})
	m.SetProvisioned(func() []telemetry.ProvisionedCount {
		n := telemetry.ProvisionedCount{Tenant: "default", App: "shop", Stage: "dev", Function: "f", Asked: 2, Ready: 1, Spilled: 5}
		return []telemetry.ProvisionedCount{n, {Tenant: "default", App: "shop", Stage: "dev", Function: "f", Spilled: 5}} // an older Revision
	})
	m.SetTemplates(func() telemetry.TemplateCounts { return telemetry.TemplateCounts{Ready: 3, Bytes: 1024, Started: 9} })
	f.Queued(2 * time.Millisecond)
	f.Throttled()
	m.GatewayRequest(204, time.Millisecond)
	m.GatewayRequest(502, time.Millisecond)
	m.GatewayRequest(0, time.Millisecond)
	m.Deploy("deployed")
	const l = `app="shop",function="f"`
	all := map[string]bool{
		`ebb_invocations_total{` + l + `,outcome="success",stage="dev",tenant="default"} 2`:                        true,
		`ebb_invocations_total{` + l + `,outcome="timeout",stage="dev",tenant="default"} 1`:                        true,
		`ebb_invocations_total{` + l + `,outcome="fault",stage="dev",tenant="default"} 1`:                          true,
		`ebb_invocation_duration_seconds_count{` + l + `,stage="dev",tenant="default"} 4`:                          true,
		`ebb_cold_starts_total{` + l + `,stage="dev",tenant="default"} 1`:                                          true,
		`ebb_init_duration_seconds_bucket{` + l + `,stage="dev",tenant="default",le="0.05"} 1`:                     true,
		`ebb_cold_start_phase_seconds_bucket{` + l + `,phase="sandbox",stage="dev",tenant="default",le="0.005"} 1`: true,
		`ebb_cold_start_phase_seconds_count{` + l + `,phase="runtime_init",stage="dev",tenant="default"} 1`:        true,
		`ebb_provisioned_instances{` + l + `,stage="dev",state="asked",tenant="default"} 2`:                        true,
		`ebb_provisioned_instances{` + l + `,stage="dev",state="ready",tenant="default"} 1`:                        true,
		`ebb_provisioned_spillover_total{` + l + `,stage="dev",tenant="default"} 5`:                                true,
		`ebb_queue_duration_seconds_count{` + l + `,stage="dev",tenant="default"} 1`:                               true,
		`ebb_throttles_total{` + l + `,stage="dev",tenant="default"} 1`:                                            true,
		`ebb_instances{` + l + `,stage="dev",state="busy",tenant="default"} 3`:                                     true,
		`ebb_gateway_requests_total{status="2xx"} 1`:                                                               true,
		`ebb_gateway_requests_total{status="5xx"} 1`:                                                               true,
		`ebb_gateway_requests_total{status="other"} 1`:                                                             true,
		`ebb_gateway_requests_total{status="4xx"} 0`:                                                               true,
		`ebb_deploys_total{result="deployed"} 1`:                                                                   true,
		"ebb_templates_ready 3":                                                                                    true, "ebb_templates_bytes 1024": true, "ebb_template_starts_total 9": true,
		`ebb_log_records_dropped_total 7`: true,
		`version="1.2.3"`:                 true,
		"go_goroutines":                   true,
		"never-called":                    false,
	}
	expect(t, scrape(t, m), all)
	m.SetInstances(func() []telemetry.InstanceCount { return nil })
	m.SetProvisioned(func() []telemetry.ProvisionedCount { return nil })
	m.RemoveFunction("default", "shop", "dev", "f")
	m.SetProvisioned(func() []telemetry.ProvisionedCount { return nil })
	m.RemoveFunction("default", "shop", "dev", "f")
	f.Invocation(telemetry.Succeeded, time.Millisecond) // a late one
	expect(t, scrape(t, m), map[string]bool{`function="f"`: false})
	m.Function("default", "shop", "dev", "f").Throttled()
	expect(t, scrape(t, m), map[string]bool{`ebb_throttles_total{` + l + `,stage="dev",tenant="default"} 1`: true})
}

func TestMetrics_TakeConcurrentCalls(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	f := m.Function("default", "shop", "dev", "f")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				f.Invocation(telemetry.Succeeded, time.Millisecond)
				f.ColdStart(telemetry.ColdStart{Init: time.Millisecond})
				if i%100 == 0 {
					_ = scrape(t, m)
				}
			}
		})
	}
	wg.Wait()
	expect(t, scrape(t, m), map[string]bool{`outcome="success",stage="dev",tenant="default"} 4000`: true})
}

func TestMetrics_BoundTheirSeries(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	for i := range 10_050 {
		m.Function("default", "shop", "dev", fmt.Sprint("f", i)).Throttled()
	}
	expect(t, scrape(t, m), map[string]bool{
		`ebb_throttles_total{app="_other",function="_other",stage="_other",tenant="_other"} 50`: true,
		`function="f9999"`: true, `function="f10000"`: false,
	})
}

// Not parallel: it compares the heap before and after.
func TestMetrics_IdleFunctionsCostLittle(t *testing.T) {
	m := telemetry.NewMetrics()
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprint("f", i)
	}
	handles := make([]*telemetry.FunctionMetrics, len(names))
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	for i, n := range names {
		handles[i] = m.Function("default", "shop", "dev", n)
	}
	after := heap()
	each := (float64(after) - float64(before)) / float64(len(names))
	t.Logf("%.0f bytes each", each)
	if each > 1024 {
		t.Errorf("%.0f bytes each", each)
	}
	runtime.KeepAlive(handles)
	runtime.KeepAlive(m)
}

func BenchmarkFunctionMetrics(b *testing.B) {
	f := telemetry.NewMetrics().Function("default", "shop", "dev", "f")
	b.ReportAllocs()
	for b.Loop() {
		f.Invocation(telemetry.Succeeded, 3*time.Millisecond)
	}
}

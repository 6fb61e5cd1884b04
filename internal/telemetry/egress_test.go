package telemetry

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestSetEgress_HasSeriesOfBoundedNumber(t *testing.T) {
	t.Parallel()
	m := NewMetrics()
	m.SetEgress(func() (all []EgressCount) {
		for i := range maxFunctions + 3 { // in no order
			all = append(all, EgressCount{Tenant: "t", App: "a", Stage: "s", Function: fmt.Sprintf("f%05d", maxFunctions+2-i), Made: 1, Refused: 2})
		}
		return append(all, EgressCount{Tenant: "t", App: "a", Stage: "s", Function: "f00000", Sent: 7})
	})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	page := w.Body.String()
	for _, want := range []string{
		`ebb_egress_bytes_total{app="a",direction="sent",function="f00000",stage="s",tenant="t"} 7`,
		`ebb_egress_connections_total{app="a",function="f09999",outcome="refused",stage="s",tenant="t"} 2`,
		`ebb_egress_connections_total{app="_other",function="_other",outcome="made",stage="_other",tenant="_other"} 3`,
	} {
		if !strings.Contains(page, want+"\n") {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(page, `function="f10000"`) {
		t.Error("more functions than the most have series")
	}
}

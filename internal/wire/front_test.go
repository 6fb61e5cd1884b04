package wire_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire/sts"
	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

func TestHandler_TellsJSONClientsThatNameNoOperation(t *testing.T) {
	t.Parallel()
	e := wiretest.New(t, sts.New())
	for _, c := range []struct {
		name, method, kind, origin, body string
		status                           int
		want                             string
	}{
		{"no operation", "POST", "application/json", "", "{}", 400, `{"__type":"com.amazon.coral.service#UnknownOperationException"}`},
		{"no JSON", "POST", "application/x-amz-json-1.0;x", "", "hi", 400, `{"__type":"com.amazon.coral.service#SerializationException"}`},
		{"nothing", "POST", "", "", "", 400, `{"__type":"com.amazon.coral.service#UnknownOperationException"}`},
		{"a form", "POST", "application/x-www-form-urlencoded", "", "x=y", 403, "MissingAuthenticationToken"},
		{"before a page asks", "OPTIONS", "", "https://shop.example", "", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), c.method, e.URL+"/", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]string{"Content-Type": c.kind, "Origin": c.origin} {
				if v != "" {
					r.Header.Set(k, v)
				}
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var body strings.Builder
			_ = resp.Write(&body)
			if resp.StatusCode != c.status || !strings.Contains(body.String(), c.want) || c.origin != "" && resp.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%d %s", resp.StatusCode, body.String())
			}
		})
	}
}

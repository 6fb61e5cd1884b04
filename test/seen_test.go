package test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

var answered = regexp.MustCompile(`(?m)^ebb_aws_requests_total\{operation="(\w+)",service="(\w+)",status="2xx"\}`)

// noteAnswered notes which operations of AWS's services a server has answered, for the pages that tell what is here.
func noteAnswered(t *testing.T, api, data string) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(data, "token"))
	if err != nil {
		return // it never came up
	}
	req, err := http.NewRequest(http.MethodGet, api+"/metrics", nil) // the test's own context is over
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // it was stopped, or killed
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range answered.FindAllSubmatch(text, -1) {
		wiretest.Seen(t, string(m[2]), string(m[1]))
	}
}

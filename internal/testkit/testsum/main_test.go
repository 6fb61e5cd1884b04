package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun_CountsAndShowsFailures(t *testing.T) {
	t.Parallel()
	in := `{"Action":"output","Package":"p","Test":"TestA","Output":"fine\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: broken\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestC","Output":"=== RUN TestC\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:9: no tool\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestD","Output":"goroutine 1 [stuck]\n"}
{"Action":"fail","Package":"p"}
`
	var out bytes.Buffer
	if code := run(strings.NewReader(in), &out); code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"broken", "unfinished p TestD", "goroutine 1 [stuck]", "skip  p TestC: c_test.go:9: no tool", "1 passed, 1 failed, 1 skipped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "fine") {
		t.Error("the output of a passed test is shown")
	}
}

func TestRun_FailsWhenNothingRanOrDidNotBuild(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"nothing":  "",
		"no build": `{"Action":"output","Package":"p","Output":"FAIL p [build failed]\n"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n",
	} {
		if code := run(strings.NewReader(in), &bytes.Buffer{}); code != 1 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What boto3 is answered is what second.py says, and what moto answers too, but for what second.txt lists.
func TestWire_ASecondOpinionAgrees(t *testing.T) {
	t.Parallel()
	s, _, _, key := outside(t)
	_, access, secret := key("deploy")
	ours, wrong := opinion(t, "python3", s.Ready.AWS, access, secret)
	for _, line := range wrong {
		t.Error(line)
	}
	if len(ours) < 250 {
		t.Errorf("only %d calls were answered", len(ours))
	}
	t.Run("moto", func(t *testing.T) {
		theirs, _ := opinion(t, "python3", motoServer(t), "a", "b")
		known := readDifferences(t)
		for name, answer := range ours {
			other, ok := theirs[name]
			if !ok {
				t.Errorf("%s: moto was not asked", name)
				continue
			}
			a, b := map[string]string{}, map[string]string{}
			flatten(answer, "", a)
			flatten(other, "", b)
			for path := range b {
				if _, ok := a[path]; !ok {
					a[path] = "nothing"
				}
			}
			for path, v := range a {
				w, ok := b[path]
				if !ok {
					w = "nothing"
				}
				if v == w {
					continue
				}
				i := slices.IndexFunc(known, func(d difference) bool { return d.at.MatchString(name + " " + path) })
				if i < 0 {
					t.Errorf("%s %s: %s, and moto says %s", name, path, v, w)
					continue
				}
				known[i].needed = true
			}
		}
		for _, d := range known {
			if !d.needed {
				t.Errorf("testdata/second.txt: nothing differs any more by %q", d.line)
			}
		}
	})
}

// opinion runs the script. Its answers are by service, operation and number; wrong are those that are not what the script wants.
func opinion(t *testing.T, python, url, access, secret string) (all map[string]any, wrong []string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), python, "-W", "ignore", "testdata/second.py", url, access, secret).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all = map[string]any{}
	for line := range strings.Lines(string(out)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), "\t")
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if v["unexpected"] != nil || v["broken"] != nil {
			wrong = append(wrong, line)
			continue
		}
		all[name] = v
	}
	return all, wrong
}

// flatten gives every value by its path: ".Items[0].p.S".
func flatten(v any, path string, into map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			into[path] = "{}"
		}
		for k, one := range v {
			flatten(one, path+"."+k, into)
		}
	case []any:
		if len(v) == 0 {
			into[path] = "[]"
		}
		for i, one := range v {
			flatten(one, fmt.Sprintf("%s[%d]", path, i), into)
		}
	default:
		into[path] = fmt.Sprintf("%q", fmt.Sprint(v))
	}
}

// difference is a line of second.txt.
type difference struct {
	line   string
	at     *regexp.Regexp
	needed bool
}

func readDifferences(t *testing.T) (list []difference) {
	t.Helper()
	data, err := os.ReadFile("testdata/second.txt")
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		if len(f) < 4 {
			t.Fatalf("testdata/second.txt: %q has no reason", lines.Text())
		}
		glob := func(s string) string { return strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, `.*`) }
		list = append(list, difference{line: lines.Text(), at: regexp.MustCompile("^" + glob(f[0]) + " " + glob(f[1]) + ` \d+ ` + glob(f[2]) + "$")})
	}
	return list
}

// motoServer runs moto until the test ends.
func motoServer(t *testing.T) (url string) {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import moto.server, flask").CombinedOutput(); err != nil {
		t.Skipf("needs python3 with moto[server]: %v %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "-W", "ignore", "-c", "import sys; from moto.server import main; main(sys.argv[1:])", "-H", "127.0.0.1", "-p", fmt.Sprint(addr.Port))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	url = "http://" + addr.String()
	eventually(t, "moto answers", func() bool {
		status, _ := get(&http.Client{}, url+"/moto-api/data.json")
		return status == http.StatusOK
	})
	return url
}

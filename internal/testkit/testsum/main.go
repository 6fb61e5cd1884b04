// Command testsum reads the output of `go test -json` and prints what failed, what was skipped and why, and one line of counts.
//
// It exits with 1 when a test or package failed or when nothing ran. It does not run tests.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
	ImportPath                    string
}

func main() { os.Exit(run(os.Stdin, os.Stdout)) }

func run(in io.Reader, out io.Writer) int {
	var passed, failed, skipped int
	output := map[string][]string{} // by package and test
	builds := map[string][]string{}
	scan := bufio.NewScanner(in)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var e event
		if json.Unmarshal(scan.Bytes(), &e) != nil {
			fmt.Fprintln(out, scan.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output":
			output[key] = append(output[key], e.Output)
		case "build-output":
			builds[e.ImportPath] = append(builds[e.ImportPath], e.Output)
		case "build-fail":
			fmt.Fprint(out, strings.Join(builds[e.ImportPath], ""))
		case "pass":
			if e.Test != "" {
				passed++
			} else {
				fmt.Fprintf(out, "ok    %-60s %6.1f s\n", e.Package, e.Elapsed)
			}
			delete(output, key)
		case "skip":
			if e.Test != "" {
				skipped++
				fmt.Fprintf(out, "skip  %s: %s", key, reason(output[key]))
			}
			delete(output, key)
		case "fail":
			if e.Test != "" {
				failed++
			} else {
				fmt.Fprintf(out, "FAIL  %-60s %6.1f s\n", e.Package, e.Elapsed)
				if len(output[key]) > 0 && failed == 0 {
					failed++ // it did not build, or died outside a test
				}
			}
			fmt.Fprint(out, strings.Join(output[key], ""))
			delete(output, key)
			if e.Test == "" { // those that had not ended: where a hang or a crash shows
				for _, k := range slices.Sorted(maps.Keys(output)) {
					if strings.HasPrefix(k, key) {
						fmt.Fprintf(out, "unfinished %s\n%s", k, strings.Join(output[k], ""))
						delete(output, k)
					}
				}
			}
		}
	}
	if err := scan.Err(); err != nil {
		fmt.Fprintln(out, err)
		failed++
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || passed == 0 {
		return 1
	}
	return 0
}

// reason is what a skipped test said.
func reason(lines []string) string {
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "===") && !strings.HasPrefix(l, "---") {
			return l + "\n"
		}
	}
	return "no reason given\n"
}

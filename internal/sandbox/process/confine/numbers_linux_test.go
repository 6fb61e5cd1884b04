package confine

import (
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite numbers_linux.go and testdata")

var defined = regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*=\s*(\d+)`)

// kernelNumbers reads the numbers of an architecture from the x/sys that this module uses.
func kernelNumbers(t *testing.T, arch string) map[string]int {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+arch+".go"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, m := range defined.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if name := strings.ToLower(m[1]); name != "arch_specific_syscall" {
			all[name] = n
		}
	}
	if len(all) < 300 {
		t.Fatalf("only %d system calls found for %s", len(all), arch)
	}
	return all
}

func TestNumbers_AreThoseOfTheKernel(t *testing.T) {
	t.Parallel()
	amd64, arm64 := kernelNumbers(t, "amd64"), kernelNumbers(t, "arm64")
	names := maps.Clone(amd64)
	maps.Copy(names, arm64)
	get := func(m map[string]int, name string) int {
		if n, ok := m[name]; ok {
			return n
		}
		return -1
	}
	var want []number
	for _, name := range slices.Sorted(maps.Keys(names)) {
		want = append(want, number{name, get(amd64, name), get(arm64, name)})
	}
	if *update {
		b := bytes.NewBufferString("package confine\n\n// number is what a system call has for a number on each architecture, -1 where it does not exist.\ntype number struct {\nname string\namd64, arm64 int\n}\n\n" +
			"// numbers are those of golang.org/x/sys/unix; a test with -update rewrites them.\nvar numbers = []number{\n")
		for _, n := range want {
			fmt.Fprintf(b, "{%q, %d, %d},\n", n.name, n.amd64, n.arm64)
		}
		b.WriteString("}\n")
		text, err := format.Source(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("numbers_linux.go", text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !slices.Equal(numbers, want) {
		t.Error("numbers_linux.go is not what x/sys has; run the test with -update and decide about the new calls")
	}
}

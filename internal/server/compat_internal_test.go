package server

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/config"
	"github.com/ebb-run/ebb/internal/wire/shape"
)

var (
	compatDir  = flag.String("compat.dir", "", "write the pages that tell what of AWS's services is here into this folder")
	compatSeen = flag.String("compat.seen", "", "file with the operations that tests have seen to succeed: service, operation, test")
)

// TestCompat_Pages writes the pages, or checks that services have no operation that their tables do not know.
func TestCompat_Pages(t *testing.T) {
	t.Parallel()
	seen := map[string][]string{} // tests, by service and operation
	if *compatSeen != "" {
		f, err := os.Open(*compatSeen)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if w := strings.Fields(lines.Text()); len(w) == 3 {
				seen[w[0]+" "+w[1]] = append(seen[w[0]+" "+w[1]], w[2])
			}
		}
	}
	s := &Server{o: Options{Config: &config.Config{}}}
	var index strings.Builder
	index.WriteString("# AWS's services\n\nWhat clients of AWS find here. A test is one that has seen the operation succeed; `make compat-tables` writes these pages.\n\n| service | operations | here | with a test |\n|---|---|---|---|\n")
	pages := map[string]string{}
	for _, service := range s.wireServices() {
		table, err := shape.Load(service.Name)
		if err != nil {
			t.Fatal(err)
		}
		var page strings.Builder
		known, here, tested := 0, 0, 0
		fmt.Fprintf(&page, "# %s\n\n| operation | state | test |\n|---|---|---|\n", table.Metadata.ServiceID)
		for _, name := range slices.Sorted(maps.Keys(table.Operations)) {
			known++
			state, tests := "refused by name", seen[service.Name+" "+name]
			if _, ok := service.Operations[name]; ok {
				state, here = "here", here+1
			} else if len(tests) > 0 {
				t.Errorf("%s %s has succeeded and is not here", service.Name, name)
			}
			text := ""
			if slices.Sort(tests); len(tests) > 0 {
				tested++
				text = "`" + strings.Join(slices.Compact(tests)[:min(2, len(slices.Compact(tests)))], "`, `") + "`"
			}
			fmt.Fprintf(&page, "| %s | %s | %s |\n", name, state, text)
		}
		if here == 0 {
			t.Errorf("%s has none of its operations", service.Name)
		}
		fmt.Fprintf(&index, "| [%s](%s.md) | %d | %d | %d |\n", table.Metadata.ServiceID, service.Name, known, here, tested)
		pages[service.Name+".md"] = page.String()
	}
	if *compatDir == "" {
		return
	}
	pages["README.md"] = index.String()
	if err := os.MkdirAll(*compatDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(*compatDir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

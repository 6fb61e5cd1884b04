// Command gen makes the tables of package shape from AWS's published service models.
//
// The models are in a pinned Go module, which is downloaded for it and no dependency of the product. Only what is needed to read
// requests and write answers is kept: no documentation text.
package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// module carries the models, as models/apis/<folder>/api-2.json.
const module = "github.com/aws/aws-sdk-go@v1.55.8"

// namesText has, by service, the names that the query protocol gave to what the newest model knows by those of JSON alone.
//
//go:embed names.json
var namesText []byte

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	if err != nil {
		return fmt.Errorf("download %s: %w", module, err)
	}
	var at struct{ Dir string }
	if err := json.Unmarshal(out, &at); err != nil {
		return err
	}
	list, err := os.ReadFile("services.txt")
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		word := strings.Fields(lines.Text())
		if len(word) < 2 || strings.HasPrefix(word[0], "#") {
			continue
		}
		if err := table(filepath.Join(at.Dir, "models", "apis", filepath.FromSlash(word[1]), "api-2.json"), word[0], word[2:]); err != nil {
			return fmt.Errorf("%s: %w", word[0], err)
		}
	}
	return nil
}

type object = map[string]any

// kept are the traits that package shape reads, by where they stand.
var kept = map[string][]string{
	"metadata":  {"apiVersion", "endpointPrefix", "jsonVersion", "protocol", "serviceId", "signingName", "targetPrefix", "xmlNamespace"},
	"http":      {"method", "requestUri", "responseCode"},
	"input":     {"shape", "locationName", "xmlNamespace"},
	"output":    {"shape", "resultWrapper"},
	"shape":     {"type", "required", "enum", "min", "max", "payload", "flattened", "streaming", "timestampFormat", "locationName", "xmlNamespace", "eventstream"},
	"reference": {"shape", "location", "locationName", "flattened", "streaming", "xmlAttribute", "xmlNamespace"},
}

func keep(from any, where string) object {
	m, _ := from.(object)
	to := object{}
	for _, k := range kept[where] {
		if v, ok := m[k]; ok {
			to[k] = v
		}
	}
	return to
}

func table(path, name string, only []string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var model struct {
		Metadata   object
		Operations map[string]object
		Shapes     map[string]object
	}
	if err := json.Unmarshal(data, &model); err != nil {
		return err
	}
	t := tabler{from: model.Shapes, shapes: object{}}
	var names map[string]map[string]string
	if err := json.Unmarshal(namesText, &names); err != nil {
		return err
	}
	t.names = names[name]
	operations := object{}
	for op, o := range model.Operations {
		if len(only) > 0 && !slices.Contains(only, op) {
			operations[op] = object{}
			continue
		}
		to := object{"http": keep(o["http"], "http")}
		for _, side := range []string{"input", "output"} {
			if o[side] != nil {
				ref := keep(o[side], side)
				to[side] = ref
				t.add(ref["shape"].(string))
			}
		}
		operations[op] = to
	}
	for _, op := range only {
		if model.Operations[op] == nil {
			return fmt.Errorf("there is no operation %s", op)
		}
	}
	out, err := json.Marshal(object{"metadata": keep(model.Metadata, "metadata"), "operations": operations, "shapes": t.shapes})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join("tables", name+".json"), append(out, '\n'), 0o644)
}

// tabler takes in the shapes that operations reach.
type tabler struct {
	from   map[string]object
	shapes object
	names  map[string]string
}

func (t *tabler) add(name string) {
	if t.shapes[name] != nil {
		return
	}
	s := t.from[name]
	to := keep(s, "shape")
	t.shapes[name] = to
	reference := func(v any, part string) object {
		r := keep(v, "reference")
		if n := t.names[name+"."+part]; n != "" {
			r["queryName"] = n
		}
		t.add(r["shape"].(string))
		return r
	}
	if members, ok := s["members"].(object); ok && len(members) > 0 {
		all := object{}
		for k, v := range members {
			all[k] = reference(v, k)
		}
		to["members"] = all
	}
	for _, part := range []string{"member", "key", "value"} {
		if s[part] != nil {
			to[part] = reference(s[part], part)
		}
	}
}

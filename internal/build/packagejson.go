package build

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
)

// packageJSON is what matters here of a package.json.
type packageJSON struct {
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	Type     string          `json:"type"`
	Deps     stringMap       `json:"dependencies"`
	Optional stringMap       `json:"optionalDependencies"`
	Peer     stringMap       `json:"peerDependencies"`
	Dev      stringMap       `json:"devDependencies"`
	Scripts  stringMap       `json:"scripts"`
	Gyp      bool            `json:"gypfile"`
	Binary   json.RawMessage `json:"binary"`
	Spaces   json.RawMessage `json:"workspaces"`
	Manager  string          `json:"packageManager"`
	PeerMeta map[string]struct {
		Optional bool `json:"optional"`
	} `json:"peerDependenciesMeta"`
}

// stringMap takes an object of strings and ignores anything else: packages in the wild hold lists and numbers there.
type stringMap map[string]string

func (m *stringMap) UnmarshalJSON(data []byte) error {
	var raw map[string]any
	if json.Unmarshal(data, &raw) != nil {
		return nil
	}
	*m = stringMap{}
	for k, v := range raw {
		if s, ok := v.(string); ok {
			(*m)[k] = s
		}
	}
	return nil
}

func readPackage(dir string) (*packageJSON, error) {
	data, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		return nil, err
	}
	var p packageJSON
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, err
	}
	return &p, nil
}

// isModule says whether Node would load the file as an ES module: by its extension, else by the nearest package.json.
func isModule(file string) bool {
	switch filepath.Ext(file) {
	case ".mjs", ".mts":
		return true
	case ".cjs", ".cts":
		return false
	}
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		if p, err := readPackage(dir); err == nil {
			return p.Type == "module"
		}
		if dir == filepath.Dir(dir) || filepath.Base(dir) == "node_modules" {
			return false
		}
	}
}

// resolvePackage finds the folder of a package as Node does from dir: in node_modules there and in each folder above.
func resolvePackage(dir, name string) (string, bool) {
	for {
		if filepath.Base(dir) != "node_modules" {
			at := filepath.Join(dir, "node_modules", filepath.FromSlash(name))
			if info, err := os.Stat(at); err == nil && info.IsDir() {
				return at, true
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", false
		}
		dir = up
	}
}

// packageName is the package an import path belongs to; "" for a file, a builtin or a private "#" name.
func packageName(spec string) string {
	if spec == "" || strings.HasPrefix(spec, ".") || strings.HasPrefix(spec, "/") || strings.HasPrefix(spec, "#") || strings.Contains(spec, ":") {
		return ""
	}
	parts := strings.SplitN(spec, "/", 3)
	if strings.HasPrefix(spec, "@") {
		if len(parts) < 2 {
			return ""
		}
		return parts[0] + "/" + parts[1]
	}
	if builtins[parts[0]] {
		return ""
	}
	return parts[0]
}

// builtins are the modules of Node itself that are imported without "node:".
var builtins = func() map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(`assert async_hooks buffer child_process cluster console constants crypto dgram diagnostics_channel dns
		domain events fs http http2 https inspector module net os path perf_hooks process punycode querystring readline repl stream
		string_decoder sys timers tls trace_events tty url util v8 vm wasi worker_threads zlib`) {
		m[n] = true
	}
	return m
}()

// isSDK says whether the cloud's Node runtime supplies the package.
func isSDK(name string) bool {
	return name == "aws-sdk" || strings.HasPrefix(name, "@aws-sdk/") || strings.HasPrefix(name, "@smithy/")
}

// readJSONC reads JSON with comments and trailing commas.
func readJSONC(name string, into any) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(stripComments(data), into)
}

func stripComments(in []byte) []byte {
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '"':
			j := i + 1
			for j < len(in) && in[j] != '"' {
				if in[j] == '\\' {
					j++
				}
				j++
			}
			j = min(j+1, len(in))
			out = append(out, in[i:j]...)
			i = j - 1
		case in[i] == '/' && i+1 < len(in) && in[i+1] == '/':
			for i < len(in) && in[i] != '\n' {
				i++
			}
			i--
		case in[i] == '/' && i+1 < len(in) && in[i+1] == '*':
			end := strings.Index(string(in[i+2:]), "*/")
			if end < 0 {
				return out
			}
			i += end + 3
		case in[i] == '}' || in[i] == ']':
			for k := len(out) - 1; k >= 0; k-- {
				if out[k] == ',' {
					out = append(out[:k], out[k+1:]...)
					break
				}
				if !strings.ContainsRune(" \t\r\n", rune(out[k])) {
					break
				}
			}
			out = append(out, in[i])
		default:
			out = append(out, in[i])
		}
	}
	return out
}

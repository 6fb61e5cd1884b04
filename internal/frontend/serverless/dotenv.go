package serverless

import (
	"regexp"
	"strings"
)

var dotenvLine = regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+)?([\w.-]+)(?:[ \t]*=[ \t]*|:[ \t]+)('(?:\\'|[^'])*'|"(?:\\"|[^"])*"|` + "`(?:\\\\`|[^`])*`" + `|[^#\r\n]*)?[ \t]*(?:#.*)?$`)

// parseDotenv reads dotenv format: NAME=value lines, quotes, comments, multi-line values in quotes, and
// ${NAME} in values, looked up by get first and then among the file's own names.
func parseDotenv(data string, get func(string) (string, bool)) map[string]string {
	out := map[string]string{}
	var order []string
	literal := map[string]bool{}
	for _, m := range dotenvLine.FindAllStringSubmatch(strings.ReplaceAll(data, "\r\n", "\n"), -1) {
		name, v := m[1], strings.TrimSpace(m[2])
		quote := byte(0)
		if len(v) >= 2 && strings.IndexByte("'\"`", v[0]) >= 0 && v[len(v)-1] == v[0] {
			quote = v[0]
			v = v[1 : len(v)-1]
		}
		if quote == '"' {
			v = strings.NewReplacer(`\n`, "\n", `\r`, "\r").Replace(v)
		}
		literal[name] = quote == '\''
		out[name] = v
		order = append(order, name)
	}
	for _, name := range order {
		if !literal[name] {
			out[name] = expandDotenv(out[name], name, out, get)
		}
	}
	return out
}

var dotenvRef = regexp.MustCompile(`\\?\$(?:\{([A-Za-z_]\w*)(?::?-([^{}]*))?\}|([A-Za-z_]\w*))`)

// expandDotenv fills in the references of one value. A value that refers to itself or to a later name
// sees that name's text as it stands, so the work is bounded by one pass.
func expandDotenv(v, self string, own map[string]string, get func(string) (string, bool)) string {
	out := dotenvRef.ReplaceAllStringFunc(v, func(m string) string {
		if m[0] == '\\' {
			return m[1:]
		}
		g := dotenvRef.FindStringSubmatch(m)
		name := g[1] + g[3]
		if get != nil {
			if val, ok := get(name); ok {
				return val
			}
		}
		if val, ok := own[name]; ok && name != self {
			return val
		}
		return g[2]
	})
	if len(out) > maxTextLength {
		return v
	}
	return out
}

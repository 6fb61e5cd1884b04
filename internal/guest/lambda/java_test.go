package lambda

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
)

func TestEnvironment_TellsAJavaThatIsBroughtWhatToTrust(t *testing.T) {
	t.Parallel()
	const ours = "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=/etc/ebb-roots.p12"
	for name, c := range map[string]struct {
		store, runtime string
		trust          bool
		env            []string
		want           string // "" for no such variable
	}{
		"none":               {"", "provided.al2023", true, nil, ""},
		"none, with options": {"", "provided.al2023", true, []string{"JAVA_TOOL_OPTIONS=-Xmx1m"}, "JAVA_TOOL_OPTIONS=-Xmx1m"},
		"in the code":        {"jre/lib/security/cacerts", "provided.al2023", true, nil, ours},
		"at the root":        {"lib/security/cacerts", "provided.al2023", true, nil, ours},
		"an older one":       {"java/jdk8/jre/lib/security/cacerts", "provided.al2", true, nil, ours},
		"with options":       {"jre/lib/security/cacerts", "provided.al2023", true, []string{"JAVA_TOOL_OPTIONS=-Xmx1m"}, ours + " -Xmx1m"},
		"not captured":       {"jre/lib/security/cacerts", "provided.al2023", false, []string{"JAVA_TOOL_OPTIONS=-Xmx1m"}, "JAVA_TOOL_OPTIONS=-Xmx1m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			if c.store != "" {
				file := filepath.Join(root, c.store)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			u := &guest.Unit{Runtime: c.runtime, Root: root, Trust: c.trust, Mounts: true, MemoryMB: 128, Env: c.env}
			env := (&Protocol{}).environment(u, "")
			var got []string
			for _, kv := range env {
				if len(kv) > 18 && kv[:18] == "JAVA_TOOL_OPTIONS=" {
					got = append(got, kv)
				}
			}
			if c.want == "" && len(got) > 0 || c.want != "" && !slices.Equal(got, []string{c.want}) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

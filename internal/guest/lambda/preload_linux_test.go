package lambda_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
)

func putFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestZygote_OwnModulesComeFirst: a function's module that has the name of one that is loaded ahead is the function's.
func TestZygote_OwnModulesComeFirst(t *testing.T) {
	t.Parallel()
	n := newNursery(t)
	u := n.unit(`
import sys
ahead = 'email.message' in sys.modules
kept = sys.modules.get('email')
import calendar, csv, email, html, html.parts, queue, random, secrets, uuid
def handler(e, c):
    return {'secrets': secrets.mine, 'calendar': calendar.mine, 'html': [html.mine, html.parts.mine], 'csv': csv.mine, 'queue': queue.mine,
            'kept': not ahead or kept is email, 'others': [random.random() < 1, len(str(uuid.uuid4()))]}
`, "PYTHONPATH=/var/task/vendored")
	putFiles(t, u.Root, map[string]string{"secrets.py": "mine = 1", "calendar.py": "mine = 2", "html/__init__.py": "mine = 3", "html/parts.py": "mine = 4", "vendored/csv.py": "mine = 5", "email/letter.txt": "no module"})
	u.Layers = public(t)
	putFiles(t, u.Layers, map[string]string{"python/queue.py": "mine = 6"})
	want := map[string]string{"secrets": "1", "calendar": "2", "html": "[3, 4]", "csv": "5", "queue": "6", "kept": "true", "others": "[true, 36]"}
	n.ready(u)
	for _, how := range []string{executed, copied, ahead} {
		found := decode(t, n.came(u, how))
		for what, value := range want {
			if found[what] != value {
				t.Errorf("%s: %s is %s, want %s", how, what, found[what], value)
			}
		}
	}
}

// supplied gives the function an SDK in the place of the supplied one, which tells what it saw when it was loaded.
func supplied(t *testing.T, u *guest.Unit) {
	t.Helper()
	u.Supplied = public(t)
	putFiles(t, u.Supplied, map[string]string{
		"python/boto3/__init__.py":    "import os, botocore.loaders, urllib3\nsaw = sorted(k for k in os.environ if k.startswith(('AWS', 'MINE')))\n",
		"python/botocore/__init__.py": "", "python/botocore/client.py": "", "python/urllib3/__init__.py": "whose = 'supplied'",
		"python/botocore/data/x": "", "python/boto3/data/x": "",
		"python/botocore/loaders.py": `
import os
calls = 0
class JSONFileLoader: pass
class Loader:
    BUILTIN_DATA_PATH = os.path.join(os.path.dirname(__file__), 'data')
    def __init__(self, extra_search_paths=None, file_loader=None, cache=None, include_default_search_paths=True):
        self.file_loader = file_loader or JSONFileLoader()
        self.search_paths = list(extra_search_paths or []) + ([self.BUILTIN_DATA_PATH, '/nowhere', '/var/supplied/python/boto3/data'] if include_default_search_paths else [])
    def list_available_services(self, type_name):
        global calls
        calls += 1
        return sorted(type_name + p for p in self.search_paths if os.path.isdir(p))
`,
	})
}

// TestZygote_WaitsWithTheSuppliedSDK: a copy that waits has loaded the SDK, without anything of the function's.
func TestZygote_WaitsWithTheSuppliedSDK(t *testing.T) {
	t.Parallel()
	n := newNursery(t)
	u := n.unit(`
import sys
loaded = 'boto3' in sys.modules
import boto3, urllib3
from botocore import loaders
before = loaders.calls
def handler(e, c):
    list = loaders.Loader().list_available_services
    return {'loaded': loaded, 'saw': boto3.saw, 'file': boto3.__file__, 'path': sys.path, 'whose': urllib3.whose,
            'services': [list('service-2'), list(type_name='resources-1'), list('others'), loaders.Loader(['/tmp']).list_available_services('service-2')], 'calls': [before, loaders.calls]}
`, "MINE=1")
	supplied(t, u)
	n.ready(u)
	of := func(kind string, paths ...string) string {
		return `["` + kind + strings.Join(paths, `", "`+kind) + `"]`
	}
	boto, core := "/var/supplied/python/boto3/data", "/var/supplied/python/botocore/data"
	services := "[" + strings.Join([]string{of("service-2", boto, core), of("resources-1", boto, core), of("others", boto, core), of("service-2", "/tmp", boto, core)}, ", ") + "]"
	first := decode(t, n.came(u, executed))
	for how, want := range map[string][2]string{executed: {"false", "[0, 4]"}, copied: {"false", "[0, 4]"}, ahead: {"true", "[6, 8]"}} {
		found := decode(t, n.came(u, how))
		if found["loaded"] != want[0] || found["services"] != services || found["calls"] != want[1] || found["path"] != first["path"] || found["whose"] != `"supplied"` ||
			found["file"] != `"/var/supplied/python/boto3/__init__.py"` || how == ahead && found["saw"] != "[]" {
			t.Errorf("%s: %v", how, found)
		}
	}
}

// TestZygote_WaitsWithoutAnSDKThatIsReplaced: where a function brings a part of the SDK, all of it is loaded as ever.
func TestZygote_WaitsWithoutAnSDKThatIsReplaced(t *testing.T) {
	t.Parallel()
	n := newNursery(t)
	u := n.unit("import sys\nloaded = [m for m in ('boto3', 'botocore', 'botocore.loaders', 'urllib3') if m in sys.modules]\nimport boto3\ndef handler(e, c): return {'loaded': loaded, 'whose': boto3.urllib3.whose}")
	putFiles(t, u.Root, map[string]string{"urllib3.py": "whose = 'mine'"})
	supplied(t, u)
	n.ready(u)
	for _, how := range []string{executed, copied, ahead} {
		if found := decode(t, n.came(u, how)); found["loaded"] != "[]" || found["whose"] != `"mine"` {
			t.Errorf("%s: %v", how, found)
		}
	}
}

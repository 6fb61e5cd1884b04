package lambda

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ebb-run/ebb/internal/guest"
)

func packed(files ...string) (p []byte) {
	for i := 0; i+1 < len(files); i += 2 {
		p = binary.LittleEndian.AppendUint16(p, uint16(len(files[i])))
		p = append(p, files[i]...)
		p = binary.LittleEndian.AppendUint32(p, uint32(len(files[i+1])))
		p = append(p, files[i+1]...)
	}
	return p
}

func TestCompiled_IsKeptAsAWholeAndOnce(t *testing.T) {
	t.Parallel()
	u := &guest.Unit{Runtime: "nodejs22.x", Mounts: true, Compiled: filepath.Join(t.TempDir(), "a", "b")}
	for _, bad := range [][]byte{
		packed("../x", "y"), packed("v22/../../x", "y"), packed("/etc/x", "y"), packed("v22", "y"), packed("v22/.x", "y"), packed("v22/x/y", "z"), packed("v22/x\x00", "y"),
		packed("v22/x", "y")[:5], append(packed("v22/x", "y"), 1), packed("v22/"+strings.Repeat("x", 200), "y"), packed(),
	} {
		_ = keepCompiled(u, bad)
		if hasCompiled(u) {
			t.Fatalf("%q was kept", bad)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(u.Compiled)); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
	if arg := compiledArg(u); arg != keepArg {
		t.Errorf("argument %q", arg)
	}
	if err := keepCompiled(u, packed("v22-x64/1.cache", "one", "v22-x64/2.cache", "")); err != nil {
		t.Fatal(err)
	}
	if arg := compiledArg(u); arg != compiledDir {
		t.Errorf("argument %q", arg)
	}
	if err := keepCompiled(u, packed("v22-x64/1.cache", "two")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(u.Compiled, "v22-x64", "1.cache")); err != nil || string(b) != "one" {
		t.Errorf("%q, %v", b, err)
	}
	for _, other := range []*guest.Unit{{Runtime: "nodejs22.x", Mounts: true}, {Runtime: "nodejs22.x", Compiled: "/x"}, {Runtime: "provided.al2023", Mounts: true, Compiled: "/x"}} {
		if arg := compiledArg(other); arg != "" {
			t.Errorf("%+v: argument %q", other, arg)
		}
	}
}

func FuzzReadCompiled(f *testing.F) {
	f.Add(packed("v22-x64/1.cache", "one", "v22-x64/2.cache", ""))
	f.Add(packed("v22-x64/1.cache", "one")[:12])
	f.Fuzz(func(t *testing.T, p []byte) {
		files, err := readCompiled(p)
		if err != nil {
			return
		}
		var again []string
		for _, file := range files {
			if !filepath.IsLocal(file.name) || strings.Count(file.name, "/") != 1 {
				t.Errorf("name %q", file.name)
			}
			again = append(again, file.name, string(file.bytes))
		}
		if !bytes.Equal(packed(again...), p) {
			t.Errorf("%q read as %q", p, again)
		}
	})
}

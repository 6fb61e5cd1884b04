package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ebb-run/ebb/internal/guest"
)

// compiledFolder holds what language runtimes compile of functions' code, in one folder for each Artifact and, below it, for each way to run it.
const compiledFolder = "compiled"

// compiled is the folder for what a Unit's runtime compiles of its code. Whatever could make it another one is in its name.
func (s *Server) compiled(code, version string, g *guest.Unit, others ...string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %q", version, g.Interpreter, g.Handler, g.MemoryMB, others))
	return filepath.Join(s.working, compiledFolder, code, hex.EncodeToString(sum[:8]))
}

// collectCompiled removes what was compiled of Artifacts that nothing needs.
func (s *Server) collectCompiled(needed func(digest string) bool) error {
	dir := filepath.Join(s.working, compiledFolder)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list compiled code: %w", err)
	}
	for _, e := range entries {
		if needed(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove compiled code: %w", err)
		}
	}
	return nil
}

package sandboxtest

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// pages guards files that several Books or tests of this process write.
var pages sync.Mutex

// WriteSection puts text into a page in place of the section of that name, or at the end where there is none. Other sections stay.
func WriteSection(path, name, text string) error {
	pages.Lock()
	defer pages.Unlock()
	page, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		before, after = string(page), ""
		if before != "" {
			before = strings.TrimRight(before, "\n") + "\n\n"
		}
	}
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o644)
}

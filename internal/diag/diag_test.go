package diag_test

import (
	"testing"

	"github.com/ebb-run/ebb/internal/diag"
)

func TestNearest_SuggestsOnlyWhatIsNear(t *testing.T) {
	t.Parallel()
	keys := []string{"handler", "runtime", "events", "environment", "timeout", "memorySize", "url"}
	for name, want := range map[string]string{
		"handlr": "handler", "evnets": "events", "memorysize": "memorySize", "enviroment": "environment",
		"timeuot": "timeout", "zzz": "", "": "", "urls": "url", "bananas": "",
	} {
		if got := diag.Nearest(name, keys); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestList_SortsByPlaceAndKnowsErrors(t *testing.T) {
	t.Parallel()
	var l diag.List
	l.Notef(diag.Pos{}, "n", "", "no place")
	l.Warnf(diag.Pos{File: "b.yml", Line: 3, Col: 1}, "w", "", "late")
	if l.HasErrors() {
		t.Error("a warning counts as error")
	}
	l.Errorf(diag.Pos{File: "b.yml", Line: 2, Col: 7}, "bad-thing", "Mend it.", "early %d", 1)
	s := l.Sorted()
	if !s.HasErrors() || s[0].String() != "b.yml:2:7: error: early 1 [bad-thing]" || s[2].Code != "n" {
		t.Errorf("sorted = %v", s)
	}
}

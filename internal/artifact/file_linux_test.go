package artifact

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAwaitWriters_WaitsForTheLastWriter(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "bootstrap")
	w, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan time.Time, 1)
	go func() { awaitWriters(name); ended <- time.Now() }()
	time.Sleep(20 * time.Millisecond)
	closing := time.Now()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if end := <-ended; end.Before(closing) {
		t.Errorf("it had a writer for %v more", closing.Sub(end))
	}
	// What it took to know is given back: a writer does not wait for it.
	if w, err = os.OpenFile(name, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
}

package telemetry

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
)

// A full disk is /dev/full in place of the segment: every write fails with ENOSPC.
func TestLogs_AFullDiskDropsAndRecovers(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	var out bytes.Buffer
	l, err := OpenLogs(t.TempDir(), LogOptions{Log: slog.New(slog.NewTextHandler(&out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Write(Record{Text: "before"})
	l.flush()
	l.file.Lock()
	good := l.file.f
	l.file.f = full
	l.file.Unlock()
	for range 3 {
		l.Write(Record{Text: "lost"}, Record{Text: "lost"})
		l.flush()
	}
	if l.Dropped() != 6 {
		t.Errorf("%d dropped", l.Dropped())
	}
	l.file.Lock()
	l.file.f = good
	l.file.Unlock()
	l.Write(Record{Text: "after"})
	var got string
	if err := l.Read(t.Context(), Query{}, func(r Record) error { got += r.Text + " "; return nil }); err != nil {
		t.Fatal(err)
	}
	if got != "before after " {
		t.Errorf("got %q", got)
	}
	l.file.Lock()
	defer l.file.Unlock()
	if n := strings.Count(out.String(), "disk full"); n != 1 {
		t.Errorf("%d warnings: %s", n, out.String())
	}
}

func TestLogs_AFolderThatIsGoneDropsOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/logs"
	l, err := OpenLogs(dir, LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l.Write(Record{Text: "lost"})
	l.flush()
	if l.Dropped() != 1 {
		t.Errorf("%d dropped", l.Dropped())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.Write(Record{Text: "kept"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l.Dropped() != 1 {
		t.Errorf("%d dropped", l.Dropped())
	}
}

// A disk that hangs must not hold up writers, nor take all memory.
func TestWrite_DoesNotWaitForAHangingDisk(t *testing.T) {
	t.Parallel()
	l, err := OpenLogs(t.TempDir(), LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l.file.Lock() // as flush does while a write hangs
	text := strings.Repeat("x", 1000)
	const n = 40_000
	for range n {
		l.Write(Record{Text: text})
	}
	l.mu.Lock()
	if len(l.mu.buf) > maxPending+maxFrame {
		t.Errorf("%d bytes are waiting", len(l.mu.buf))
	}
	l.mu.Unlock()
	l.file.Unlock()
	kept := 0
	if err := l.Read(t.Context(), Query{}, func(Record) error { kept++; return nil }); err != nil {
		t.Fatal(err)
	}
	if l.Dropped() == 0 || kept+int(l.Dropped()) != n {
		t.Errorf("%d kept, %d dropped of %d", kept, l.Dropped(), n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(appendFrame(nil, nil, &Record{Function: "f", Text: "x"}, "x")[frameHead:])
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, ok := split(data); ok {
			r := v.record()
			again, ok := split(appendFrame(nil, nil, &r, r.Text)[frameHead:])
			if !ok && len(r.Text) < maxText {
				t.Error("does not read back")
			}
			_ = again
		}
		frameLen(data)
	})
}

package telemetry_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
	"github.com/ebb-run/ebb/internal/seal"
	"github.com/ebb-run/ebb/internal/telemetry"
)

func openLogs(t testing.TB, dir string, o telemetry.LogOptions) *telemetry.Logs {
	t.Helper()
	l, err := telemetry.OpenLogs(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

var at = time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC)

func line(invocation, text string) telemetry.Record {
	return telemetry.Record{Time: at, Tenant: "default", App: "shop", Stage: "dev", Function: "shop-dev-hello", Instance: "i-1",
		Invocation: invocation, Kind: telemetry.KindLine, Text: text}
}

func read(t testing.TB, l *telemetry.Logs, q telemetry.Query) []telemetry.Record {
	t.Helper()
	var out []telemetry.Record
	if err := l.Read(t.Context(), q, func(r telemetry.Record) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func texts(rs []telemetry.Record) (out []string) {
	for _, r := range rs {
		out = append(out, r.Text)
	}
	return out
}

// size is that of all segments.
func size(t testing.TB, dir string) (bytes int64, files int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if info, err := os.Stat(n); err == nil {
			bytes += info.Size()
		}
	}
	return bytes, len(names)
}

func TestLogs_ReadBackWhatWasWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLogs(t, dir, telemetry.LogOptions{})
	want := []telemetry.Record{
		{Time: at, Tenant: "default", App: "shop", Stage: "dev", Function: "f", Instance: "i", Invocation: "1", Kind: telemetry.KindStart, Text: "START"},
		{Time: at.Add(1), Function: "f", Kind: telemetry.KindLine, Text: "tabs\tand \x00 bytes \xff\xfe and ünï"},
		{Time: at.Add(2), Text: ""},
		{Time: at.Add(3), Text: "two\nlines"},
	}
	l.Write(want[:2]...)
	l.Write(want[2:]...)
	for range 2 {
		if got := read(t, l, telemetry.Query{}); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openLogs(t, dir, telemetry.LogOptions{})
	}
	if n := l.Dropped(); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

func TestLogs_LongLinesAreCutIntoSeveral(t *testing.T) {
	t.Parallel()
	l := openLogs(t, t.TempDir(), telemetry.LogOptions{})
	text := strings.Repeat("ü€x", 200_000) // 1.2 MB
	l.Write(line("1", text), line("1", "after"))
	got := read(t, l, telemetry.Query{})
	if len(got) < 5 || got[len(got)-1].Text != "after" {
		t.Fatalf("%d records", len(got))
	}
	for _, r := range got {
		if len(r.Text) > 256<<10 || strings.ToValidUTF8(r.Text, "?") != r.Text {
			t.Errorf("a piece of %d bytes is cut inside a character or too long", len(r.Text))
		}
	}
	if strings.Join(texts(got), "") != text+"after" {
		t.Error("text was changed")
	}
}

func TestRead_SelectsByQuery(t *testing.T) {
	t.Parallel()
	l := openLogs(t, t.TempDir(), telemetry.LogOptions{})
	for i := range 10 {
		r := line(fmt.Sprint(i%2), fmt.Sprint(i))
		r.Time = at.Add(time.Duration(i) * time.Second)
		if i >= 5 {
			r.Function, r.Stage, r.App, r.Tenant = "other", "prod", "app2", "t2"
		}
		l.Write(r)
	}
	for name, c := range map[string]struct {
		q    telemetry.Query
		want string
	}{
		"all":          {telemetry.Query{}, "0123456789"},
		"function":     {telemetry.Query{Function: "other"}, "56789"},
		"stack":        {telemetry.Query{Tenant: "default", App: "shop", Stage: "dev"}, "01234"},
		"wrong stage":  {telemetry.Query{Tenant: "default", App: "shop", Stage: "prod"}, ""},
		"invocation":   {telemetry.Query{Invocation: "1"}, "13579"},
		"since":        {telemetry.Query{Since: at.Add(7 * time.Second)}, "789"},
		"tail":         {telemetry.Query{Tail: 3}, "789"},
		"tail of all":  {telemetry.Query{Tail: 30}, "0123456789"},
		"tail of some": {telemetry.Query{Tail: 2, Function: "shop-dev-hello", Invocation: "0"}, "24"},
		"none":         {telemetry.Query{Tail: -1}, ""},
	} {
		if got := strings.Join(texts(read(t, l, c.q)), ""); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
	stop := errors.New("stop")
	if err := l.Read(t.Context(), telemetry.Query{}, func(telemetry.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Read(ctx, telemetry.Query{}, func(telemetry.Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLogs_StayInBoundsAndKeepTheNewest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const bound = 1 << 20
	l := openLogs(t, dir, telemetry.LogOptions{MaxBytes: bound, SegmentBytes: 100_000})
	text := strings.Repeat("x", 900)
	const n = 5000
	for i := range n {
		l.Write(line(fmt.Sprint(i), text))
		if i%100 == 0 {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			if b, _ := size(t, dir); b > bound {
				t.Fatalf("%d bytes after %d records", b, i)
			}
		}
	}
	l.Write(line("long", strings.Repeat("y", 250_000))) // longer than a segment
	got := read(t, l, telemetry.Query{})
	b, files := size(t, dir)
	t.Logf("%d records in %d bytes, %d files", len(got), b, files)
	if b > bound || b < bound*7/10 || files < 8 {
		t.Errorf("%d bytes in %d files", b, files)
	}
	if got[len(got)-1].Invocation != "long" {
		t.Error("the last record is not there")
	}
	got = got[:len(got)-1]
	for i, r := range got {
		if want := fmt.Sprint(n - len(got) + i); r.Invocation != want {
			t.Fatalf("record %d is %s, want %s", i, r.Invocation, want)
		}
	}
	if got := read(t, l, telemetry.Query{Tail: 400}); len(got) != 400 || got[0].Invocation != fmt.Sprint(n-399) {
		t.Errorf("tail over segments: %d from %s", len(got), got[0].Invocation)
	}
	// The bound holds over restarts, and is tightened by them.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLogs(t, dir, telemetry.LogOptions{MaxBytes: bound, SegmentBytes: 100_000})
	l.Write(line("new", "x"))
	if got := read(t, l, telemetry.Query{}); got[len(got)-1].Invocation != "new" {
		t.Error("the record after a restart is not there")
	}
	if b, _ := size(t, dir); b > bound {
		t.Errorf("%d bytes after a restart", b)
	}
}

func TestOpenLogs_SkipsATornTail(t *testing.T) {
	t.Parallel()
	for name, box := range map[string]*seal.Box{"clear": nil, "sealed": seal.New().Box("logs")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			skipsATornTail(t, telemetry.LogOptions{Seal: box})
		})
	}
}

func skipsATornTail(t *testing.T, o telemetry.LogOptions) {
	t.Helper()
	for name, tear := range map[string]func(b []byte) []byte{
		"half a record":     func(b []byte) []byte { return b[:len(b)-7] },
		"part of a head":    func(b []byte) []byte { return append(b, 40, 0, 0) },
		"a head alone":      func(b []byte) []byte { return append(b, 40, 0, 0, 0, 1, 2, 3, 4) },
		"zeros":             func(b []byte) []byte { return append(b, make([]byte, 4096)...) },
		"a changed byte":    func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"an absurd length":  func(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3) },
		"a torn file start": func([]byte) []byte { return []byte("ebb-l") },
		"nothing":           func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l := openLogs(t, dir, o)
			l.Write(line("1", "one"), line("2", "two"), line("3", "three"))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "0000000000000001.log")
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			torn := tear(slices.Clone(data))
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			l = openLogs(t, dir, o)
			l.Write(line("4", "four"))
			want := []string{"one", "two", "three", "four"}
			switch {
			case len(torn) < 20: // not even the head
				want = want[3:]
			case len(torn) <= len(data):
				want = []string{"one", "two", "four"}
			}
			for range 2 {
				if got := texts(read(t, l, telemetry.Query{})); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
				_ = l.Close()
				l = openLogs(t, dir, o)
			}
		})
	}
}

func TestOpenLogs_RefusesANewerFormatUntouched(t *testing.T) {
	t.Parallel()
	for text, code := range map[string]errs.Code{
		"ebb-logs 2\n....":   errs.Unsupported,
		"ebb-logs 10\n...":   errs.Unsupported,
		"something else":     errs.Failed,
		"ebb-logs \n garble": errs.Failed,
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "0000000000000007.log")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := telemetry.OpenLogs(dir, telemetry.LogOptions{})
		if errs.CodeOf(err) != code || !strings.Contains(err.Error(), path) || errs.HintOf(err) == "" {
			t.Errorf("%q: %v", text, err)
		}
		if data, _ := os.ReadFile(path); string(data) != text {
			t.Errorf("%q was changed", text)
		}
	}
}

func TestLogs_DamageInsideASegmentDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLogs(t, dir, telemetry.LogOptions{MaxBytes: 10 << 20, SegmentBytes: 1 << 20})
	for i := range 3000 {
		l.Write(line(fmt.Sprint(i), strings.Repeat("x", 1000)))
	}
	_ = l.Close()
	names, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, n := range []string{names[0], names[len(names)-1]} {
		data, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		data[5000] ^= 1
		if err := os.WriteFile(n, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before, files := size(t, dir)
	l = openLogs(t, dir, telemetry.LogOptions{MaxBytes: 10 << 20, SegmentBytes: 1 << 20})
	l.Write(line("new", "x"))
	got := read(t, l, telemetry.Query{})
	if len(got) < 900 || got[len(got)-1].Invocation != "new" || got[0].Invocation != "0" {
		t.Errorf("%d records", len(got))
	}
	if after, n := size(t, dir); after < before || n != files+1 {
		t.Errorf("%d bytes in %d files became %d in %d", before, files, after, n)
	}
}

func TestRead_FollowSeesNewRecords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLogs(t, dir, telemetry.LogOptions{MaxBytes: 1 << 20, SegmentBytes: 64 << 10})
	l.Write(line("1", "old"), line("1", "pending"))
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 4096)
	done := make(chan error, 1)
	go func() {
		done <- l.Read(ctx, telemetry.Query{Function: "shop-dev-hello", Follow: true, Tail: 1}, func(r telemetry.Record) error {
			got <- r.Text
			return nil
		})
	}()
	next := func(want string) {
		t.Helper()
		select {
		case s := <-got:
			if s != want {
				t.Fatalf("got %q, want %q", s, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q is not seen", want)
		}
	}
	next("pending")
	other := line("1", "not asked for")
	other.Function = "other"
	start := time.Now()
	l.Write(other, line("2", "new"))
	next("new")
	t.Logf("seen after %v", time.Since(start))
	// Over the ends of many segments, none twice, none left out.
	for i := range 300 {
		l.Write(line("3", fmt.Sprintf("%d %s", i, strings.Repeat("x", 900))))
		next(fmt.Sprintf("%d %s", i, strings.Repeat("x", 900)))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() {
		done <- l.Read(t.Context(), telemetry.Query{Follow: true, Tail: -1}, func(r telemetry.Record) error { got <- r.Text; return nil })
	}()
	// What is written last is seen before the end.
	for len(got) == 0 {
		l.Write(line("4", "until seen"))
		time.Sleep(time.Millisecond)
	}
	l.Write(line("5", "last"))
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	var last string
	for len(got) > 0 {
		last = <-got
	}
	if last != "last" {
		t.Errorf("the last seen is %q", last)
	}
}

func TestLogs_ManyWritersKeepTheOrderOfEach(t *testing.T) {
	t.Parallel()
	l := openLogs(t, t.TempDir(), telemetry.LogOptions{SegmentBytes: 256 << 10})
	const writers, invocations = 8, 200
	follow, cancel := context.WithCancel(t.Context())
	followed := make(chan int, 1)
	go func() {
		n := 0
		_ = l.Read(follow, telemetry.Query{Follow: true}, func(telemetry.Record) error { n++; return nil })
		followed <- n
	}()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range invocations {
				id := fmt.Sprintf("%d-%d", w, i)
				l.Write(line(id, "START"))
				l.Write(line(id, "a"), line(id, "b"))
				l.Write(line(id, "END"), line(id, "REPORT"))
			}
		})
	}
	wg.Wait()
	seen := map[string]string{}
	for _, r := range read(t, l, telemetry.Query{}) {
		seen[r.Invocation] += r.Text + " "
	}
	if len(seen) != writers*invocations {
		t.Errorf("%d invocations", len(seen))
	}
	for id, s := range seen {
		if s != "START a b END REPORT " {
			t.Fatalf("%s: %s", id, s)
		}
	}
	_ = l.Close()
	if n := <-followed; n != writers*invocations*5 {
		t.Errorf("the follower saw %d", n)
	}
	cancel()
}

func TestLogs_AreInTheFileSoonByThemselves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLogs(t, dir, telemetry.LogOptions{})
	l.Write(line("1", "x"))
	deadline := time.Now().Add(10 * time.Second)
	for {
		if b, _ := size(t, dir); b > 50 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not written")
		}
		time.Sleep(time.Millisecond)
	}
	_ = l.Close()
	l.Write(line("1", "after the end"))
	if l.Dropped() != 1 {
		t.Errorf("%d dropped", l.Dropped())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkLogsWrite(b *testing.B) {
	l := openLogs(b, b.TempDir(), telemetry.LogOptions{})
	id := "8f507cfc-1111-4697-b07a-ac58fc914c95"
	batch := []telemetry.Record{
		line(id, telemetry.FormatStart(id, "$LATEST")),
		line(id, "2026-03-04T05:06:07.000Z\t"+id+"\tINFO\thello ann"),
		line(id, telemetry.FormatEnd(id)),
		line(id, telemetry.FormatReport(telemetry.Report{ID: id, Duration: 1234567, Billed: 1234567, MemoryMB: 128, MaxMemoryMB: 40})),
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		l.Write(batch...)
		// Reading writes out what waits: nothing is dropped, so that every call does its work.
		if n++; n%200 == 0 {
			read(b, l, telemetry.Query{Tail: -1})
		}
	}
	b.ReportMetric(float64(l.Dropped())/float64(b.N*len(batch)), "dropped/op")
}

func BenchmarkLogsRead(b *testing.B) {
	l := openLogs(b, b.TempDir(), telemetry.LogOptions{})
	for i := range 100_000 {
		l.Write(line(fmt.Sprint(i), "2026-03-04T05:06:07.000Z\tINFO\thello ann"))
		if i%10_000 == 0 {
			_ = l.Sync()
		}
	}
	for b.Loop() {
		read(b, l, telemetry.Query{Invocation: "77777"})
	}
}

func TestLogs_WalkTellsWhereRecordsAre(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := telemetry.OpenLogs(dir, telemetry.LogOptions{SegmentBytes: 2000, Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := l.Put(telemetry.Record{Time: time.Now(), Function: "f", Text: strconv.Itoa(i)}, telemetry.Record{Time: time.Now(), Function: "g", Text: "other"}); err != nil {
			t.Fatal(err)
		}
	}
	walk := func(l *telemetry.Logs) (all []telemetry.Position) {
		t.Helper()
		err := l.Walk(t.Context(), telemetry.Query{Function: "f"}, func(at telemetry.Position, r telemetry.Record) error {
			if r.Text != strconv.Itoa(len(all)) {
				t.Errorf("record %d is %s", len(all), r.Text)
			}
			if n := len(all); n > 0 && (at.Segment < all[n-1].Segment || at.Segment == all[n-1].Segment && at.Offset <= all[n-1].Offset) {
				t.Errorf("%+v comes after %+v", at, all[n-1])
			}
			all = append(all, at)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	first := walk(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = telemetry.OpenLogs(dir, telemetry.LogOptions{}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if again := walk(l); len(again) != 100 || !slices.Equal(first, again) {
		t.Errorf("%d places, then %d", len(first), len(again))
	}
}

func TestLogs_PutTellsWhatIsNotKept(t *testing.T) {
	t.Parallel()
	l, err := telemetry.OpenLogs(t.TempDir(), telemetry.LogOptions{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(telemetry.Record{Text: "x"}); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestLogs_SealedAreReadByTheirKeyAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box := seal.New().Box("logs")
	l := openLogs(t, dir, telemetry.LogOptions{Seal: box})
	long := strings.Repeat("canary ", 100_000) // several records
	l.Write(line("1", "canary"), line("2", long), line("3", "canary"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "0000000000000001.log")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "canary") || strings.Contains(string(data), "shop") {
		t.Error("a record is in clear")
	}
	got := strings.Join(texts(read(t, openLogs(t, dir, telemetry.LogOptions{Seal: box}), telemetry.Query{})), "")
	if got != "canary"+long+"canary" {
		t.Errorf("%d bytes are read", len(got))
	}
	for name, other := range map[string]*seal.Box{"none": nil, "another": seal.New().Box("logs")} {
		if got := read(t, openLogs(t, dir, telemetry.LogOptions{Seal: other}), telemetry.Query{}); len(got) > 0 {
			t.Errorf("%s key: %d records", name, len(got))
		}
	}
	// Whoever changes a record can make its checksum right, and not its seal.
	frame := data[len("ebb-logs 1\n"):]
	n := binary.LittleEndian.Uint32(frame)
	payload := frame[8 : 8+n]
	payload[len(payload)-1] ^= 1
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(t, openLogs(t, dir, telemetry.LogOptions{Seal: box}), telemetry.Query{}); len(got) > 0 {
		t.Errorf("after a change: %d records", len(got))
	}
}

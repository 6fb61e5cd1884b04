package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// memory is a Store that can be tampered with.
type memory struct {
	mu    sync.Mutex
	first uint64
	list  [][]byte
	fail  error
	after bool // it fails when it has written
}

func (m *memory) Append(_ context.Context, seq uint64, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil && !m.after {
		return m.fail
	}
	if seq != m.first+uint64(len(m.list))+1 {
		return errs.New(errs.Conflict, "grown")
	}
	m.list = append(m.list, bytes.Clone(data))
	return m.fail
}

func (m *memory) Last(context.Context) (uint64, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 {
		return m.first, nil, nil
	}
	return m.first + uint64(len(m.list)), m.list[len(m.list)-1], nil
}

func (m *memory) Read(_ context.Context, from uint64, _ bool, each func(uint64, []byte) error) error {
	m.mu.Lock()
	list := append([][]byte{}, m.list...)
	m.mu.Unlock()
	for i, data := range list {
		if seq := m.first + uint64(i) + 1; seq >= from && data != nil {
			if err := each(seq, data); err != nil {
				return err
			}
		}
	}
	return nil
}

func filled(t *testing.T, n int) (*memory, *Log) {
	t.Helper()
	m := &memory{}
	l := New(m, "changes", []byte("key"))
	for i := range n {
		if seq, err := l.Append(t.Context(), Record{Who: "local", What: "deploy", On: fmt.Sprint("app-", i), Outcome: Done}); err != nil || seq != uint64(i+1) {
			t.Fatal(seq, err)
		}
	}
	return m, l
}

func verify(t *testing.T, l *Log, noted Head, dropped bool) *Report {
	t.Helper()
	r, err := l.Verify(t.Context(), noted, dropped)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLog_FindsWhatWasTamperedWith(t *testing.T) {
	t.Parallel()
	_, whole := filled(t, 5)
	noted := verify(t, whole, Head{}, false)
	if noted.Records != 5 || noted.First != 1 || noted.Head.Seq != 5 || len(noted.Faults) > 0 {
		t.Fatalf("an untouched log: %+v", noted)
	}
	for name, c := range map[string]struct {
		do      func(m *memory)
		noted   Head
		dropped bool
		want    string // of the first fault; empty: none
	}{
		"a changed text":            {do: func(m *memory) { m.list[2] = bytes.Replace(m.list[2], []byte("app-2"), []byte("app-9"), 1) }, want: "record 3: its hash is not that of what it says"},
		"a changed hash":            {do: func(m *memory) { m.list[2][len(m.list[2])-1] ^= 1 }, want: "record 3: its hash"},
		"rubbish":                   {do: func(m *memory) { m.list[2] = []byte("rubbish") }, want: "record 3: it is no record"},
		"two that changed places":   {do: func(m *memory) { m.list[1], m.list[2] = m.list[2], m.list[1] }, want: "record 3 stands at the place of record 2"},
		"one that is gone":          {do: func(m *memory) { m.list[2] = nil }, want: "the records between 2 and 4 are gone"},
		"one taken out":             {do: func(m *memory) { m.list = append(m.list[:2], m.list[3:]...) }, want: "record 4 stands at the place of record 3"},
		"one of another key":        {do: func(m *memory) { forge(m, "another") }, want: "record 6: its hash"},
		"one of another log":        {do: func(m *memory) { _, _ = New(m, "denials", []byte("key")).Append(context.Background(), Record{}) }, want: "record 6: its hash"},
		"the first ones gone":       {do: func(m *memory) { m.first, m.list = 2, m.list[2:] }, want: "the records before 3 are gone"},
		"the first ones aged out":   {do: func(m *memory) { m.first, m.list = 2, m.list[2:] }, dropped: true},
		"the last ones gone":        {do: func(m *memory) { m.list = m.list[:3] }, noted: noted.Head, want: "record 5, which was noted, is gone"},
		"all gone":                  {do: func(m *memory) { m.list = nil }, noted: noted.Head, want: "record 5 is gone, and all others"},
		"nothing, with a head":      {do: func(*memory) {}, noted: Head{}},
		"another one where it was":  {do: func(m *memory) { m.list = m.list[:4]; more(m) }, noted: Head{5, noted.Head.Hash}, want: "record 5 is not the one that was noted"},
		"the one before cut, grown": {do: func(m *memory) { m.list[4] = nil; more(m) }, want: "the records between 4 and 6 are gone"},
	} {
		m, l := filled(t, 5)
		c.do(m)
		r := verify(t, l, c.noted, c.dropped)
		if got := strings.Join(r.Faults, "; "); (c.want == "") != (got == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: found %q, want %q", name, got, c.want)
		}
	}
}

func forge(m *memory, key string) {
	_, _ = New(m, "changes", []byte(key)).Append(context.Background(), Record{Who: "local", What: "nothing", Outcome: Done})
}

func more(m *memory) { forge(m, "key") }

func TestLog_GoesOnBehindWhatOthersAndFailuresHaveWritten(t *testing.T) {
	t.Parallel()
	m, l := filled(t, 2)
	other := New(m, "changes", []byte("key"))
	for range 3 {
		for _, one := range []*Log{other, l} {
			if _, err := one.Append(t.Context(), Record{What: "x"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.fail = errors.New("no answer")
	if _, err := l.Append(t.Context(), Record{What: "not written"}); err == nil {
		t.Error("a failed append is none")
	}
	m.after = true
	if _, err := l.Append(t.Context(), Record{What: "written, and not known to be"}); err == nil {
		t.Error("a failed append is none")
	}
	m.fail = nil
	if seq, err := l.Append(t.Context(), Record{What: "after"}); err != nil || seq != 10 {
		t.Error(seq, err)
	}
	if r := verify(t, l, Head{}, false); r.Records != 10 || len(r.Faults) > 0 {
		t.Errorf("%+v", r)
	}
}

func TestLog_KeepsRecordsSmall(t *testing.T) {
	t.Parallel()
	m := &memory{}
	l := New(m, "denials", nil)
	big := strings.Repeat("ü", 1<<20)
	if _, err := l.Append(t.Context(), Record{Who: big, What: big, On: big, App: big, From: big, Text: big, Outcome: big}); err != nil || len(m.list[0]) > 8<<10 {
		t.Errorf("%v: %d bytes", err, len(m.list[0]))
	}
}

func TestDenials_AFloodIsBoundedAndCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		d := NewDenials(New(m, "denials", nil), func(err error) { t.Error(err) })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.Run(ctx) }()
		d.Deny(Record{Who: "a", What: "w", On: "o"})
		synctest.Wait()
		if len(m.list) != 1 {
			t.Errorf("the first is not written at once: %d records", len(m.list))
		}
		for range 100_000 {
			d.Deny(Record{Who: "a", What: "w", On: "o"})
		}
		for i := range 10_000 {
			d.Deny(Record{Who: "a", What: "w", On: fmt.Sprint(i)})
		}
		time.Sleep(denialsEvery + time.Second)
		stop()
		<-done
		total, most := 0, 0
		for _, data := range m.list {
			var r Record
			body, _, _ := bytes.Cut(data, []byte("\n"))
			if err := json.Unmarshal(body, &r); err != nil || r.Outcome != Denied {
				t.Fatal(err, r)
			}
			total += max(r.Count, 1)
			most = max(most, r.Count)
		}
		if total != 110_001 || most != 100_000 || len(m.list) > maxDenials+2 || d.Written() != uint64(len(m.list)) {
			t.Errorf("%d records stand for %d denials, the largest for %d", len(m.list), total, most)
		}
	})
}

func TestDenials_WhatCannotBeWrittenIsWrittenLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: errors.New("full")}
		failed := 0
		d := NewDenials(New(m, "denials", nil), func(error) { failed++ })
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); d.Run(ctx) }()
		for i := range 1000 {
			d.Deny(Record{Who: "a", On: fmt.Sprint(i)})
		}
		synctest.Wait()
		m.mu.Lock()
		m.fail = nil
		m.mu.Unlock()
		time.Sleep(denialsEvery + time.Second)
		stop()
		<-done
		if failed == 0 || len(m.list) != maxDenials+1 {
			t.Errorf("%d failures, %d records", failed, len(m.list))
		}
	})
}

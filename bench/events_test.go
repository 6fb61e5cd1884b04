package main

import (
	"bufio"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestCaller_ReadsAnswersOfEitherFraming(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ in, want, fault string }{
		"length":  {"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nabc", "abc", ""},
		"chunks":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "abc", ""},
		"nothing": {"HTTP/1.1 204 No Content\r\n\r\n", "", ""},
		"refused": {"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nfull", "", "429 Too Many Requests: full"},
		"cut":     {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "", "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &caller{in: bufio.NewReader(strings.NewReader(row.in))}
			got, err := c.answer()
			if row.fault == "" && (err != nil || string(got) != row.want) || row.fault != "" && (err == nil || !strings.Contains(err.Error(), row.fault)) {
				t.Errorf("%q, %v; want %q, %q", got, err, row.want, row.fault)
			}
			if rest, _ := io.ReadAll(c.in); len(rest) > 0 {
				t.Errorf("%q is left for the next answer", rest)
			}
		})
	}
}

func TestRedis_ReadsEveryKindOfReply(t *testing.T) {
	t.Parallel()
	e := &redisEnd{in: bufio.NewReader(strings.NewReader("+OK\r\n:-7\r\n$-1\r\n*-1\r\n$3\r\na\r\n\r\n*2\r\n$1\r\nx\r\n*1\r\n:1\r\n-ERR no\r\n"))}
	for i, want := range []any{"OK", int64(-7), nil, nil, "a\r\n", []any{"x", []any{int64(1)}}} {
		if got, err := e.read(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("reply %d: %v, %v; want %v", i, got, err, want)
		}
	}
	if _, err := e.read(); err == nil || err.Error() != "ERR no" {
		t.Errorf("an error reply gives %v", err)
	}
}

// countingPeer gives each number that was published to one taker.
type countingPeer struct{ queue chan int64 }

func (p countingPeer) publisher() (publisher, error) { return p, nil }
func (p countingPeer) consumer() (consumer, error)   { return p, nil }
func (p countingPeer) cpu() float64                  { return 0 }
func (p countingPeer) stop()                         {}
func (p countingPeer) close()                        {}
func (p countingPeer) ack() error                    { return nil }
func (p countingPeer) publish(n int64) error         { p.queue <- n; return nil }

func (p countingPeer) take(most int) (out []int64, _ error) {
	for len(out) < most {
		select {
		case n := <-p.queue:
			out = append(out, n)
		default:
			return out, nil
		}
	}
	return out, nil
}

func TestThrough_TellsOnceWhenAllCame(t *testing.T) {
	t.Parallel()
	told := map[string]int{}
	if err := through(countingPeer{make(chan int64, 100)}, 500, 10, "rate", "cpu", func(figure string, v float64) { told[figure]++ }); err != nil {
		t.Fatal(err)
	}
	if told["rate"] != 1 || told["cpu"] != 1 {
		t.Errorf("told %v", told)
	}
}

func TestEvents_PrintNoFiguresOfWhatDidNotRun(t *testing.T) {
	t.Parallel()
	r := &report{NotRun: map[string]string{"redis": "there is no redis-server"}}
	r.figure(ebbServed, figLatency).Values = []float64{0.002, 0.004, 0.003}
	r.figure("redis", figEight).Values = []float64{12345}
	r.concludeEvents()
	var out strings.Builder
	r.printEvents(&out, false)
	for _, want := range []string{"3.00 ms (2.00-4.00)", "not run: there is no redis-server", "at most 3.00 ms  3.00 ms  PASS"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(out.String(), "12345") || len(r.Targets) != 1 {
		t.Errorf("printed:\n%s", out.String())
	}
}

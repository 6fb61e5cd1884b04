package load

import (
	"errors"
	"testing"
	"time"
)

func TestWhole_TakesOnlyRightAnswers(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nDate: x\r\n"
	for name, row := range map[string]struct {
		text string
		done bool
		err  error
	}{
		"nothing":              {"", false, nil},
		"half a head":          {"HTTP/1.1 200 OK\r\nContent-Le", false, nil},
		"half a body":          {head + "Content-Length: 5\r\n\r\nhel", false, nil},
		"whole":                {head + "Content-Length: 5\r\n\r\nhello", true, nil},
		"other case":           {head + "content-length:5\r\n\r\nhello", true, nil},
		"chunked":              {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", true, nil},
		"half of chunks":       {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nll", false, nil},
		"without a last chunk": {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false, nil},
		"chunks too short":     {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\n\r\n", true, errLength},
		"behind chunks":        {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nx", true, errExcess},
		"other length":         {head + "Content-Length: 4\r\n\r\nhell", true, errLength},
		"more bytes":           {head + "Content-Length: 5\r\n\r\nhello!", true, errExcess},
		"no length":            {head + "\r\nhello", true, errFraming},
		"other status":         {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nhello", true, errStatus},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done, err := whole([]byte(row.text), 5)
			if done != row.done || !errors.Is(err, row.err) {
				t.Errorf("done %v, error %v; want %v, %v", done, err, row.done, row.err)
			}
		})
	}
}

func TestResult_QuantilesAreOfAllAnswers(t *testing.T) {
	t.Parallel()
	r := &Result{Elapsed: 2 * time.Second}
	for i := range 100 {
		r.Latency = append(r.Latency, time.Duration(100-i))
	}
	r.sort()
	if r.Quantile(0.5) != 51 || r.Quantile(0.99) != 100 || r.Quantile(1) != 100 || r.Rate() != 50 {
		t.Errorf("p50 %d, p99 %d, p100 %d, rate %v; want 51, 100, 100, 50", r.Quantile(0.5), r.Quantile(0.99), r.Quantile(1), r.Rate())
	}
}

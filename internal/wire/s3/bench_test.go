package s3_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

// Objects of 1 MB from eight clients at once, over HTTP with signed bodies, each synced to the disk before it is acknowledged.
func BenchmarkPut1MB(b *testing.B) {
	e, _ := endpoint(b)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := sha256.Sum256(data)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}}
	b.SetBytes(int64(len(data)))
	b.SetParallelism(4)
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			benchRequest(b, client, e, "PUT", fmt.Sprintf("/bucket/put/%d", n.Add(1)), data, hex.EncodeToString(sum[:]))
		}
	})
}

// The same read, every block verified.
func BenchmarkGet1MB(b *testing.B) {
	e, _ := endpoint(b)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sum := sha256.Sum256(data)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10}}
	const objects = 64
	for i := range objects {
		benchRequest(b, client, e, "PUT", fmt.Sprintf("/bucket/get/%d", i), data, hex.EncodeToString(sum[:]))
	}
	nothing := sha256.Sum256(nil)
	b.SetBytes(int64(len(data)))
	b.SetParallelism(4)
	b.ResetTimer()
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			benchRequest(b, client, e, "GET", fmt.Sprintf("/bucket/get/%d", n.Add(1)%objects), nil, hex.EncodeToString(nothing[:]))
		}
	})
}

func benchRequest(b *testing.B, client *http.Client, e *wiretest.Endpoint, method, path string, data []byte, sum string) {
	r, err := http.NewRequestWithContext(context.Background(), method, e.URL+path, bytes.NewReader(data))
	if err != nil {
		b.Error(err)
		return
	}
	r.Header.Set("X-Amz-Content-Sha256", sum)
	if err := signer.SignHTTP(context.Background(), keys, r, sum, "s3", "us-east-1", time.Now()); err != nil {
		b.Error(err)
		return
	}
	resp, err := client.Do(r)
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Error(resp.Status, err)
	}
}

package dynamodb_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire/dynamodb"
	"github.com/ebb-run/ebb/internal/wire/sign"
	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

// table serves one table with n items in it, in partitions of 100; EBB_BENCH_SEALED=1 seals it.
func table(b *testing.B, n int) *wiretest.Endpoint {
	b.Helper()
	s := tables(b)
	if _, err := s.Create(b.Context(), "default", store.Table{Name: "things", Key: store.Key{Hash: store.Attr{Name: "h", Kind: store.S}, Range: store.Attr{Name: "r", Kind: store.N}}}); err != nil {
		b.Fatal(err)
	}
	var changes []store.Change
	for i := range n {
		it := store.Item{"h": store.Text("p" + strconv.Itoa(i/100)), "r": store.Num(strconv.Itoa(i % 100)), "x": store.Text(strings.Repeat("x", 100))}
		changes = append(changes, store.Change{Table: "things", Key: it, Apply: func(store.Item) (store.Item, error) { return it, nil }})
		if len(changes) == 5000 || i == n-1 {
			if err := s.Write(b.Context(), "default", changes); err != nil {
				b.Fatal(err)
			}
			changes = nil
		}
	}
	return wiretest.New(b, dynamodb.New(s))
}

var client32 = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func ask(b *testing.B, e *wiretest.Endpoint, op, body string) {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, e.URL+"/", strings.NewReader(body))
	if err != nil {
		b.Error(err)
		return
	}
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+op)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	sign.Sign(r, []byte(body), sign.Credentials{AccessKey: wiretest.AccessKey, Secret: wiretest.SecretKey}, wiretest.Region, "dynamodb", time.Now())
	resp, err := client32.Do(r)
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		b.Error(string(answer))
	}
}

func BenchmarkPutItem(b *testing.B) {
	e := table(b, 0)
	var n atomic.Int64
	b.SetParallelism(16) // 32 connections on two processors
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			ask(b, e, "PutItem", fmt.Sprintf(`{"TableName":"things","Item":{"h":{"S":"p%d"},"r":{"N":"%d"},"x":{"S":"%0100d"}}}`, i%1000, i, i))
		}
	})
}

func BenchmarkGetItem(b *testing.B) {
	e := table(b, 10_000)
	for i := 0; b.Loop(); i++ {
		ask(b, e, "GetItem", fmt.Sprintf(`{"TableName":"things","Key":{"h":{"S":"p%d"},"r":{"N":"%d"}}}`, i%100, i%100))
	}
}

// EBB_BENCH_ITEMS sets how many items the table of the Query has.
func BenchmarkQuery(b *testing.B) {
	n, _ := strconv.Atoi(os.Getenv("EBB_BENCH_ITEMS"))
	n = max(n, 10_000)
	e := table(b, n)
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		ask(b, e, "Query", fmt.Sprintf(`{"TableName":"things","KeyConditionExpression":"h = :h and r >= :r","ExpressionAttributeValues":{":h":{"S":"p%d"},":r":{"N":"30"}},"Limit":20}`, i*7919%(n/100)))
	}
}

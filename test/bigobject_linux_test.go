package test

import (
	"bytes"
	"context"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

var objectMB = flag.Int("object.mb", 512, "size of the object in TestWire_ObjectsPassInLittleMemory, in MiB")

// stream is an object's data, which repeats at no round number.
type stream struct{ at, end int64 }

var streamed = func() []byte {
	block := make([]byte, 1<<20-3)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range block {
		block[i] = byte(r.Uint32())
	}
	return block
}()

func (s *stream) Read(p []byte) (int, error) {
	if s.at == s.end {
		return 0, io.EOF
	}
	from := streamed[s.at%int64(len(streamed)):]
	n := copy(p[:min(int64(len(p)), s.end-s.at)], from)
	s.at += int64(n)
	return n, nil
}

// Write wants what Read gives.
func (s *stream) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		from := streamed[s.at%int64(len(streamed)):]
		n := min(len(rest), len(from))
		if !bytes.Equal(rest[:n], from[:n]) {
			return 0, fmt.Errorf("other bytes at %d", s.at)
		}
		rest = rest[n:]
		s.at += int64(n)
	}
	return len(p), nil
}

// objectClient sends requests of S3 whose bodies are not signed.
type objectClient struct {
	t      *testing.T
	url    string
	keys   aws.Credentials
	signer *v4.Signer
}

func (c *objectClient) do(method, path string, body io.Reader, length int64) *http.Response {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, body)
	if err != nil {
		c.t.Fatal(err)
	}
	r.ContentLength = length
	const unsigned = "UNSIGNED-PAYLOAD"
	r.Header.Set("X-Amz-Content-Sha256", unsigned)
	if err := c.signer.SignHTTP(context.Background(), c.keys, r, unsigned, "s3", "us-east-1", time.Now()); err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Error(err)
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		c.t.Errorf("%s %s: %s %s", method, path, resp.Status, text)
		return nil
	}
	return resp
}

func (c *objectClient) put(path string, from, to int64) string {
	c.t.Helper()
	resp := c.do("PUT", path, io.NopCloser(&stream{from, to}), to-from)
	if resp == nil {
		return ""
	}
	resp.Body.Close()
	return resp.Header.Get("ETag")
}

// get reads an object and wants size bytes of the stream.
func (c *objectClient) get(path string, size int64) {
	c.t.Helper()
	resp := c.do("GET", path, nil, 0)
	if resp == nil {
		return
	}
	defer resp.Body.Close()
	s := &stream{}
	if n, err := io.Copy(s, resp.Body); err != nil || n != size {
		c.t.Errorf("%s: %d of %d bytes: %v", path, n, size, err)
	}
}

// multipart puts an object in parts, several at once.
func (c *objectClient) multipart(path string, size, part int64) {
	c.t.Helper()
	resp := c.do("POST", path+"?uploads", nil, 0)
	if resp == nil {
		return
	}
	var begun struct{ UploadId string } //nolint:revive // the element's name
	err := xml.NewDecoder(resp.Body).Decode(&begun)
	resp.Body.Close()
	if err != nil {
		c.t.Fatal(err)
	}
	tags := make([]string, (size+part-1)/part)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range next {
				tags[i] = c.put(fmt.Sprintf("%s?partNumber=%d&uploadId=%s", path, i+1, begun.UploadId), int64(i)*part, min(size, int64(i+1)*part))
			}
		})
	}
	for i := range tags {
		next <- i
	}
	close(next)
	wg.Wait()
	var doc strings.Builder
	doc.WriteString("<CompleteMultipartUpload>")
	for i, tag := range tags {
		fmt.Fprintf(&doc, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, tag)
	}
	doc.WriteString("</CompleteMultipartUpload>")
	if resp := c.do("POST", path+"?uploadId="+begun.UploadId, strings.NewReader(doc.String()), int64(doc.Len())); resp != nil {
		resp.Body.Close()
	}
}

var peakLine = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peak is the most memory that a process has had, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := peakLine.FindSubmatch(text)
	if m == nil {
		t.Fatalf("no peak in %s", text)
	}
	n, _ := strconv.ParseInt(string(m[1]), 10, 64)
	return n << 10
}

// An object passes in less than 100 MB of memory beyond what the server has when it does nothing, whatever its size.
func TestWire_ObjectsPassInLittleMemory(t *testing.T) {
	s, _, _, key := outside(t)
	_, access, secret := key("deploy")
	size := int64(*objectMB) << 20
	if testing.Short() {
		size = 64 << 20
	}
	c := &objectClient{t: t, url: s.Ready.AWS, keys: aws.Credentials{AccessKeyID: access, SecretAccessKey: secret}, signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })}
	if resp := c.do("PUT", "/big", nil, 0); resp != nil {
		resp.Body.Close()
	}
	before := peak(t, s.PID())
	timed := func(what string, bytes int64, f func()) {
		start := time.Now()
		f()
		t.Logf("%s: %.0f MB/s, at most %d MB of memory, of which %d at the start", what, float64(bytes)/1e6/time.Since(start).Seconds(), peak(t, s.PID())>>20, before>>20)
	}
	single := min(size, 5<<30) // S3's most of one request
	timed("put", single, func() { c.put("/big/single", 0, single) })
	timed("get", single, func() { c.get("/big/single", single) })
	timed("put in parts", size, func() { c.multipart("/big/parts", size, max(8<<20, size/1000)) })
	timed("get of parts", size, func() { c.get("/big/parts", size) })
	if used := peak(t, s.PID()) - before; used > 100<<20 {
		t.Errorf("%d MB of memory were used beyond %d", used>>20, before>>20)
	}
}

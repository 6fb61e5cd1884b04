package s3_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/store/fs"
	"github.com/ebb-run/ebb/internal/wire"
	"github.com/ebb-run/ebb/internal/wire/s3"
	"github.com/ebb-run/ebb/internal/wire/wiretest"
)

// open opens a store whose clock is now's; nil for the real one.
func open(t testing.TB, now func() time.Time) store.Objects {
	t.Helper()
	o, err := fs.Open(context.Background(), filepath.Join(t.TempDir(), "objects"), fs.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func authenticate(_ context.Context, key, _ string) (string, wire.Caller, error) {
	if key != wiretest.AccessKey {
		return "", wire.Caller{}, wire.ErrUnknownKey
	}
	return wiretest.SecretKey, wire.Caller{Tenant: "default", Account: wiretest.Account, Key: key, UserID: "test"}, nil
}

// endpoint serves S3 over a new store, with the bucket "bucket".
func endpoint(t testing.TB) (*wiretest.Endpoint, store.Objects) {
	t.Helper()
	o := open(t, nil)
	if err := o.CreateBucket(context.Background(), bucket, store.Bucket{}); err != nil {
		t.Fatal(err)
	}
	return wiretest.New(t, s3.New(s3.Options{Objects: o, Authenticate: authenticate})), o
}

var bucket = store.BucketID{Tenant: "default", Name: "bucket"}

// do sends a signed request and wants a status.
func do(t testing.TB, e *wiretest.Endpoint, method, path, body string, status int, header ...string) (http.Header, string) {
	t.Helper()
	h := map[string]string{}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	resp, text := e.Do(t, "s3", method, path, h, body)
	if resp.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d\n%s", method, path, resp.Status, status, text)
	}
	return resp.Header, text
}

// There is no replication: S3 says so of a bucket that has none.
func TestReplication_IsNoneAndIsRefused(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	if _, text := do(t, e, "GET", "/bucket?replication", "", 404); strings.Contains(text, "<Code>ReplicationConfigurationNotFoundError</Code>") {
		wiretest.Seen(t, "s3", "GetBucketReplication") // its answer is always that
	} else {
		t.Error(text)
	}
	if _, text := do(t, e, "PUT", "/bucket?replication", "<ReplicationConfiguration/>", 501); !strings.Contains(text, "<Code>NotImplemented</Code>") {
		t.Error(text)
	}
}

// The checksum that a part has is that of its upload; what a part comes with is checked whichever it is.
func TestUpload_CountsTheChecksumThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	h, text := do(t, e, "POST", "/bucket/k?uploads", "", 200)
	if h.Get("X-Amz-Checksum-Algorithm") != "" {
		t.Error("an upload that asked for no checksum is told of one")
	}
	id := between(t, text, "<UploadId>", "</UploadId>")
	part := fmt.Sprintf("/bucket/k?partNumber=1&uploadId=%s", id)
	if _, text := do(t, e, "PUT", part, "123456789", 400, "X-Amz-Checksum-Crc32", "AAAAAA=="); !strings.Contains(text, "<Code>BadDigest</Code>") {
		t.Error(text)
	}
	h, _ = do(t, e, "PUT", part, "123456789", 200, "X-Amz-Checksum-Crc32", "y/Q5Jg==")
	if h.Get("X-Amz-Checksum-Crc32") != "y/Q5Jg==" {
		t.Errorf("the part's checksum is not told: %v", h)
	}
	_, text = do(t, e, "POST", "/bucket/k?uploadId="+id, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"+h.Get("Etag")+"</ETag><ChecksumCRC32>y/Q5Jg==</ChecksumCRC32></Part></CompleteMultipartUpload>", 200)
	for _, want := range []string{"<ChecksumCRC64NVME>rosUhgp5mIg=</ChecksumCRC64NVME>", "<ChecksumType>FULL_OBJECT</ChecksumType>"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	_, text = do(t, e, "GET", "/bucket/k?attributes", "", 200, "X-Amz-Object-Attributes", "Checksum,ObjectParts")
	if !strings.Contains(text, "<Checksum><ChecksumCRC64NVME>rosUhgp5mIg=") || !strings.Contains(text, "<PartsCount>1</PartsCount>") {
		t.Error(text)
	}
}

func TestUpload_HoldsToItsChecksumType(t *testing.T) {
	t.Parallel()
	e, _ := endpoint(t)
	for _, c := range []struct{ algorithm, kind, want string }{
		{"SHA256", "FULL_OBJECT", "The FULL_OBJECT checksum type cannot be used with the sha256 checksum algorithm."},
		{"CRC64NVME", "COMPOSITE", "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm."},
		{"", "FULL_OBJECT", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."},
		{"CRC16", "", "Checksum algorithm provided is unsupported."},
	} {
		if _, text := do(t, e, "POST", "/bucket/k?uploads", "", 400, "X-Amz-Checksum-Algorithm", c.algorithm, "X-Amz-Checksum-Type", c.kind); !strings.Contains(text, "<Code>InvalidRequest</Code><Message>"+c.want) {
			t.Errorf("%s %s: %s", c.algorithm, c.kind, text)
		}
	}
	_, text := do(t, e, "POST", "/bucket/k?uploads", "", 200, "X-Amz-Checksum-Algorithm", "CRC32")
	id := between(t, text, "<UploadId>", "</UploadId>")
	if _, text := do(t, e, "PUT", "/bucket/k?partNumber=1&uploadId="+id, "x", 400, "X-Amz-Checksum-Sha1", "EfatjsUqKYSrqv6OsM7kWOF4L3c="); !strings.Contains(text, "Checksum Type mismatch occurred") {
		t.Error(text)
	}
	h, _ := do(t, e, "PUT", "/bucket/k?partNumber=1&uploadId="+id, "x", 200)
	complete := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + h.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"
	if _, text := do(t, e, "POST", "/bucket/k?uploadId="+id, complete, 400, "X-Amz-Checksum-Type", "FULL_OBJECT"); !strings.Contains(text, "The upload was created using the COMPOSITE checksum mode.") {
		t.Error(text)
	}
	if _, text := do(t, e, "POST", "/bucket/k?uploadId="+id, complete, 200, "X-Amz-Checksum-Type", "COMPOSITE"); !strings.Contains(text, "-1</ChecksumCRC32><ChecksumType>COMPOSITE</ChecksumType>") {
		t.Error(text)
	}
}

func between(t testing.TB, text, before, after string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, before)
	inner, _, whole := strings.Cut(rest, after)
	if !ok || !whole {
		t.Fatalf("no %s in %s", before, text)
	}
	return inner
}

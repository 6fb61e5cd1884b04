package s3

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/ebb-run/ebb/internal/checksum"
	"github.com/ebb-run/ebb/internal/store"
	"github.com/ebb-run/ebb/internal/wire"
)

// implied is the checksum that S3 makes of what comes without one: S3 guide, "Checking object integrity".
const implied = store.CRC64NVME

func checksumHeader(a store.Algorithm) string { return "X-Amz-Checksum-" + string(a) }

// claim is what a request says that its body is.
type claim struct {
	algorithm store.Algorithm // "" for none
	value     string          // "" when it comes behind the body
	md5       []byte
}

// claimed reads what a request says of its body: S3 guide, "Checking object integrity".
func claimed(c *wire.Call) (claim, error) {
	var out claim
	if text := header(c, "Content-Md5"); text != "" || c.Request.Header["Content-Md5"] != nil {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != md5.Size {
			return out, wire.Errorf("InvalidDigest", "The Content-MD5 you specified was invalid.")
		}
		out.md5 = raw
	}
	for _, a := range checksum.All() {
		value := header(c, checksumHeader(a))
		if value == "" && c.Request.Header.Values(checksumHeader(a)) == nil {
			continue
		}
		if out.algorithm != "" {
			return out, wire.Errorf("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		if raw, err := base64.StdEncoding.DecodeString(value); err != nil || len(raw) != checksum.New(a).Size() {
			return out, wire.Errorf("InvalidRequest", "Value for x-amz-checksum-%s header is invalid.", strings.ToLower(string(a)))
		}
		out.algorithm, out.value = a, value
	}
	if trailer := strings.ToLower(header(c, "X-Amz-Trailer")); out.algorithm == "" && trailer != "" {
		for _, a := range checksum.All() {
			if trailer == strings.ToLower(checksumHeader(a)) {
				out.algorithm = a
			}
		}
		if out.algorithm == "" {
			return out, wire.Errorf("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
		}
	}
	named := strings.ToUpper(header(c, "X-Amz-Sdk-Checksum-Algorithm"))
	if named != "" && out.algorithm == "" && out.md5 == nil {
		return out, wire.Errorf("InvalidRequest", "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
	}
	return out, nil
}

// kept is the algorithm of the checksum that an object gets.
func (cl claim) kept() store.Algorithm {
	if cl.algorithm == "" {
		return implied
	}
	return cl.algorithm
}

// namedAlgorithm is the one that a request asks for by name; "" for none.
func namedAlgorithm(c *wire.Call) (store.Algorithm, error) {
	a := store.Algorithm(strings.ToUpper(header(c, "X-Amz-Checksum-Algorithm")))
	if a != "" && checksum.New(a) == nil {
		return "", wire.Errorf("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: %s", checksum.All())
	}
	return a, nil
}

// verify holds what was counted to what was claimed. It runs when the body has been read.
func (cl claim) verify(c *wire.Call, sums store.ObjectSums) error {
	if c.Length >= 0 && sums.Size != c.Length {
		return wire.Errorf("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
	}
	if cl.md5 != nil && !bytes.Equal(cl.md5, sums.MD5[:]) {
		return wire.Errorf("BadDigest", "The Content-MD5 you specified did not match what we received.")
	}
	if cl.algorithm == "" {
		return nil
	}
	value := cl.value
	if value == "" && c.Trailer != nil {
		value = strings.TrimSpace(c.Trailer().Get(checksumHeader(cl.algorithm)))
		if value == "" {
			return wire.Errorf("MalformedTrailerError", "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
	}
	if value != sums.Checksum {
		return wire.Errorf("BadDigest", "The %s you specified did not match the calculated checksum.", cl.algorithm)
	}
	return nil
}

// verifyBody holds a body that was read as a whole to what the request says of it.
func verifyBody(c *wire.Call) error {
	cl, err := claimed(c)
	if err != nil {
		return err
	}
	sums := store.ObjectSums{Size: int64(len(c.Body)), MD5: md5.Sum(c.Body)}
	if cl.algorithm != "" {
		h := checksum.New(cl.algorithm)
		h.Write(c.Body)
		sums.Checksum = base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	return cl.verify(c, sums)
}

// answerChecksum puts a checksum into an answer's header.
func answerChecksum(h http.Header, sum store.Checksum) {
	if sum.Algorithm == "" {
		return
	}
	h.Set(checksumHeader(sum.Algorithm), sum.Value)
	h.Set("X-Amz-Checksum-Type", checksumType(sum))
}

func checksumType(sum store.Checksum) string {
	if sum.Composite {
		return "COMPOSITE"
	}
	return "FULL_OBJECT"
}

// typeOf is checksumType, and "" where there is none.
func typeOf(sum store.Checksum) string {
	if sum.Algorithm == "" {
		return ""
	}
	return checksumType(sum)
}

// checksumFields are those of a document.
type checksumFields struct {
	ChecksumCRC32     string `xml:",omitempty"`
	ChecksumCRC32C    string `xml:",omitempty"`
	ChecksumCRC64NVME string `xml:",omitempty"`
	ChecksumSHA1      string `xml:",omitempty"`
	ChecksumSHA256    string `xml:",omitempty"`
	ChecksumSHA512    string `xml:",omitempty"`
	ChecksumMD5       string `xml:",omitempty"`
	ChecksumXXHASH64  string `xml:",omitempty"`
	ChecksumXXHASH3   string `xml:",omitempty"`
	ChecksumXXHASH128 string `xml:",omitempty"`
}

func (f *checksumFields) field(a store.Algorithm) *string {
	switch a {
	case store.CRC32:
		return &f.ChecksumCRC32
	case store.CRC32C:
		return &f.ChecksumCRC32C
	case store.CRC64NVME:
		return &f.ChecksumCRC64NVME
	case store.SHA1:
		return &f.ChecksumSHA1
	case store.SHA256:
		return &f.ChecksumSHA256
	case store.SHA512:
		return &f.ChecksumSHA512
	case store.MD5:
		return &f.ChecksumMD5
	case store.XXHash64:
		return &f.ChecksumXXHASH64
	case store.XXHash3:
		return &f.ChecksumXXHASH3
	case store.XXHash128:
		return &f.ChecksumXXHASH128
	}
	return new(string)
}

func fieldsOf(a store.Algorithm, value string) (f checksumFields) {
	*f.field(a) = value
	return f
}

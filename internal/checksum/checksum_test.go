package checksum_test

import (
	"encoding/hex"
	"testing"

	"github.com/ebb-run/ebb/internal/checksum"
	"github.com/ebb-run/ebb/internal/store"
)

// The sums are those that the algorithms' own catalogues and implementations give of "123456789".
func TestNew_CountsAsTheAlgorithmsAreDocumented(t *testing.T) {
	t.Parallel()
	for algorithm, want := range map[store.Algorithm]string{
		store.CRC32: "cbf43926", store.CRC32C: "e3069283", store.CRC64NVME: "ae8b14860a799888",
		store.SHA1:   "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
		store.SHA256: "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
		store.SHA512: "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274ad27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85",
		store.MD5:    "25f9e794323b453885f5181f1b624d0b",
	} {
		h := checksum.New(algorithm)
		_, _ = h.Write([]byte("1234"))
		_, _ = h.Write([]byte("56789"))
		if got := hex.EncodeToString(h.Sum(nil)); got != want || h.Size()*2 != len(want) {
			t.Errorf("%s: %s in %d bytes, want %s", algorithm, got, h.Size(), want)
		}
	}
	// xxHash specification: the sums of nothing, with the seed 0.
	for algorithm, want := range map[store.Algorithm]string{store.XXHash64: "ef46db3751d8e999", store.XXHash3: "2d06800538d394c2", store.XXHash128: "99aa06d3014798d86001c324468d497f"} {
		if got := hex.EncodeToString(checksum.New(algorithm).Sum(nil)); got != want {
			t.Errorf("%s of nothing: %s, want %s", algorithm, got, want)
		}
	}
	if checksum.New("CRC16") != nil {
		t.Error("there is a CRC16")
	}
	for _, a := range checksum.All() {
		if checksum.New(a) == nil {
			t.Errorf("there is no %s", a)
		}
	}
}

package certs_test

import (
	"encoding/pem"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/ebb-run/ebb/internal/certs"
)

func TestTrustStore_HoldsEveryCertificateOnce(t *testing.T) {
	t.Parallel()
	var bundle []byte
	for range 2 { // with one name
		src, err := certs.OpenCaptured(t.TempDir(), []string{"amazonaws.com"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = src.Close() })
		bundle = append(bundle, certs.PEM(src.CA())...)
	}
	bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")})...)
	store, err := certs.TrustStore(bundle)
	if err != nil {
		t.Fatal(err)
	}
	got, err := pkcs12.DecodeTrustStore(store, "")
	if err != nil || len(got) != 2 || got[0].Equal(got[1]) {
		t.Errorf("%d certificates, %v", len(got), err)
	}
}

package certs

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// TrustStore makes a PKCS#12 file (RFC 7292) of the certificates in PEM, which Java reads as a trust store without a password: each entry has the attribute
// trustedKeyUsage, without which Java passes it over. What is no certificate that can be read is left out, as programs do that read the PEM.
func TrustStore(bundle []byte) ([]byte, error) {
	var entries []pkcs12.TrustStoreEntry
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil { // some of old roots' serial numbers are refused
			entries = append(entries, pkcs12.TrustStoreEntry{Cert: c, FriendlyName: fmt.Sprintf("%03d %s", len(entries)+1, c.Subject.CommonName)})
		}
	}
	data, err := pkcs12.Passwordless.EncodeTrustStoreEntries(entries, "")
	if err != nil {
		return nil, fmt.Errorf("make the trust store: %w", err)
	}
	return data, nil
}

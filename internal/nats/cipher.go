package nats

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// serverKey is a key as the server takes it; "" for none.
func serverKey(key []byte) string { return hex.EncodeToString(key) }

// blockCipher deciphers the blocks of a stream (nats-server, server/filestore.go): beside N.blk is N.key, a nonce of 24 bytes and the block's
// own key, sealed by XChaCha20-Poly1305 with HMAC-SHA256(server's key, account, "stream:N"). The block is ciphered by XChaCha20 with its
// own key and the same nonce, from its start on.
type blockCipher struct{ key, account, stream string }

// open deciphers a block where it stands. Without a key it is as it is.
func (c blockCipher) open(data []byte, b block) error {
	if c.key == "" || len(data) == 0 {
		return nil
	}
	path := filepath.Join(filepath.Dir(b.path), fmt.Sprintf("%d.key", b.num))
	sealed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return damage(path + " is missing")
	}
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, []byte(c.key))
	_, _ = fmt.Fprintf(mac, "%s%s:%d", c.account, c.stream, b.num)
	wrap, err := chacha20poly1305.NewX(mac.Sum(nil))
	if err != nil {
		return err
	}
	const nonce = chacha20poly1305.NonceSizeX
	if len(sealed) < nonce {
		return damage(path + " is damaged")
	}
	own, err := wrap.Open(nil, sealed[:nonce], sealed[nonce:], nil)
	if err != nil {
		return damage(path + " is damaged, or another key has sealed it")
	}
	stream, err := chacha20.NewUnauthenticatedCipher(own, sealed[:nonce])
	if err != nil {
		return err
	}
	stream.XORKeyStream(data, data)
	return nil
}

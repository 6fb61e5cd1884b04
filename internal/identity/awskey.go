package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/ebb-run/ebb/internal/errs"
)

// AWSKeys makes the access keys that AWS's clients sign with. Nothing of them is kept: secrets and tokens follow from a key of the Node's.
type AWSKeys struct{ key []byte }

// NewAWSKeys derives from a secret key.
func NewAWSKeys(secret []byte) *AWSKeys {
	return &AWSKeys{key: mac(secret, "access keys of AWS clients, 1")}
}

// AWSCredentials are what a client signs with. Token is empty for keys that people hold.
type AWSCredentials struct{ AccessKey, Secret, Token string }

// Bearing is whose temporary credentials are.
type Bearing struct {
	Tenant   string    `json:"t"`
	App      string    `json:"a"`
	Stage    string    `json:"s"`
	Function string    `json:"f"`           // its full name
	Instance string    `json:"i,omitempty"` // the one that has them, where no other way tells it
	Expires  time.Time `json:"e"`
}

const (
	keyIDPrefix   = "AKIAEBB" // with a Key's ID it has 20 characters, as AWS's have
	tempIDPrefix  = "ASIAEBB"
	accessIDWidth = 20
	secretWidth   = 40
	tagBytes      = 16
)

// ErrEnded is what AWSKeys.Bearer refuses a token with whose time is over.
var ErrEnded = errs.New(errs.Unauthenticated, "the credentials have ended")

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, text)
	return h.Sum(nil)
}

func (k *AWSKeys) secret(of string) string {
	return base64.StdEncoding.EncodeToString(mac(k.key, "secret "+of))[:secretWidth]
}

// OfKey gives the credentials that belong to the Key with the ID.
func (k *AWSKeys) OfKey(id string) AWSCredentials {
	access := keyIDPrefix + strings.ToUpper(id)
	return AWSCredentials{AccessKey: access, Secret: k.secret(access)}
}

// KeyID is the ID of the Key that an access key belongs to, or "".
func KeyID(access string) string {
	id, ok := strings.CutPrefix(access, keyIDPrefix)
	if !ok || len(access) != accessIDWidth || strings.ToUpper(id) != id {
		return ""
	}
	return strings.ToLower(id)
}

// Temporary makes credentials.
func (k *AWSKeys) Temporary(b Bearing) AWSCredentials {
	b.Expires = b.Expires.UTC().Truncate(time.Second)
	plain, err := json.Marshal(b)
	if err != nil {
		panic(err) // texts and a time
	}
	token := base64.RawURLEncoding.EncodeToString(append(plain, mac(k.key, "token "+string(plain))[:tagBytes]...))
	return AWSCredentials{AccessKey: k.accessOf(token), Secret: k.secret(token), Token: token}
}

func (k *AWSKeys) accessOf(token string) string {
	return tempIDPrefix + base32.StdEncoding.EncodeToString(mac(k.key, "access "+token))[:accessIDWidth-len(tempIDPrefix)]
}

// maxToken bounds a token, which is checked before anything of it is known.
const maxToken = 4096

// Bearer says whose a token is, and the secret that belongs to it. ok is false where it was not made here for this access key; the
// error is ErrEnded where it was, but its time is over.
func (k *AWSKeys) Bearer(access, token string, now time.Time) (b Bearing, secret string, ok bool, err error) {
	data, decodeErr := base64.RawURLEncoding.Strict().DecodeString(token)
	if decodeErr != nil || len(token) > maxToken || len(data) <= tagBytes {
		return b, "", false, nil
	}
	plain, tag := data[:len(data)-tagBytes], data[len(data)-tagBytes:]
	if !hmac.Equal(tag, mac(k.key, "token "+string(plain))[:tagBytes]) || !hmac.Equal([]byte(access), []byte(k.accessOf(token))) {
		return b, "", false, nil
	}
	if json.Unmarshal(plain, &b) != nil {
		return b, "", false, nil
	}
	if !now.Before(b.Expires) {
		return b, "", true, ErrEnded
	}
	return b, k.secret(token), true, nil
}

// Secret is the secret of an access key that belongs to a Key.
func (k *AWSKeys) Secret(access string) string { return k.secret(access) }

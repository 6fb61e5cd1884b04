package backup

import (
	"bufio"
	"bytes"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/ebb-run/ebb/internal/errs"
)

// sealedMark begins every sealed stream (age-encryption.org/v1, "Header").
const sealedMark = "age-encryption.org/v1\n"

// Recipients reads who a stream is to be sealed for: public keys of age, one a line, and comments after #.
func Recipients(text string) ([]age.Recipient, error) {
	list, err := age.ParseRecipients(strings.NewReader(text))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the recipient: %w", err).
			WithHint("`age-keygen -o key.txt` makes a pair, and prints the public key, age1…, that belongs here. The file key.txt is for --identity.")
	}
	return list, nil
}

// Seal encrypts what is written to it for the recipients. Close writes the end, and leaves w open.
func Seal(w io.Writer, to []age.Recipient) (io.WriteCloser, error) { return age.Encrypt(w, to...) }

// Unseal gives a stream in clear: with the text of an identity file of age one that is sealed, and one that is not as it is.
func Unseal(r io.Reader, identity string) (plain io.Reader, sealed bool, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	head, _ := in.Peek(len(sealedMark))
	if !bytes.Equal(head, []byte(sealedMark)) {
		return in, false, nil
	}
	if identity == "" {
		return nil, true, errs.New(errs.Unauthenticated, "the backup is sealed").
			WithHint("Give the file with the secret key of one that it is sealed for: --identity key.txt.")
	}
	ids, err := age.ParseIdentities(strings.NewReader(identity))
	if err != nil {
		// The text holds a key: it is not repeated.
		return nil, true, errs.New(errs.Invalid, "the identity file holds no key of age").WithHint("It is what `age-keygen` writes, with a line AGE-SECRET-KEY-1….")
	}
	plain, err = age.Decrypt(in, ids...)
	if err != nil {
		return nil, true, errs.New(errs.Unauthenticated, "open the sealed backup: %w", err).WithHint("It is sealed for others, or its head is damaged.")
	}
	return plain, true, nil
}

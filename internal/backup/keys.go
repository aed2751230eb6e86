package backup

import (
	"bytes"
	"os"
	"strings"

	"filippo.io/age"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
)

// Recipients returns whom to encrypt to: each text is an age recipient (age1…), or a file
// with one a line.
func Recipients(texts []string) (all []age.Recipient, err error) {
	for _, text := range texts {
		data := []byte(text)
		if !strings.HasPrefix(text, "age1") {
			if data, err = os.ReadFile(text); err != nil {
				return nil, postern.Errorf(postern.Invalid, "%q is no age recipient, and no file with some: %w", text,
					err).
					WithHint("make a pair of keys with: age-keygen -o FILE; the recipient is its public key, age1…")
			}
		}
		some, err := age.ParseRecipients(bytes.NewReader(data))
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "read the age recipients: %w", err).
				WithHint("a recipient is a public key of age-keygen, age1…")
		}
		all = append(all, some...)
	}
	return all, nil
}

// Identities returns the age identities in a file that no other user can read.
func Identities(path string) ([]age.Identity, error) {
	if path == "" {
		return nil, nil
	}
	text, err := durable.ReadCredential(path)
	if err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "read the age identity: %w", err)
	}
	all, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "read the age identity in %s: it is none", path).
			WithHint("an identity is what age-keygen writes, AGE-SECRET-KEY-…")
	}
	return all, nil
}

package host

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"

	"github.com/postern-project/postern"
)

// Token admits a host once, and says which root it can trust: nothing that answers on
// the way is trusted because it answered first.
type Token struct {
	secret [16]byte          // random
	Root   [sha256.Size]byte // SHA-256 of the root's certificate
}

func newToken(root *x509.Certificate) Token {
	t := Token{Root: Fingerprint(root)}
	rand.Read(t.secret[:])
	return t
}

// tokenPrefix begins a token's text, so that a search for secrets finds one.
const tokenPrefix = "pjt_"

// Text returns the token as it is given to the host: 68 letters. It is a secret until it
// is used or expires.
func (t Token) Text() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.secret[:], t.Root[:]...))
}

// Hash returns what the server keeps of the token.
func (t Token) Hash() []byte {
	sum := sha256.Sum256(t.secret[:])
	return sum[:]
}

// ParseToken reads what Text returned, or returns an Invalid error, without the text.
func ParseToken(text string) (t Token, err error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if !ok || err != nil || len(raw) != len(t.secret)+len(t.Root) {
		return Token{}, postern.Errorf(postern.Invalid, "that is not a token that admits a host").
			WithHint("copy it whole: it begins with %s and has 68 letters", tokenPrefix)
	}
	copy(t.secret[:], raw)
	copy(t.Root[:], raw[len(t.secret):])
	return t, nil
}

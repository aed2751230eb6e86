package host

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"strings"

	"github.com/postern-project/postern"
)

// Token admits a host once, and says which root it can trust: nothing that answers on
// the way is trusted because it answered first. Its secret is the seed of a key pair. It is
// never sent: the host signs its request, and the server knows the public key's hash.
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

// key returns the key pair.
func (t Token) key() ed25519.PrivateKey {
	seed := sha256.Sum256(append([]byte("postern join token\x00"), t.secret[:]...))
	return ed25519.NewKeyFromSeed(seed[:])
}

// Public returns the public key, by which the server knows the token.
func (t Token) Public() []byte { return t.key().Public().(ed25519.PublicKey) }

// Sign returns the signature of a request, as it is sent: nobody on the way can put
// another key or name into it.
func (t Token) Sign(request []byte) []byte { return ed25519.Sign(t.key(), signed(request)) }

func signed(request []byte) []byte { return append([]byte("postern host join\x00"), request...) }

// verifyRequest fails unless the token of that public key signed a request.
func verifyRequest(public, request, signature []byte) error {
	if len(public) != ed25519.PublicKeySize || !ed25519.Verify(public, signed(request), signature) {
		return postern.Errorf(postern.Denied, "the request was not signed with a token").
			WithHint("join with the version of the program that the server has")
	}
	return nil
}

// Hash returns what the server keeps of the token.
func (t Token) Hash() []byte { return hashOf(t.Public()) }

func hashOf(public []byte) []byte {
	sum := sha256.Sum256(public)
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

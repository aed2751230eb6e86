package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"sync"

	"github.com/postern-project/postern"
	"go.step.sm/crypto/pemutil"
)

// Algorithm names a kind of key.
type Algorithm string

// The algorithms. Ed25519 is for SSH: browsers do not take it in certificates.
const (
	P256    Algorithm = "ecdsa-p256"
	P384    Algorithm = "ecdsa-p384"
	RSA3072 Algorithm = "rsa-3072"
	RSA4096 Algorithm = "rsa-4096"
	Ed25519 Algorithm = "ed25519"
)

var algorithms = []Algorithm{P256, P384, RSA3072, RSA4096, Ed25519}

func (a Algorithm) valid() bool { return slices.Contains(algorithms, a) }

func algorithmNames() string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = string(a)
	}
	return strings.Join(names, ", ")
}

// GenerateKey makes a private key. The empty algorithm is P256.
func GenerateKey(alg Algorithm) (crypto.Signer, error) {
	switch alg {
	case P256, "":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, postern.Errorf(postern.Invalid, "unknown key algorithm %q", alg).WithHint("one of %s",
		algorithmNames())
}

// EncodeKey returns the key as PKCS#8 in PEM. With a passphrase it is encrypted
// (PBES2: PBKDF2 and AES-256-CBC, as openssl pkcs8 reads it).
func EncodeKey(key crypto.PrivateKey, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
	}
	block, err := pemutil.Serialize(key, pemutil.WithPKCS8(true), pemutil.WithPassword(passphrase))
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "encrypt a private key: %w", err)
	}
	return pem.EncodeToMemory(block), nil
}

// ParseKey reads a private key in PEM: PKCS#8 (also encrypted, under the
// passphrase), PKCS#1 or SEC 1.
func ParseKey(data, passphrase []byte) (crypto.Signer, error) {
	block := findPEM(data, "PRIVATE KEY")
	if block == nil {
		return nil, postern.Errorf(postern.Invalid, "no private key in PEM form found")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		if len(passphrase) == 0 {
			return nil, postern.Errorf(postern.Invalid, "the private key is encrypted and no passphrase was given")
		}
		key, err = pemutil.DecryptPKCS8PrivateKey(block.Bytes, passphrase)
		if err == nil {
			key, err = x509.ParsePKCS8PrivateKey(key.([]byte))
		}
	default:
		return nil, postern.Errorf(postern.Invalid, "a private key of type %q is not supported",
			block.Type).WithHint("convert it with openssl pkcs8 -topk8")
	}
	if err != nil {
		// The cause may quote the key's bytes: leave it out.
		return nil,
			postern.Errorf(postern.Invalid, "the private key cannot be read: damaged, or the passphrase is wrong")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, postern.Errorf(postern.Invalid, "a %T cannot sign", key)
	}
	return signer, nil
}

// ReadKey reads a private key in PEM or PKCS#12. The passphrase is asked for only if
// the key is encrypted. Invalid if it is not the key of cert, unless that is nil.
func ReadKey(data []byte, cert *x509.Certificate, passphrase func() ([]byte, error)) (key crypto.Signer, err error) {
	packed := len(data) > 0 && data[0] == 0x30 // DER's SEQUENCE
	var secret []byte
	if packed || bytes.Contains(data, []byte("BEGIN ENCRYPTED PRIVATE KEY")) {
		if secret, err = passphrase(); err != nil {
			return nil, err
		}
	}
	if packed {
		key, _, _, err = ParsePKCS12(data, string(secret))
	} else {
		key, err = ParseKey(data, secret)
	}
	if err != nil {
		return nil, err
	}
	if cert != nil && !samePublic(key.Public(), cert.PublicKey) {
		return nil, postern.Errorf(postern.Invalid, "it is another certificate's key")
	}
	return key, nil
}

// findPEM returns the first block whose type ends in suffix.
func findPEM(data []byte, suffix string) *pem.Block {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil
		}
		if strings.HasSuffix(block.Type, suffix) {
			return block
		}
	}
}

// EncodeCertificates returns the certificates in PEM, one after the other.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}

// KeyHash returns the SHA-256 of the key's PKIX form in lower-case hex, as
// Certificate.Key holds it.
func KeyHash(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", postern.Errorf(postern.Invalid, "public key: %w", err)
	}
	return hashPKIX(der), nil
}

// hashPKIX is KeyHash of a key in PKIX form.
func hashPKIX(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// keyID returns the subject key identifier of a key in PKIX form: RFC 7093
// section 2, method 1.
func keyID(pkixDER []byte) ([]byte, error) {
	bits, err := subjectPublicKey(pkixDER)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(bits)
	return sum[:20], nil
}

// CheckKey returns an Invalid error that says in words why a public key is too
// weak, or too odd, to be certified.
func CheckKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return checkRSA(k)
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return postern.Errorf(postern.Invalid, "weak key: curve %s is not accepted",
			k.Curve.Params().Name).WithHint("use P-256, P-384 or P-521")
	case ed25519.PublicKey:
		return nil
	}
	return postern.Errorf(postern.Invalid, "a key of type %T is not accepted",
		pub).WithHint("use ECDSA P-256, RSA of 2048 bits or more, or Ed25519")
}

func checkRSA(k *rsa.PublicKey) error {
	hint := "make a new one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"
	switch bits := k.N.BitLen(); {
	case bits < 2048:
		return postern.Errorf(postern.Invalid, "weak key: RSA of %d bits, at least 2048 are needed",
			bits).WithHint("%s", hint)
	case bits > 8192:
		return postern.Errorf(postern.Invalid, "RSA of %d bits: at most 8192 are accepted", bits).WithHint("%s", hint)
	case k.E < 65537 || k.E&1 == 0:
		return postern.Errorf(postern.Invalid, "weak key: RSA exponent %d, an odd one of at least 65537 is needed",
			k.E).WithHint("%s", hint)
	case k.N.Bit(0) == 0 || new(big.Int).GCD(nil, nil, k.N, smallPrimes()).Cmp(big.NewInt(1)) != 0:
		return postern.Errorf(postern.Invalid, "broken key: the RSA modulus has a small factor").WithHint("%s", hint)
	case closePrimes(k.N):
		return postern.Errorf(postern.Invalid, "broken key: the factors of the RSA modulus are too close together").
			WithHint("%s", hint)
	case infineon(k.N):
		return postern.Errorf(postern.Invalid, "broken key: the RSA modulus has the mark of CVE-2017-15361").
			WithHint("%s", hint)
	}
	return nil
}

// smallPrimes is the product of the odd primes below 752, the range that the
// CA/Browser Forum's section 6.1.6 names.
var smallPrimes = sync.OnceValue(func() *big.Int {
	product := big.NewInt(1)
	for n := int64(3); n < 752; n += 2 {
		if p := big.NewInt(n); p.ProbablyPrime(0) {
			product.Mul(product, p)
		}
	}
	return product
})

// closePrimes reports whether a hundred rounds of Fermat's method factor n.
func closePrimes(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) == 0 {
		return true
	}
	one := big.NewInt(1)
	b, root := new(big.Int), new(big.Int)
	for range 100 {
		a.Add(a, one)
		b.Mul(a, a).Sub(b, n)
		if root.Sqrt(b); root.Mul(root, root).Cmp(b) == 0 {
			return true
		}
	}
	return false
}

// infineon reports whether n has the form of the primes of CVE-2017-15361
// (ROCA): modulo each of many small primes it is a power of 65537.
func infineon(n *big.Int) bool {
	mod := new(big.Int)
	for p := int64(3); p <= 167; p += 2 {
		bp := big.NewInt(p)
		if !bp.ProbablyPrime(0) {
			continue
		}
		want := mod.Mod(n, bp).Int64()
		power, found := int64(1), false
		for range p {
			if power == want {
				found = true
				break
			}
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}

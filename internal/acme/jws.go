package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha512" // of ES384 and ES512
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/postern-project/postern"
)

// algorithms are those that requests may be signed with, and what each hashes
// with.
var algorithms = map[string]crypto.Hash{
	"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512, "EdDSA": 0, "RS256": crypto.SHA256,
	"PS256": crypto.SHA256,
}

// curves are those of the algorithms over elliptic curves.
var curves = map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}

// maxBody bounds a request; a certificate request of a hundred names is smaller.
const maxBody = 128 << 10

// envelope is a JWS in flattened JSON serialization (RFC 8555 section 6.2).
type envelope struct {
	Protected string          `json:"protected"`
	Payload   string          `json:"payload"` // some clients leave out an empty one
	Signature string          `json:"signature"`
	Header    json.RawMessage `json:"header,omitempty"`
	Many      json.RawMessage `json:"signatures,omitempty"`
}

// protected is the header that is signed.
type protected struct {
	Alg      string           `json:"alg"`
	KeyID    string           `json:"kid"`
	Key      *jose.JSONWebKey `json:"jwk"`
	Nonce    string           `json:"nonce"`
	URL      string           `json:"url"`
	Critical json.RawMessage  `json:"crit"`
}

// message is a request whose signature was verified.
type message struct {
	base    string
	url     string
	key     *jose.JSONWebKey
	account *Account // nil when the request was signed by a key of its own
	order   *Order   // the account's that the path names, by its ID or its certificate
	payload []byte
	from    netip.Addr
	address string // the same, for events
}

// postAsGet reports whether the request only asks (RFC 8555 section 6.3).
func (m *message) postAsGet() bool { return len(m.payload) == 0 }

// decode reads the payload into v.
func (m *message) decode(v any) error {
	if err := json.Unmarshal(m.payload, v); err != nil {
		return malformed("the payload is not what this address takes: %v", err)
	}
	return nil
}

// signer says whose key may sign a request.
type signer int

const (
	byAccount signer = 1 << iota
	byKey
)

// verify reads a request and verifies all that RFC 8555 section 6 asks for.
func (s *Server) verify(r *http.Request, by signer) (*message, error) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/jose+json" {
		return nil, problem("malformed", http.StatusUnsupportedMediaType, "requests are application/jose+json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, malformed("the request is too large or broke off")
	}
	env, head, err := parseEnvelope(body)
	if err != nil {
		return nil, err
	}
	m := &message{base: s.base(r), from: s.cfg.Address(r)}
	m.address = written(m.from)
	m.url = m.base + strings.TrimPrefix(r.URL.RequestURI(), prefix)
	if subtle.ConstantTimeCompare([]byte(head.URL), []byte(m.url)) != 1 {
		return nil, unauthorized("the request is signed for %q, not for %q", head.URL, m.url)
	}
	nonce, ok := s.nonces.parse(head.Nonce)
	if !ok {
		return nil, badNonce()
	}
	if err := s.keyOf(r, m, head, by); err != nil {
		return nil, err
	}
	if m.payload, err = env.open(m.key, head.Alg); err != nil {
		return nil, err
	}
	// Only now: what is not signed writes nothing, and uses up no nonce.
	switch fresh, err := s.nonces.use(r.Context(), nonce, m.account != nil); {
	case err != nil:
		return nil, err
	case !fresh:
		return nil, badNonce()
	}
	return m, nil
}

func parseEnvelope(body []byte) (*envelope, *protected, error) {
	var env envelope
	if err := json.Unmarshal(body, &env); err != nil {
		return nil, nil, malformed("the request is no JWS: %v", err)
	}
	if env.Many != nil || env.Header != nil || env.Protected == "" || env.Signature == "" {
		return nil, nil,
			malformed("the request is no JWS in flattened form with one signature and a protected header alone")
	}
	raw, err := base64.RawURLEncoding.DecodeString(env.Protected)
	if err != nil {
		return nil, nil, malformed("the protected header is not base64url")
	}
	var head protected
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, nil, malformed("the protected header can't be read: %v", err)
	}
	if head.Critical != nil {
		return nil, nil, malformed("critical extensions are not known here")
	}
	return &env, &head, nil
}

// keyOf finds the key that the request claims to be signed with.
func (s *Server) keyOf(r *http.Request, m *message, head *protected, by signer) error {
	switch {
	case (head.Key != nil) == (head.KeyID != ""):
		return malformed("a request names its key by either jwk or kid")
	case head.Key != nil:
		if by&byKey == 0 {
			return malformed("this address takes requests signed by an account (kid)")
		}
		m.key = head.Key
		return checkKey(m.key)
	case by&byAccount == 0:
		return malformed("this address takes requests signed by a key (jwk)")
	}
	id, ok := strings.CutPrefix(head.KeyID, m.base+"/account/")
	if !ok {
		return accountDoesNotExist()
	}
	a, o, err := s.asked(r, id)
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
		return accountDoesNotExist()
	case err != nil:
		return err
	}
	if err := s.mayAct(m, &a); err != nil {
		return err
	}
	m.account, m.order, m.key = &a, o, new(jose.JSONWebKey)
	return m.key.UnmarshalJSON(a.Key)
}

// asked reads an account and, of its orders, the one that the request's path
// names.
func (s *Server) asked(r *http.Request, account string) (Account, *Order, error) {
	if serial := r.PathValue("serial"); serial != "" {
		return s.store.AccountAndCertified(r.Context(), account, serial)
	}
	if order := r.PathValue("order"); order != "" {
		return s.store.AccountAndOrder(r.Context(), account, order)
	}
	a, err := s.store.Account(r.Context(), account)
	return a, nil, err
}

// mayAct returns an error unless an account is valid and its person is active; one
// that no person stands for must be permitted where the request comes from, and for
// the names, if any.
func (s *Server) mayAct(m *message, a *Account, names ...string) error {
	switch {
	case a.Status != valid:
		return unauthorized("the account is %s", a.Status)
	case a.Person == "" && !s.cfg.Anonymous(m.from, names):
		return unauthorized("an account that belongs to no person may not do this from here")
	case a.Person != "" && a.PersonStatus != postern.PersonActive:
		return unauthorized("the person to whom the account belongs is %s", a.PersonStatus)
	}
	return nil
}

// open verifies the signature (RFC 7515 section 5.2) and returns the payload.
func (e *envelope) open(key *jose.JSONWebKey, alg string) ([]byte, error) {
	hash, ok := algorithms[alg]
	if !ok {
		return nil, badSignatureAlgorithm(alg)
	}
	signature, err := base64.RawURLEncoding.DecodeString(e.Signature)
	if err != nil {
		return nil, malformed("the signature is not base64url")
	}
	payload, err := base64.RawURLEncoding.DecodeString(e.Payload)
	if err != nil {
		return nil, malformed("the payload is not base64url")
	}
	if !holds(key.Key, alg, hash, []byte(e.Protected+"."+e.Payload), signature) {
		return nil, unauthorized("the signature does not hold")
	}
	return payload, nil
}

// holds reports whether a signature of that algorithm (RFC 7518 section 3, RFC
// 8037 section 3.1) holds. A key that is not the algorithm's made none.
func holds(key any, alg string, hash crypto.Hash, signed, signature []byte) bool {
	sum := signed // EdDSA hashes for itself
	if hash != 0 {
		h := hash.New()
		h.Write(signed)
		sum = h.Sum(nil)
	}
	switch pub := key.(type) {
	case *ecdsa.PublicKey:
		size := (pub.Curve.Params().BitSize + 7) / 8
		if alg != curves[pub.Curve] || len(signature) != 2*size {
			return false
		}
		return ecdsa.Verify(pub, sum, new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:]))
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(pub, sum, signature)
	case *rsa.PublicKey:
		return alg == "RS256" && rsa.VerifyPKCS1v15(pub, hash, sum, signature) == nil ||
			alg == "PS256" && rsa.VerifyPSS(pub, hash, sum, signature,
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}

// checkKey accepts the kinds and strengths of key that accounts have.
func checkKey(k *jose.JSONWebKey) error {
	if !k.IsPublic() {
		return badPublicKey("it is not a public key; treat it as lost")
	}
	switch pub := k.Key.(type) {
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() && pub.Curve != elliptic.P384() && pub.Curve != elliptic.P521() {
			return badPublicKey("its curve is not P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < 2048 || n > 8192 {
			return badPublicKey("RSA keys have 2048 to 8192 bits")
		}
		if pub.E != 65537 {
			return badPublicKey("RSA keys have the exponent 65537")
		}
	default:
		return badPublicKey("its kind is not known")
	}
	return nil
}

// thumbprint is a key's RFC 7638 thumbprint, base64url.
func thumbprint(k *jose.JSONWebKey) (string, error) {
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", badPublicKey("it has no thumbprint")
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// macs are the algorithms of external account bindings (RFC 7518 section 3.2).
var macs = []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}

// bindingOf verifies an external account binding (RFC 8555 section 7.3.4) and
// returns the ID of the external key that made it.
func (s *Server) bindingOf(ctx context.Context, m *message, raw json.RawMessage) (string, error) {
	env, head, err := parseEnvelope(raw)
	if err != nil {
		return "", err
	}
	if !slices.Contains(macs, jose.SignatureAlgorithm(head.Alg)) || head.Nonce != "" || head.URL != m.url ||
		head.KeyID == "" {
		return "",
			malformed("an external account binding is signed with HS256, HS384 or HS512 by the key that kid names, " +
				"for the address of new-account, without a nonce")
	}
	wrong := unauthorized("the external account binding does not hold")
	key, err := s.store.ExternalKey(ctx, head.KeyID)
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
		return "", wrong
	case err != nil:
		return "", err
	}
	jws, err := jose.ParseSignedCompact(env.Protected+"."+env.Payload+"."+env.Signature, macs)
	if err != nil {
		return "", wrong
	}
	payload, err := jws.Verify(key.Secret)
	if err != nil {
		return "", wrong
	}
	var bound jose.JSONWebKey
	if err := bound.UnmarshalJSON(payload); err != nil {
		return "", wrong
	}
	a, err := thumbprint(&bound)
	if err != nil {
		return "", err
	}
	b, err := thumbprint(m.key)
	if err != nil {
		return "", err
	}
	if a != b {
		return "", malformed("the external account binding is for another key")
	}
	return head.KeyID, nil
}

// sameKey reports whether two public keys are one.
func sameKey(a, b any) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

package attest

import (
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/postern-project/postern"
)

// MaxMetadata bounds a metadata file, bytes: the FIDO Alliance's has less than ten million.
const MaxMetadata = 64 << 20

// metadataHost is the name in the certificate that signs the FIDO Alliance's metadata. The
// CA above it issues certificates to others, too.
const metadataHost = "mds.fidoalliance.org"

//go:embed mds-roots.pem
var metadataRoots []byte

// MetadataRoots returns the roots of those who sign the FIDO Alliance's metadata.
func MetadataRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(metadataRoots)
	return pool
}

// Metadata is what the FIDO Alliance says of models of FIDO2 keys (FIDO Metadata Service
// 3.1). It is not changed once it was read.
type Metadata struct {
	models map[string]model // by AAGUID
}

// model is what is known of a model.
type model struct {
	description string
	roots       []*x509.Certificate
	bad         string // why keys in it are not to be trusted, in the words of the metadata; "" otherwise
}

// undesired are the reports of a model (section 3.1.4) after which a key in it may be known to
// others, or used without its person.
var undesired = []string{
	"USER_VERIFICATION_BYPASS", "ATTESTATION_KEY_COMPROMISE", "USER_KEY_REMOTE_COMPROMISE",
	"USER_KEY_PHYSICAL_COMPROMISE", "REVOKED",
}

// ReadMetadata reads a file of metadata: a JSON Web Signature (RFC 7515, compact) with the
// certificates of who signed it, which must lead to one of the roots at the time now, as it
// comes from https://mds3.fidoalliance.org. It fails with [postern.Invalid].
func ReadMetadata(text []byte, roots *x509.CertPool, now time.Time) (*Metadata, error) {
	payload, err := signedBy(text, roots, now)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "FIDO metadata: %w", err)
	}
	var blob struct {
		Entries []struct {
			AAGUID    string `json:"aaguid"`
			Statement struct {
				Description string   `json:"description"`
				Roots       []string `json:"attestationRootCertificates"`
			} `json:"metadataStatement"`
			Reports []struct {
				Status    string `json:"status"`
				Effective string `json:"effectiveDate"`
			} `json:"statusReports"`
		} `json:"entries"`
	}
	if err := json.Unmarshal(payload, &blob); err != nil {
		return nil, postern.Errorf(postern.Invalid, "FIDO metadata: %w", err)
	}
	m := &Metadata{models: make(map[string]model)}
	today := now.UTC().Format(time.DateOnly)
	for _, e := range blob.Entries {
		if e.AAGUID == "" { // of a kind that makes no keys for SSH
			continue
		}
		found := model{description: e.Statement.Description, roots: anchors(e.Statement.Roots)}
		for _, r := range e.Reports {
			if slices.Contains(undesired, r.Status) && r.Effective <= today {
				found.bad = r.Status
			}
		}
		m.models[strings.ToLower(e.AAGUID)] = found
	}
	return m, nil
}

// signedBy verifies who signed metadata, and returns it.
func signedBy(text []byte, roots *x509.CertPool, now time.Time) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(strings.TrimSpace(string(text)),
		[]jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.PS256})
	if err != nil {
		return nil, err
	}
	chain, err := signed.Signatures[0].Protected.Certificates(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, DNSName: metadataHost, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("the certificate that signed it: %w", err)
	}
	return signed.Verify(chain[0][0].PublicKey)
}

// anchors reads the certificates of a model's makers. Those that cannot be read vouch for nothing.
func anchors(list []string) (out []*x509.Certificate) {
	for _, text := range list {
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			continue
		}
		if c, err := x509.ParseCertificate(der); err == nil {
			out = append(out, c)
		}
	}
	return out
}

// MetadataFile reads metadata from a file, and again when the file or the date has changed:
// certificates expire, and reports take effect. It is safe for concurrent use, and reads
// once at a time, since the file may be large.
type MetadataFile struct {
	Path  string
	Roots *x509.CertPool // see [MetadataRoots]

	mu   sync.Mutex
	hash [sha256.Size]byte
	date string
	last *Metadata
}

// Read returns the metadata, nil if there is no such file.
func (f *MetadataFile) Read(now time.Time) (*Metadata, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.Open(f.Path)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxMetadata+1))
	if err == nil && len(text) > MaxMetadata {
		err = postern.Errorf(postern.Invalid, "%s is larger than %d MiB", f.Path, MaxMetadata>>20)
	}
	if err != nil {
		return nil, err
	}
	hash, date := sha256.Sum256(text), now.UTC().Format(time.DateOnly)
	if f.last == nil || hash != f.hash || date != f.date {
		m, err := ReadMetadata(text, f.Roots, now)
		if err != nil {
			return nil, err
		}
		f.hash, f.date, f.last = hash, date, m
	}
	return f.last, nil
}

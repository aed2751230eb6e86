package attest

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
)

// alliance signs metadata as the FIDO Alliance does.
type alliance struct {
	root, leaf *x509.Certificate
	key        *ecdsa.PrivateKey
}

func newAlliance(t testing.TB, name string) alliance {
	t.Helper()
	root, rootKey := posterntest.Issue(t, nil, nil, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.NotBefore, c.NotAfter = at.Add(-time.Hour), at.AddDate(1, 0, 0)
	})
	leaf, key := posterntest.Issue(t, root, rootKey, func(c *x509.Certificate) {
		c.DNSNames, c.NotBefore, c.NotAfter = []string{name}, at.Add(-time.Hour), at.AddDate(1, 0, 0)
	})
	return alliance{root, leaf, key}
}

func (a alliance) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// sign returns a file with entries.
func (a alliance) sign(t testing.TB, entries ...map[string]any) []byte {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: a.key}, (&jose.SignerOptions{}).
		WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(a.leaf.Raw)}))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(map[string]any{"no": 1, "nextUpdate": "2026-12-01", "entries": entries})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(text)
}

// entry describes a model whose makers' roots are in PEM.
func entry(aaguid, description string, roots []byte, reports ...map[string]string) map[string]any {
	var list []string
	for block, rest := pem.Decode(roots); block != nil; block, rest = pem.Decode(rest) {
		list = append(list, base64.StdEncoding.EncodeToString(block.Bytes))
	}
	return map[string]any{
		"aaguid": aaguid, "statusReports": reports,
		"metadataStatement": map[string]any{"description": description, "attestationRootCertificates": list},
	}
}

const yubiKey5 = "cb69481e-8ff7-4039-93ec-0a2729a154a8"

func TestMetadata(t *testing.T) {
	fido, v := newAlliance(t, metadataHost), read(t, "yubikey-5")
	report := func(status, effective string) map[string]string {
		return map[string]string{"status": status, "effectiveDate": effective}
	}
	for name, c := range map[string]struct {
		entry map[string]any
		roots *x509.CertPool
		model string
		words string // of the refusal; "": none
	}{
		"its maker's roots": {entry(yubiKey5, "YubiKey 5", makersRoots), x509.NewCertPool(), "YubiKey 5", ""},
		"in capitals": {
			entry(strings.ToUpper(yubiKey5), "YubiKey 5", makersRoots), x509.NewCertPool(), "YubiKey 5", "",
		},
		"another model": {
			entry("73bb0cd4-e502-49b8-9c6f-b59445bf720b", "YubiKey FIPS", makersRoots), x509.NewCertPool(), "",
			"no known maker",
		},
		"a model that is not in it": {entry("", "", nil), Roots(), "", ""},
		"certified": {
			entry(yubiKey5, "YubiKey 5", nil, report("FIDO_CERTIFIED_L2", "2020-01-01")), Roots(), "YubiKey 5", "",
		},
		"revoked": {
			entry(yubiKey5, "YubiKey 5", makersRoots, report("FIDO_CERTIFIED", "2020-01-01"),
				report("REVOKED", "2026-01-01")),
			Roots(), "", "REVOKED",
		},
		"compromised, and then certified again": {
			entry(yubiKey5, "YubiKey 5", nil, report("ATTESTATION_KEY_COMPROMISE", ""),
				report("FIDO_CERTIFIED", "2026-02-01")),
			Roots(), "", "ATTESTATION_KEY_COMPROMISE",
		},
		"revoked from next year on": {
			entry(yubiKey5, "YubiKey 5", nil, report("REVOKED", "2027-01-01")), Roots(), "YubiKey 5", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := ReadMetadata(fido.sign(t, c.entry), fido.roots(), at)
			if err != nil {
				t.Fatal(err)
			}
			k, err := Check(v.attestation, v.challenge, v.key, Trust{Roots: c.roots, Metadata: m}, at)
			if c.words == "" && (err != nil || k.Model != c.model) {
				t.Errorf("model %q, %v; want %q", k.Model, err, c.model)
			}
			if c.words != "" && (postern.CodeOf(err) != postern.Denied || !strings.Contains(err.Error(), c.words)) {
				t.Errorf("%v, want %q", err, c.words)
			}
		})
	}
}

func TestMetadataOfOthers(t *testing.T) {
	fido, other := newAlliance(t, metadataHost), newAlliance(t, metadataHost)
	neighbour := newAlliance(t, "www.example.com")
	good := fido.sign(t, entry(yubiKey5, "YubiKey 5", makersRoots))
	parts := strings.Split(string(good), ".")
	forged := other.sign(t, entry(yubiKey5, "YubiKey 5", nil))
	for name, c := range map[string]struct {
		text  []byte
		roots *x509.CertPool
		at    time.Time
	}{
		"empty":                     {nil, fido.roots(), at},
		"words":                     {[]byte("metadata"), fido.roots(), at},
		"signed by another":         {forged, fido.roots(), at},
		"by another of the same CA": {neighbour.sign(t), neighbour.roots(), at},
		"with the certificate of another": {
			[]byte(parts[0] + "." + strings.SplitN(string(forged), ".", 2)[1]),
			fido.roots(), at,
		},
		"cut off": {good[:len(good)-8], fido.roots(), at},
		"changed": {
			[]byte(parts[0] + "." + parts[1][:40] + "A" + parts[1][41:] + "." + parts[2]),
			fido.roots(), at,
		},
		"without a signature":          {[]byte("eyJhbGciOiJub25lIn0." + parts[1] + "."), fido.roots(), at},
		"years later":                  {good, fido.roots(), at.AddDate(50, 0, 0)},
		"of the FIDO Alliance's roots": {good, MetadataRoots(), at},
	} {
		if _, err := ReadMetadata(c.text, c.roots, c.at); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMetadataFile(t *testing.T) {
	fido := newAlliance(t, metadataHost)
	f := &MetadataFile{Path: filepath.Join(t.TempDir(), "fido-metadata.jwt"), Roots: fido.roots()}
	if m, err := f.Read(at); m != nil || err != nil {
		t.Errorf("no file: %v, %v", m, err)
	}
	for _, description := range []string{"YubiKey 5", "YubiKey 5 Series"} {
		if err := os.WriteFile(f.Path, fido.sign(t, entry(yubiKey5, description, nil)), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if m, err := f.Read(at); err != nil || m.models[yubiKey5].description != description {
				t.Errorf("%v, want %s", err, description)
			}
		}
	}
	revoked := entry(yubiKey5, "YubiKey 5", nil, map[string]string{"status": "REVOKED", "effectiveDate": "2026-12-01"})
	if err := os.WriteFile(f.Path, fido.sign(t, revoked), 0o600); err != nil {
		t.Fatal(err)
	}
	for day, bad := range map[time.Time]bool{
		time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC): false, time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC): true,
	} {
		if m, err := f.Read(day); err != nil || (m.models[yubiKey5].bad != "") != bad {
			t.Errorf("%s: %v, revoked: %t", day, err, !bad)
		}
	}
	if _, err := f.Read(at.AddDate(2, 0, 0)); err == nil {
		t.Error("a file is used whose signer's certificate has expired")
	}
	if err := os.WriteFile(f.Path, []byte("metadata"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(at); err == nil {
		t.Error("a damaged file is used")
	}
}

func FuzzMetadata(f *testing.F) {
	fido := newAlliance(f, metadataHost)
	f.Add(fido.sign(f, entry(yubiKey5, "YubiKey 5", makersRoots)))
	f.Add([]byte("eyJhbGciOiJub25lIn0.e30."))
	roots := x509.NewCertPool()
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := ReadMetadata(text, roots, at); err == nil {
			t.Error("accepted")
		}
	})
}

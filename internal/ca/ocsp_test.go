package ca_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/crypto/ocsp"
)

// ocspQuery returns a request about a certificate, with a nonce if there is one.
func ocspQuery(t testing.TB, c *ca.Issued, nonce []byte) []byte {
	t.Helper()
	der, err := ocsp.CreateRequest(c.Leaf, c.Chain[0], &ocsp.RequestOptions{Hash: crypto.SHA256})
	must(t, err)
	if nonce == nil {
		return der
	}
	var outer struct{ TBS asn1.RawValue }
	_, err = asn1.Unmarshal(der, &outer)
	must(t, err)
	inner, err := asn1.Marshal(nonce)
	must(t, err)
	type extension struct {
		ID    asn1.ObjectIdentifier
		Value []byte
	}
	exts, err := asn1.MarshalWithParams([]extension{{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}, inner}},
		"explicit,tag:2")
	must(t, err)
	tbs := asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(outer.TBS.Bytes, exts...)}
	der, err = asn1.Marshal(struct{ TBS asn1.RawValue }{tbs})
	must(t, err)
	return der
}

// ocspSigner returns the certificate that came with an answer.
func ocspSigner(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	r, err := ocsp.ParseResponse(der, nil)
	must(t, err)
	return r.Certificate
}

func TestOCSP(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{URL: "http://pki.example.com"})
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)
	ask := func(der []byte) *ocsp.Response {
		t.Helper()
		answer, err := a.OCSP(t.Context(), der)
		must(t, err)
		r, err := ocsp.ParseResponse(answer.DER, out.Chain[0])
		must(t, err)
		return r
	}
	if r := ask(ocspQuery(t, out, nil)); r.Status != ocsp.Good || r.NextUpdate.Sub(r.ThisUpdate).Minutes() != 65 {
		t.Errorf("before: %+v", r)
	}
	must(t, a.Revoke(t.Context(), out.Serial, postern.KeyCompromise, postern.Actor{}))
	if r := ask(ocspQuery(t, out, nil)); r.Status != ocsp.Revoked || r.RevocationReason != ocsp.KeyCompromise {
		t.Errorf("after: %+v", r)
	}
	never := *out
	leaf := *out.Leaf
	leaf.SerialNumber = big.NewInt(4711)
	never.Leaf = &leaf
	if r := ask(ocspQuery(t, &never, nil)); r.Status != ocsp.Revoked || r.RevocationReason != ocsp.CertificateHold ||
		r.RevokedAt.Unix() != 0 {
		t.Errorf("never issued: %+v", r)
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	answer, err := a.OCSP(t.Context(), ocspQuery(t, out, nonce))
	must(t, err)
	if !bytes.Contains(answer.DER, nonce) || !answer.NextUpdate.IsZero() {
		t.Error("the nonce is not in the answer, or the answer may be cached")
	}
	other, _ := newAuthority(t, ca.Config{})
	foreign, err := other.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)
	for name, c := range map[string]struct {
		der  []byte
		want string
	}{
		"another's certificate": {ocspQuery(t, foreign, nil), "unauthorized"},
		"rubbish":               {[]byte("x"), "malformed"},
		"nothing":               {nil, "malformed"},
		"a nonce too long":      {ocspQuery(t, out, make([]byte, 129)), "malformed"},
		"something behind":      {append(ocspQuery(t, out, nil), 0), "malformed"},
	} {
		answer, err := a.OCSP(t.Context(), c.der)
		must(t, err)
		if _, err := ocsp.ParseResponse(answer.DER, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestRevocationOverHTTP(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{URL: "http://pki.example.com/pki"})
	srv := httptest.NewServer(a.Handler(nil))
	defer srv.Close()
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)
	get := func(method, path string, body []byte) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequest(method, srv.URL+path, bytes.NewReader(body))
		must(t, err)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp, data
	}
	query := ocspQuery(t, out, nil)
	for _, path := range []string{
		base64.StdEncoding.EncodeToString(query),
		url.PathEscape(base64.StdEncoding.EncodeToString(query)), "/" + base64.StdEncoding.EncodeToString(query),
	} {
		resp, body := get("GET", "/pki/ocsp/"+path, nil)
		if resp.Header.Get("Content-Type") != "application/ocsp-response" ||
			resp.Header.Get("Cache-Control") != "public, no-transform, must-revalidate, max-age=60" {
			t.Errorf("headers %v", resp.Header)
		}
		if r, err := ocsp.ParseResponse(body, out.Chain[0]); err != nil || r.Status != ocsp.Good {
			t.Errorf("GET %s: %v, %v", path, r, err)
		}
	}
	resp, body := get("POST", "/pki/ocsp", query)
	if r, err := ocsp.ParseResponse(body, out.Chain[0]); err != nil || r.Status != ocsp.Good ||
		resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("POST: %v, %v, %v", r, err, resp.Header)
	}
	if resp, _ := get("PUT", "/pki/ocsp", query); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %s", resp.Status)
	}
	if _, body := get("POST", "/pki/ocsp", bytes.Repeat([]byte{0x30}, 1<<20)); len(body) != 5 {
		t.Errorf("a megabyte is answered by %x", body)
	}
	resp, body = get("GET", "/pki/crl/server.crl", nil)
	if _, err := x509.ParseRevocationList(body); err != nil ||
		resp.Header.Get("Content-Type") != "application/pkix-crl" || resp.Header.Get("ETag") == "" {
		t.Errorf("CRL: %v, %v", err, resp.Header)
	}
	if resp, _ := get("GET", "/crl/server.crl", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("CRL without the path of the URL: %s", resp.Status)
	}
	_, body = get("GET", "/pki/ca/server.cer", nil)
	if !bytes.Equal(body, out.Chain[0].Raw) {
		t.Error("the issuer's certificate is another one")
	}
	for _, path := range []string{
		"/pki/crl/none.crl", "/pki/crl/ssh-user.crl", "/pki/crl/server",
		"/other/crl/server.crl", "/pki/ca/ssh-user.cer",
	} {
		if resp, _ := get("GET", path, nil); resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
	if resp, _ := get("GET", "/pki/ssh/krl", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("KRL: %s", resp.Status)
	}
}

func TestOpenSSLAsksOCSP(t *testing.T) {
	openssl := posterntest.Need(t, "openssl")
	a, _ := newAuthority(t, ca.Config{URL: "http://pki.example.com"})
	srv := httptest.NewServer(a.Handler(nil))
	defer srv.Close()
	good, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	bad, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	must(t, a.Revoke(t.Context(), bad.Serial, postern.KeyCompromise, postern.Actor{}))
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"root.pem": ca.EncodeCertificates(good.Roots...), "issuer.pem": ca.EncodeCertificates(good.Chain[0]),
		"good.pem": ca.EncodeCertificates(good.Leaf), "bad.pem": ca.EncodeCertificates(bad.Leaf),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	for _, hash := range []string{"-sha1", "-sha256"} {
		for _, more := range [][]string{{}, {"-no_nonce"}} {
			cmd := exec.Command(openssl, append([]string{
				"ocsp", "-url", srv.URL + "/ocsp", "-CAfile", "root.pem",
				"-issuer", "issuer.pem", hash, "-cert", "good.pem", "-cert", "bad.pem",
			}, more...)...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			text := string(out)
			if err != nil || !strings.Contains(text, "Response verify OK") ||
				!strings.Contains(text, "good.pem: good") || !strings.Contains(text, "bad.pem: revoked") ||
				!strings.Contains(text, "Reason: keyCompromise") || strings.Contains(text, "WARNING") {
				t.Errorf("openssl ocsp %s %v: %v\n%s", hash, more, err, text)
			}
		}
	}
}

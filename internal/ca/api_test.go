package ca_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

// signServer serves the signing call over TLS that asks for a certificate and
// checks none, as Postern's HTTPS server does.
func signServer(t testing.TB, a *ca.Authority, cfg ca.APIConfig) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(ca.NewAPI(cfg, a, nil))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// sign posts a call, with a token or a client certificate if there is one.
func sign(t testing.TB, srv *httptest.Server, token string, client *ca.Issued, body any) (int, ca.SignAnswer, string) {
	t.Helper()
	data, ok := body.([]byte)
	if !ok {
		var err error
		data, err = json.Marshal(body)
		must(t, err)
	}
	req, err := http.NewRequest("POST", srv.URL+"/ca/sign", bytes.NewReader(data))
	must(t, err)
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	cfg := &tls.Config{InsecureSkipVerify: true}
	if client != nil {
		cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{client.Leaf.Raw}, PrivateKey: client.Key}}
	}
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	var answer ca.SignAnswer
	if resp.StatusCode == http.StatusCreated {
		must(t, json.Unmarshal(text, &answer))
	}
	return resp.StatusCode, answer, string(text)
}

func TestAPIDeniesByDefault(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "eve", Email: "eve@example.com"}))
	client := func(person string) *ca.Issued {
		out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: person})
		must(t, err)
		return out
	}
	good, revoked, eve := client("dan"), client("dan"), client("eve")
	must(t, a.Revoke(t.Context(), revoked.Serial, postern.KeyCompromise, postern.Actor{}))
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)
	other, _ := newAuthority(t, ca.Config{})
	foreign, err := other.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	token, err := a.AddToken(t.Context(), "deploy", []string{"example.com"}, time.Hour)
	must(t, err)
	call := ca.SignCall{CSR: string(csr(t, x509.CertificateRequest{DNSNames: []string{"www.example.com"}}))}
	open := signServer(t, a, ca.APIConfig{Groups: []string{"ops"}})
	closed := signServer(t, a, ca.APIConfig{})
	for _, c := range []struct {
		name   string
		srv    *httptest.Server
		token  string
		client *ca.Issued
		call   ca.SignCall
		want   int
	}{
		{"unauthenticated", open, "", nil, call, 403},
		{"a wrong token", open, "postern-sign-AAAAAAAAAAAAAAAAAAAAAAAAAA", nil, call, 403},
		{"a wrong token beside a good certificate", open, "x", good, call, 403},
		{"a token", open, token, nil, call, 201},
		{"a token for another domain", open, token, nil, ca.SignCall{
			CSR:   call.CSR,
			Names: []string{"www.example.com", "www.example.org"},
		}, 403},
		{
			"a token for a domain that only ends alike", open, token, nil,
			ca.SignCall{CSR: string(csr(t, x509.CertificateRequest{DNSNames: []string{"badexample.com"}}))},
			403,
		},
		{"one of the group", open, "", good, call, 201},
		{"one of the group where no group may", closed, "", good, call, 403},
		{"not of the group", open, "", eve, call, 403},
		{"revoked", open, "", revoked, call, 403},
		{"a server's certificate", open, "", server, call, 403},
		{"another authority's", open, "", foreign, call, 403},
	} {
		status, answer, text := sign(t, c.srv, c.token, c.client, c.call)
		if status != c.want {
			t.Errorf("%s: %d, want %d: %s", c.name, status, c.want, text)
		}
		if status == 201 {
			if kept, err := db.CA().Certificate(t.Context(), answer.Serial); err != nil ||
				!strings.Contains(answer.Certificate, "BEGIN CERTIFICATE") || !kept.NotAfter.Equal(answer.NotAfter) {
				t.Errorf("%s: %+v is not in the store: %v", c.name, answer, err)
			}
		}
	}
	must(t, db.People().SetPersonStatus(t.Context(), "dan", postern.PersonSuspended))
	if status, _, _ := sign(t, open, "", good, call); status != 403 {
		t.Errorf("suspended: %d", status)
	}
	must(t, a.RemoveToken(t.Context(), "deploy"))
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		status, _, _ := sign(t, open, token, nil, call)
		if status == 403 {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("a removed token: %d", status)
		}
	}
}

// signMany asks for a list of certificates, and returns the status and the answers.
func signMany(t *testing.T, srv *httptest.Server, token string, calls []ca.SignCall) (int, []map[string]string) {
	t.Helper()
	data, err := json.Marshal(calls)
	must(t, err)
	req, err := http.NewRequest("POST", srv.URL+"/ca/sign-many", bytes.NewReader(data))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := srv.Client().Do(req)
	must(t, err)
	defer resp.Body.Close()
	var answers []map[string]string
	if resp.StatusCode == http.StatusCreated {
		must(t, json.NewDecoder(resp.Body).Decode(&answers))
	}
	return resp.StatusCode, answers
}

func TestAPISignsMany(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	token, err := a.AddToken(t.Context(), "deploy", []string{"example.com"}, 0)
	must(t, err)
	srv := signServer(t, a, ca.APIConfig{})
	good := ca.SignCall{CSR: string(csr(t, x509.CertificateRequest{DNSNames: []string{"www.example.com"}}))}
	var calls []ca.SignCall
	for i := range 40 {
		if i%4 == 3 {
			calls = append(calls, ca.SignCall{CSR: good.CSR, Names: []string{"www.example.org"}})
		} else {
			calls = append(calls, good)
		}
	}
	status, answers := signMany(t, srv, token, calls)
	if status != 201 || len(answers) != len(calls) {
		t.Fatalf("%d, %d answers", status, len(answers))
	}
	for i, answer := range answers {
		_, err := db.CA().Certificate(t.Context(), answer["serial"])
		if signed := err == nil && answer["certificate"] != ""; signed != (i%4 != 3) ||
			!signed && answer["code"] != "denied" {
			t.Errorf("call %d: %v, %v", i, answer, err)
		}
	}
	if status, _ := signMany(t, srv, token, slices.Repeat([]ca.SignCall{good}, 65)); status != 400 {
		t.Errorf("65 at once: %d", status)
	}
	token = "x"
	if status, _ := signMany(t, srv, token, calls); status != 403 {
		t.Errorf("without a token: %d", status)
	}
}

// TestAPIRefusesAKeyThatOthersMayKnow asks with a token and with a certificate,
// alone and among others.
func TestAPIRefusesAKeyThatOthersMayKnow(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	token, err := a.AddToken(t.Context(), "deploy", []string{"*"}, 0)
	must(t, err)
	dan, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	srv := signServer(t, a, ca.APIConfig{Groups: []string{"ops"}})
	call := ca.SignCall{CSR: string(csr(t, x509.CertificateRequest{DNSNames: []string{"www.example.com"}}))}
	status, known, _ := sign(t, srv, token, nil, call)
	if status != 201 {
		t.Fatal(status)
	}
	must(t, a.Revoke(t.Context(), known.Serial, postern.KeyCompromise, postern.Actor{}))
	for name, who := range map[string]struct {
		token  string
		client *ca.Issued
	}{"a token": {token, nil}, "a certificate": {"", dan}} {
		if status, _, text := sign(t, srv, who.token, who.client, call); status != 403 ||
			!strings.Contains(text, "others may know it") || !strings.Contains(text, "make a new key") {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	fresh := ca.SignCall{CSR: string(csr(t, x509.CertificateRequest{DNSNames: []string{"www.example.com"}}))}
	_, answers := signMany(t, srv, token, []ca.SignCall{call, fresh})
	if len(answers) != 2 || answers[0]["code"] != "denied" || answers[1]["certificate"] == "" {
		t.Errorf("among others: %v", answers)
	}
	if list, err := a.Certificates(t.Context(), ca.Filter{Key: keyHash(t, known.Certificate)}); err != nil ||
		len(list) != 1 {
		t.Errorf("%d certificates of the key: %v", len(list), err)
	}
}

// keyHash returns the hash of the key of a certificate (PEM).
func keyHash(t *testing.T, text string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	leaf, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	hash, err := ca.KeyHash(leaf.PublicKey)
	must(t, err)
	return hash
}

func TestAPIExpiredToken(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	token, err := a.AddToken(t.Context(), "deploy", []string{"*"}, time.Hour)
	must(t, err)
	later, err := ca.Open(t.Context(), ca.Config{Now: func() time.Time {
		return time.Now().Add(61 * time.Minute)
	}}, db.CA())
	must(t, err)
	call := ca.SignCall{CSR: string(csr(t, x509.CertificateRequest{DNSNames: []string{"www.example.com"}}))}
	if status, _, text := sign(t, signServer(t, later, ca.APIConfig{}), token, nil, call); status != 403 ||
		!strings.Contains(text, "expired") {
		t.Errorf("%d %s", status, text)
	}
}

func TestAPIBadCalls(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	token, err := a.AddToken(t.Context(), "deploy", []string{"*"}, 0)
	must(t, err)
	srv := signServer(t, a, ca.APIConfig{})
	good := string(csr(t, x509.CertificateRequest{DNSNames: []string{"www.example.com"}}))
	block, _ := pem.Decode([]byte(good))
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		name  string
		body  any
		words string
	}{
		{"no JSON", []byte("{"), "JSON"},
		{"an unknown field", []byte(`{"csr":"","who":"root"}`), "unknown field"},
		{"too much", append([]byte(`{"csr":"`), bytes.Repeat([]byte("A"), 1<<20)...), "larger than"},
		{"no request", ca.SignCall{}, "no certificate request"},
		{
			"a forged signature",
			ca.SignCall{CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged}))},
			"signature is not valid",
		},
		{"a validity too long", ca.SignCall{CSR: good, Validity: "10000h"}, "validity"},
		{"a validity that is none", ca.SignCall{CSR: good, Validity: "soon"}, "validity"},
		{"names beyond the request's", ca.SignCall{CSR: good, Names: []string{"https://x"}}, "not a DNS name"},
	} {
		status, _, text := sign(t, srv, token, nil, c.body)
		if status != 400 || !strings.Contains(text, c.words) {
			t.Errorf("%s: %d %s, want %q", c.name, status, text, c.words)
		}
	}
	for _, kind := range []string{
		"", "text/plain", "application/x-www-form-urlencoded",
		"multipart/form-data; boundary=x",
	} {
		req, err := http.NewRequest("POST", srv.URL+"/ca/sign", strings.NewReader("{}"))
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", kind)
		resp, err := srv.Client().Do(req)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("Content-Type %q: %s", kind, resp.Status)
		}
	}
	for method, path := range map[string]string{"GET": "/ca/sign", "POST": "/ca/other"} {
		req, err := http.NewRequest(method, srv.URL+path, nil)
		must(t, err)
		resp, err := srv.Client().Do(req)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != 405 && resp.StatusCode != 404 {
			t.Errorf("%s %s: %s", method, path, resp.Status)
		}
	}
}

package server

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
	"golang.org/x/crypto/ocsp"
	"golang.org/x/crypto/ssh"
)

// TestUnauthenticatedRequestsWriteLittle sends many requests without a certificate to each
// route that answers them, each with other content: what they write is bounded, however
// many there are.
func TestUnauthenticatedRequestsWriteLittle(t *testing.T) {
	const times = 200
	u := newUnauthenticated(t)
	text := func() string { return strings.ToLower(rand.Text()) }
	modhex := func() string {
		return strings.Map(func(r rune) rune { return rune("cbdefghijklnrtuv"[r%16]) }, (text() + text())[:32])
	}
	form, jose, data := "application/x-www-form-urlencoded", "application/jose+json", "application/json"
	for _, c := range []struct {
		method, path, kind string
		body               func() string
		most               int // transactions; 0 is what happens besides
	}{
		{"GET", "/", "", nil, 0},
		{"GET", "/no/such/page/*", "", nil, 0},
		{"GET", "/enrol?*", "", nil, 0},
		{"POST", "/enrol/check", form, func() string { return "code=" + text() }, 61},
		{"POST", "/enrol", form, func() string { return "code=" + text() }, 61},
		{"POST", "/prove/check", form, func() string { return "code=" + text() }, 61},
		{"POST", "/prove", form, func() string { return "code=" + text() }, 61},
		{"POST", "/signup", form, func() string { return "email=" + text() + "@elsewhere.test" }, 0},
		{"POST", "/signup", form, func() string { return "email=" + text() + "@example.com" }, 6 * 21},
		{"POST", "/recover/mail", form, func() string { return "email=" + text() + "@example.com" }, 6 * 21},
		{"POST", "/recover", form, func() string { return "who=" + text() + "&recovery=" + text() }, 3 * 21},
		{"GET", "/certificates", "", nil, 0},
		{"POST", "/certificates/new", form, func() string { return "label=" + text() }, 0},
		{"GET", "/admin/timeline/live?next=0&words=*", "", nil, 0},
		{"POST", "/admin/people", form, func() string { return "name=" + text() }, 0},
		{"GET", "/acme/directory", "", nil, 0},
		{"HEAD", "/acme/new-nonce", "", nil, 0},
		{
			"POST", "/acme/new-account", jose,
			func() string { return `{"protected":"` + text() + `","payload":"","signature":"AA"}` }, 0,
		},
		{"POST", "/acme/new-order", jose, text, 0},
		{"GET", "/acme/renewal-info/*", "", nil, 0},
		{
			"GET", "/wsapi/2.0/verify?id=1&nonce=0123456789abcdef&otp=vvccccbd" + strings.Repeat("c", 36) + "&x=*", "",
			nil, 0,
		},
		{"POST", "/wsapi/2.0/verify", form, func() string { return "id=1&nonce=" + text() + "&otp=" + text() }, 0},
		{
			"POST", "/wsapi/2.0/verify", form,
			func() string { return "id=1&nonce=" + text() + "&otp=" + u.token.PublicID + modhex() }, 3,
		},
		{"GET", "/wsapi/2.0/sync?otp=*", "", nil, 0},
		{"GET", "/ssh/sign", "", nil, 0},
		{"POST", "/ssh/sign", data, func() string { return u.signRequest(text(), "123456") }, 3},
		{"POST", "/ssh/sign", data, func() string { return u.signRequest("dan", text()) }, 3},
		{"POST", "/ssh/sign", data, func() string { return u.signRequest("dan", u.token.PublicID+modhex()) }, 3},
		{"GET", "/ssh/krl", "", nil, 0},
		{"GET", "/crl/*", "", nil, 0},
		{"GET", "/ca/*", "", nil, 0},
		{"POST", "/ocsp", "application/ocsp-request", u.question, 2},
		{"POST", "/ocsp", "application/ocsp-request", text, 0},
		{"POST", "/api/sign", data, text, 0},
		{"POST", "/api/events", data, text, 0},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			before, rows := u.transactions(), total(storetest.Rows(t, u.db))
			statuses := map[int]int{}
			for range times {
				body := ""
				if c.body != nil {
					body = c.body()
				}
				statuses[u.send(t, c.method, strings.ReplaceAll(c.path, "*", text()), c.kind, body)]++
			}
			const besides = 12 // of the server's own, and the entries that were gathered
			wrote, more := u.transactions()-before, total(storetest.Rows(t, u.db))-rows
			t.Logf("%v: %d transactions, %d rows", statuses, wrote, more)
			if most := c.most + besides; wrote > most || more > 2*most {
				t.Errorf("%d requests made %d transactions and %d rows", times, wrote, more)
			}
		})
	}
}

// TestRoutesTakeTheirMethodsOnly asks each route by methods that it does not have: none
// answers as if it had been asked by its own, and none writes anything.
func TestRoutesTakeTheirMethodsOnly(t *testing.T) {
	u := newUnauthenticated(t)
	touched, err := u.token.Touch(time.Now())
	must(t, err)
	code := touched.Modhex()
	const unknown = "PUT DELETE PATCH BREW PROPFIND"
	for path, methods := range map[string]string{
		"/":                           unknown + " POST",
		"/enrol":                      unknown,
		"/enrol/check":                unknown,
		"/prove/check":                unknown,
		"/signup":                     unknown,
		"/recover":                    unknown,
		"/certificates/new":           unknown,
		"/admin/people":               unknown,
		"/acme/directory":             unknown + " POST",
		"/acme/new-nonce":             unknown + " POST",
		"/acme/new-account":           unknown + " GET HEAD",
		"/acme/new-order":             unknown + " GET HEAD",
		"/acme/revoke-cert":           unknown + " GET HEAD",
		"/ssh/sign":                   unknown,
		"/ssh/krl":                    unknown + " POST",
		"/ssh/known_hosts":            unknown + " POST",
		"/crl/root.crl":               unknown + " POST",
		"/ca/root.pem":                unknown + " POST",
		"/ocsp":                       unknown + " HEAD",
		"/api/sign":                   unknown + " GET HEAD",
		"/api/events":                 unknown + " GET HEAD",
		"/wsapi/2.0/sync?otp=" + code: unknown + " POST",
		"/wsapi/2.0/verify?id=1&nonce=0123456789abcdef&otp=" + code: unknown,
	} {
		t.Run(strings.Split(path, "?")[0], func(t *testing.T) {
			rows := total(storetest.Rows(t, u.db))
			for _, method := range strings.Fields(methods) {
				switch got := u.send(t, method, path, "", ""); got {
				case http.StatusMethodNotAllowed, http.StatusNotFound, http.StatusForbidden:
				default:
					t.Errorf("%s: %d", method, got)
				}
			}
			if more := total(storetest.Rows(t, u.db)) - rows; more > 0 {
				t.Errorf("%d rows are new", more)
			}
		})
	}
	verify := "/wsapi/2.0/verify?id=1&nonce=0123456789abcdef&otp=" + code
	if _, answer := u.ask(t, "GET", verify, "", ""); !strings.Contains(answer, "status=OK") {
		t.Errorf("the code is not valid after that: %s", answer)
	}
}

func total(rows map[string]int) (n int) {
	for _, r := range rows {
		n += r
	}
	return n
}

// unauthenticated is a client without a certificate, and the server that it asks.
type unauthenticated struct {
	t      *testing.T
	url    string
	client *http.Client
	db     *store.DB
	file   string
	issuer *x509.Certificate
	token  *otp.SoftToken // of dan, whose codes no other person knows
	key    string         // an SSH key
}

func (u *unauthenticated) signRequest(person, code string) string {
	text, err := json.Marshal(map[string]string{"public_key": u.key, "person": person, "code": code})
	must(u.t, err)
	return string(text)
}

func newUnauthenticated(t *testing.T) *unauthenticated {
	mailbox := posterntest.NewMailbox(t)
	https, dir := posterntest.FreePort(t), t.TempDir()
	conf := filepath.Join(dir, "Caddyfile")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, `{
	http_port %d
	https_port %d
	admin off
	postern {
		mail %s
		portal https://id.localhost:%[2]d {
			sign_up example.com
			recover_by_mail
		}
	}
}
`, posterntest.FreePort(t), https, mailbox.URL), 0o600))
	r := startServer(t, func(o *Options) { o.Config = conf })
	st := r.open()
	roots := x509.NewCertPool()
	roots.AddCert(r.root())
	r.awaitSite(https, "id.localhost", r.root())
	u := &unauthenticated{
		t: t, db: st.Store, token: otp.NewSoftToken(), url: fmt.Sprintf("https://127.0.0.1:%d", https),
		file: st.Path("postern.db-shm"),
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "id.localhost"},
		}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	issuers, err := st.Store.CA().Issuers(t.Context())
	must(t, err)
	for _, i := range issuers {
		if c, err := x509.ParseCertificate(i.Certificate); err == nil && i.Role == ca.Client {
			u.issuer = c
		}
	}
	must(t, st.Store.People().AddPerson(t.Context(), postern.Person{Name: "dan"}))
	must(t, st.Store.OTP().AddKeys(t.Context(), postern.Actor{}, []*otp.Key{
		{PublicID: u.token.PublicID, Secret: &u.token.Secret, Person: "dan"},
	}, false))
	must(t, st.Store.OTP().AddClient(t.Context(), &otp.APIClient{ID: 1, Secret: []byte("0123456789abcdef")}))
	public, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	key, err := ssh.NewPublicKey(public)
	must(t, err)
	u.key = string(ssh.MarshalAuthorizedKey(key))
	return u
}

// transactions returns how many transactions have written to the database: a counter of
// SQLite's in the header of the WAL's index (sqlite.org/walformat.html, section 2.3.1).
func (u *unauthenticated) transactions() int {
	u.t.Helper()
	f, err := os.Open(u.file)
	must(u.t, err)
	defer f.Close()
	var header [12]byte
	_, err = io.ReadFull(f, header[:])
	must(u.t, err)
	return int(binary.NativeEndian.Uint32(header[8:]))
}

func (u *unauthenticated) send(t *testing.T, method, path, kind, body string) int {
	t.Helper()
	status, _ := u.ask(t, method, path, kind, body)
	return status
}

func (u *unauthenticated) ask(t *testing.T, method, path, kind, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, u.url+path, strings.NewReader(body))
	must(t, err)
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Host = "id.localhost" + u.url[strings.LastIndex(u.url, ":"):]
	resp, err := u.client.Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// question asks about a certificate that was never issued.
func (u *unauthenticated) question() string {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(u.t, err)
	der, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: serial}, u.issuer, nil)
	must(u.t, err)
	return string(der)
}

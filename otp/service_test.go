package otp_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
)

const nonce = "kakakakakakakakakakakaka"

var apiKey = []byte("a secret of twenty b")

// rig is a validation service over a real store, with what a test needs to
// use it.
type rig struct {
	db      *store.DB
	otp     *store.OTP
	service *otp.Service
	server  *httptest.Server
}

func newRig(t testing.TB, c store.Config, oc otp.Config) *rig {
	t.Helper()
	var db *store.DB
	if c.URL == "" {
		db = storetest.Open(t)
	} else {
		db = storetest.OpenConfig(t, c)
	}
	h := &rig{db: db, otp: db.OTP()}
	var err error
	if h.service, err = otp.NewService(oc, h.otp, db); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.service.Close() })
	h.server = httptest.NewServer(h.service)
	t.Cleanup(h.server.Close)
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// client1 adds API client 1, with apiKey.
func (h *rig) client1(t testing.TB) {
	t.Helper()
	must(t, h.otp.AddClient(t.Context(), &otp.APIClient{ID: 1, Secret: apiKey}))
}

// token adds a fresh key and returns what types its codes.
func (h *rig) token(t testing.TB, person string) *otp.SoftToken {
	t.Helper()
	tok := otp.NewSoftToken()
	must(t, h.otp.AddKeys(t.Context(), postern.Actor{},
		[]*otp.Key{{PublicID: tok.PublicID, Secret: &tok.Secret, Person: person, Last: otp.Never}}, false))
	return tok
}

func touch(t testing.TB, tok *otp.SoftToken) string {
	t.Helper()
	c, err := tok.Touch(time.Now())
	must(t, err)
	return c.Modhex()
}

// ask sends a request and returns the lines of the answer.
func (h *rig) ask(t testing.TB, path string, q url.Values) map[string]string {
	t.Helper()
	resp, err := http.Get(h.server.URL + path + "?" + q.Encode())
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return lines(t, string(body))
}

func lines(t testing.TB, body string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, l := range strings.Split(strings.TrimSuffix(body, "\r\n\r\n"), "\r\n") {
		k, v, ok := strings.Cut(l, "=")
		if _, twice := got[k]; !ok || twice {
			t.Fatalf("a line that is none, or twice: %q in %q", l, body)
		}
		got[k] = v
	}
	return got
}

// TestEchoSignsNoOtherAnswer asks, as an attacker between a client and the server, for
// the signature of an OK to the client's own request.
func TestEchoSignsNoOtherAnswer(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	code := touch(t, h.token(t, ""))
	const ok = "&sl=100&status=OK&t=2026-11-24T13:00:00Z0001"
	got := h.ask(t, "/wsapi/2.0/verify", query("id", "1", "nonce", nonce, "otp", code+ok))
	if got["status"] != "BAD_OTP" {
		t.Fatalf("%v", got)
	}
	mac := hmac.New(sha1.New, apiKey)
	io.WriteString(mac, "nonce="+nonce+"&otp="+code+ok+"&status=BAD_OTP&t="+got["t"])
	if got["h"] == base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
		t.Error("the signature of a no is that of an OK whose time ends oddly")
	}
}

func query(kv ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		q.Set(kv[i], kv[i+1])
	}
	return q
}

// hmacOf signs as the protocol's text says, apart from the package's own code.
func hmacOf(m map[string]string) string { return hmacUnder(apiKey, m) }

func hmacUnder(key []byte, m map[string]string) string {
	var pairs []string
	for k, v := range m {
		if k != "h" {
			pairs = append(pairs, k+"="+v)
		}
	}
	sort.Strings(pairs)
	mac := hmac.New(sha1.New, key)
	io.WriteString(mac, strings.Join(pairs, "&"))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func sign(q url.Values) url.Values {
	m := map[string]string{}
	for k := range q {
		m[k] = q.Get(k)
	}
	q.Set("h", hmacOf(m))
	return q
}

func TestVerifyAnswersEveryStatus(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	ctx := t.Context()
	must(t, h.otp.AddClient(ctx, &otp.APIClient{ID: 2}))
	must(t, h.otp.AddClient(ctx, &otp.APIClient{ID: 3, Secret: apiKey, MustSign: true}))
	must(t, h.otp.AddClient(ctx, &otp.APIClient{ID: 4, Secret: apiKey, Disabled: true}))
	must(t, h.db.People().AddPerson(ctx, postern.Person{Name: "alice"}))
	tok, unknown := h.token(t, "alice"), otp.NewSoftToken()
	disabled := h.token(t, "")
	must(t, h.otp.SetKeyStatus(ctx, disabled.PublicID, postern.CredentialDisabled))
	elsewhere := otp.NewSoftToken()
	must(t, h.otp.AddKeys(ctx, postern.Actor{}, []*otp.Key{{PublicID: elsewhere.PublicID, Last: otp.Never}}, false))

	good := touch(t, tok)
	const v2 = "/wsapi/2.0/verify"
	for _, c := range []struct {
		name, path string
		q          url.Values
		want       otp.Status
	}{
		{"nothing", v2, query(), otp.StatusMissingParameter},
		{"no otp", v2, query("id", "1", "nonce", nonce), otp.StatusMissingParameter},
		{"no id", v2, query("otp", good, "nonce", nonce), otp.StatusMissingParameter},
		{"no nonce", v2, query("id", "1", "otp", good), otp.StatusMissingParameter},
		{"short nonce", v2, query("id", "1", "otp", good, "nonce", nonce[:15]), otp.StatusMissingParameter},
		{"long nonce", v2, query("id", "1", "otp", good, "nonce", nonce+nonce), otp.StatusMissingParameter},
		{"odd nonce", v2, query("id", "1", "otp", good, "nonce", nonce+"-"), otp.StatusMissingParameter},
		{"id not a number", v2, query("id", "x", "otp", good, "nonce", nonce), otp.StatusMissingParameter},
		{"id zero", v2, query("id", "0", "otp", good, "nonce", nonce), otp.StatusMissingParameter},
		{
			"id too big", v2, query("id", "99999999999999999999", "otp", good, "nonce", nonce),
			otp.StatusMissingParameter,
		},
		{"sl in words", v2, query("id", "1", "otp", good, "nonce", nonce, "sl", "most"), otp.StatusMissingParameter},
		{"sl above 100", v2, query("id", "1", "otp", good, "nonce", nonce, "sl", "101"), otp.StatusMissingParameter},
		{
			"negative timeout", v2, query("id", "1", "otp", good, "nonce", nonce, "timeout", "-1"),
			otp.StatusMissingParameter,
		},
		{"unknown client", v2, query("id", "9", "otp", good, "nonce", nonce), otp.StatusNoSuchClient},
		{"disabled client", v2, query("id", "4", "otp", good, "nonce", nonce), otp.StatusOperationNotAllowed},
		{"wrong signature", v2, query("id", "1", "otp", good, "nonce", nonce, "h", "AAAA"), otp.StatusBadSignature},
		{"empty signature", v2, query("id", "1", "otp", good, "nonce", nonce, "h", ""), otp.StatusBadSignature},
		{
			"signature under another client's key", v2, sign(query("id", "2", "otp", good, "nonce", nonce)),
			otp.StatusBadSignature,
		},
		{
			"unsigned where it must be signed", v2, query("id", "3", "otp", good, "nonce", nonce),
			otp.StatusBadSignature,
		},
		{"not a code", v2, query("id", "1", "otp", "123456", "nonce", nonce), otp.StatusBadOTP},
		{"unknown key", v2, query("id", "1", "otp", touch(t, unknown), "nonce", nonce), otp.StatusBadOTP},
		{"disabled key", v2, query("id", "1", "otp", touch(t, disabled), "nonce", nonce), otp.StatusBadOTP},
		{
			"key whose secret is elsewhere", v2, query("id", "1", "otp", touch(t, elsewhere), "nonce", nonce),
			otp.StatusBadOTP,
		},
		{"another key's code under this ID", v2, query("id", "1", "otp", tok.PublicID+touch(t, unknown)[12:], "nonce",
			nonce), otp.StatusBadOTP},
		{"good", v2, query("id", "1", "otp", good, "nonce", nonce), otp.StatusOK},
		{"the same request", v2, query("id", "1", "otp", good, "nonce", nonce), otp.StatusReplayedRequest},
		{"the same code", v2, query("id", "1", "otp", good, "nonce", nonce+"2"), otp.StatusReplayedOTP},
		{"the same code in 1.x", "/wsapi/verify", query("id", "1", "otp", good), otp.StatusReplayedOTP},
		{"good in 1.x", "/wsapi/verify", query("id", "1", "otp", touch(t, tok)), otp.StatusOK},
		{"good and signed", v2, sign(query("id", "3", "otp", touch(t, tok), "nonce", nonce, "sl", "100", "timeout",
			"8")), otp.StatusOK},
		{"good and secure", v2, query("id", "2", "otp", touch(t, tok), "nonce", nonce, "sl", "secure"), otp.StatusOK},
		{"good in capitals, newline after", v2, query("id", "1", "otp", strings.ToUpper(touch(t, tok))+"\n", "nonce",
			nonce), otp.StatusOK},
	} {
		got := h.ask(t, c.path, c.q)
		if otp.Status(got["status"]) != c.want {
			t.Errorf("%s: %s, want %s", c.name, got["status"], c.want)
		}
		id := c.q.Get("id")
		if signed := got["h"] != ""; signed != (id == "1" || id == "3" || id == "4") &&
			c.want != otp.StatusMissingParameter {
			t.Errorf("%s: signed is %v", c.name, signed)
		}
		if got["h"] != "" && got["h"] != hmacOf(got) {
			t.Errorf("%s: the answer's signature is wrong", c.name)
		}
	}
	must(t, h.db.People().SetPersonStatus(ctx, "alice", postern.PersonSuspended))
	if got := h.ask(t, v2, query("id", "1", "otp", touch(t, tok), "nonce",
		nonce)); got["status"] != string(otp.StatusBadOTP) {
		t.Errorf("a suspended person's key: %s", got["status"])
	}
}

func TestVerifyAnswersWithWhatWasAsked(t *testing.T) {
	now := time.Date(2026, 11, 23, 21, 15, 17, 157e6, time.UTC)
	h := newRig(t, store.Config{}, otp.Config{Now: func() time.Time { return now }})
	h.client1(t)
	tok := h.token(t, "")
	tok.Counter, tok.Use, tok.Clock, tok.Powered = 19, 17, 49712, time.Now().Add(time.Hour)
	tok.Powered = time.Now()
	code := strings.ToUpper(touch(t, tok))
	got := h.ask(t, "/wsapi/2.0/verify", query("id", "1", "otp", code, "nonce", nonce, "timestamp", "1"))
	for k, want := range map[string]string{
		"t": "2026-11-23T21:15:17Z0157", "otp": code, "nonce": nonce, "sl": "100",
		"timestamp": "49712", "sessioncounter": "19", "sessionuse": "17", "status": "OK",
	} {
		if got[k] != want {
			t.Errorf("%s=%s, want %s", k, got[k], want)
		}
	}
	// A code cannot smuggle lines into the answer.
	for _, evil := range []string{"x\r\nstatus=OK", "x\nstatus=OK\n", "x\u2028status=OK", strings.Repeat("c", 5000)} {
		got := h.ask(t, "/wsapi/2.0/verify", query("id", "1", "otp", evil, "nonce", nonce))
		if got["status"] == "OK" || got["otp"] != "" {
			t.Errorf("%q is answered %v", evil, got)
		}
	}
	// Old clients get old answers.
	got = h.ask(t, "/wsapi/verify", query("id", "1", "otp", touch(t, tok)))
	if got["status"] != "OK" || got["otp"] != "" || got["nonce"] != "" || got["sl"] != "" {
		t.Errorf("1.x is answered %v", got)
	}
}

func TestParametersGivenTwiceAreRefused(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	q := query("id", "1", "otp", touch(t, h.token(t, "")), "nonce", nonce).Encode()
	for _, twice := range []string{"&id=1", "&otp=x", "&nonce=" + nonce, "&%69d=1", "&x=%zz"} {
		resp, err := http.Get(h.server.URL + "/wsapi/2.0/verify?" + q + twice)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		must(t, err)
		if got := lines(t, string(body)); got["status"] != "MISSING_PARAMETER" {
			t.Errorf("%s: %s", twice, got["status"])
		}
	}
	resp, err := http.Post(h.server.URL+"/wsapi/2.0/verify", "application/x-www-form-urlencoded", strings.NewReader(q))
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if got := lines(t, string(body)); got["status"] != "OK" {
		t.Errorf("by POST: %s", got["status"])
	}
}

// events returns the timeline's entries about checked codes.
func (h *rig) events(t testing.TB) []postern.Event {
	t.Helper()
	return slices.DeleteFunc(storetest.Events(t, h.db), func(e postern.Event) bool {
		return e.Kind != postern.EventOTP
	})
}

// exec does to the database what an attacker who can write it could do.
func (h *rig) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	must(t, h.db.Write(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}))
}

// TestOnlyGetAndPostUseACodeUp asks by every other method first: the code is still
// good afterwards.
func TestOnlyGetAndPostUseACodeUp(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.client1(t)
	code := touch(t, h.token(t, ""))
	q := url.Values{"id": {"1"}, "otp": {code}, "nonce": {nonce}}
	for _, path := range []string{"/wsapi/2.0/verify", "/wsapi/verify", "/wsapi/1.0/verify", "/wsapi/1.1/verify"} {
		for method, want := range map[string]int{
			"PUT": 405, "DELETE": 405, "PATCH": 405, "OPTIONS": 405, "BREW": 405, "PROPFIND": 405,
			http.MethodHead: 200,
		} {
			req, err := http.NewRequestWithContext(t.Context(), method, h.server.URL+path+"?"+q.Encode(), nil)
			must(t, err)
			resp, err := http.DefaultClient.Do(req)
			must(t, err)
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s %s: %s", method, path, resp.Status)
			}
			if allow := resp.Header.Get("Allow"); want == 405 && !strings.Contains(allow, "GET") {
				t.Errorf("%s %s allows %q", method, path, allow)
			}
		}
	}
	if got := h.ask(t, "/wsapi/2.0/verify", q); got["status"] != "OK" {
		t.Errorf("the code was used up: %v", got)
	}
}

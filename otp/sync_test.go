package otp_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
)

var loopbackNet = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// fleet makes a rig that keeps step with others, over a store of its own.
func fleet(t *testing.T, s otp.Sync) *rig {
	t.Helper()
	db := storetest.Open(t)
	h := &rig{db: db, otp: db.OTP()}
	s.Store = h.otp
	var err error
	h.service, err = otp.NewService(otp.Config{Sync: s}, h.otp, db)
	must(t, err)
	t.Cleanup(func() { h.service.Close() })
	h.server = httptest.NewServer(h.service)
	t.Cleanup(h.server.Close)
	h.client1(t)
	return h
}

func (h *rig) syncURL() string { return h.server.URL + "/wsapi/2.0/sync" }

// share gives a token's key to another rig.
func (h *rig) share(t *testing.T, tok *otp.SoftToken) {
	t.Helper()
	must(t, h.otp.AddKeys(t.Context(), postern.Actor{},
		[]*otp.Key{{PublicID: tok.PublicID, Secret: &tok.Secret, Last: otp.Never}}, false))
}

func (h *rig) verify(t *testing.T, code string, more ...string) map[string]string {
	t.Helper()
	q := query(append([]string{"id", "1", "otp", code, "nonce", fmt.Sprintf("nonce%016d", nonces.Add(1))}, more...)...)
	return h.ask(t, "/wsapi/2.0/verify", q)
}

func TestSyncTellsPeersBeforeTheAnswer(t *testing.T) {
	b := fleet(t, otp.Sync{Allow: loopbackNet})
	a := fleet(t, otp.Sync{Peers: []string{b.syncURL()}})
	tok := a.token(t, "")
	b.share(t, tok)
	for range 5 {
		code := touch(t, tok)
		if got := a.verify(t, code, "sl", "100"); got["status"] != "OK" || got["sl"] != "100" {
			t.Fatalf("the first server: %v", got)
		}
		if got := b.verify(t, code); got["status"] != "REPLAYED_OTP" {
			t.Fatalf("the second server: %v", got)
		}
	}
	// The other way round, where no server is notified: the first asks the second.
	code := touch(t, tok)
	if got := b.verify(t, code); got["status"] != "OK" {
		t.Fatalf("the second server: %v", got)
	}
	if got := a.verify(t, code, "sl", "100"); got["status"] != "REPLAYED_OTP" {
		t.Errorf("the first server, after the second: %v", got)
	}
	code = touch(t, tok)
	if got := b.verify(t, code); got["status"] != "OK" {
		t.Fatalf("the second server: %v", got)
	}
	if got := a.ask(t, "/wsapi/verify", query("id", "1", "otp", code)); got["status"] != "REPLAYED_OTP" {
		t.Errorf("the first server, asked by an old client: %v", got)
	}
}

func TestSyncCatchesUpWithAPeerThatWasAway(t *testing.T) {
	b := fleet(t, otp.Sync{Allow: loopbackNet})
	var away atomic.Bool
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		b.service.ServeHTTP(w, r)
	}))
	defer gate.Close()
	a := fleet(t, otp.Sync{Peers: []string{gate.URL + "/wsapi/2.0/sync"}, Resend: 10 * time.Millisecond})
	tok := a.token(t, "")
	b.share(t, tok)
	away.Store(true)
	if got := a.verify(t, touch(t, tok), "sl", "100", "timeout", "1"); got["status"] != "NOT_ENOUGH_ANSWERS" ||
		got["sl"] != "0" {
		t.Errorf("with the peer away and all of them wanted: %v", got)
	}
	if got := a.verify(t, touch(t, tok), "sl", "0"); got["status"] != "OK" {
		t.Errorf("with the peer away and none wanted: %v", got)
	}
	want, err := a.otp.Counter(t.Context(), tok.PublicID)
	must(t, err)
	away.Store(false)
	for deadline := time.Now().Add(2 * time.Minute); ; {
		got, err := b.otp.Counter(t.Context(), tok.PublicID)
		must(t, err)
		if got.Seq == want.Seq {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the peer is never notified")
		}
		posterntest.Pause(t)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; {
		left, err := a.otp.Unsynced(t.Context(), gate.URL+"/wsapi/2.0/sync", 10)
		must(t, err)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the queue does not empty")
		}
		posterntest.Pause(t)
	}
}

func TestSyncAnswersAsTheReferenceDoes(t *testing.T) {
	h := fleet(t, otp.Sync{Allow: loopbackNet})
	tok, disabled := h.token(t, ""), h.token(t, "")
	must(t, h.otp.SetKeyStatus(t.Context(), disabled.PublicID, postern.CredentialDisabled))
	request := func(id string, change ...string) url.Values {
		q := query("otp", id+strings.Repeat("c", 32), "modified", "1359470659", "nonce", nonce, "yk_publicname", id,
			"yk_counter", "7", "yk_use", "3", "yk_high", "1", "yk_low", "2")
		for i := 0; i < len(change); i += 2 {
			q.Set(change[i], change[i+1])
			if change[i+1] == "" {
				q.Del(change[i])
			}
		}
		return q
	}
	got := h.ask(t, "/wsapi/2.0/sync", request(tok.PublicID))
	if got["status"] != "OK" || got["yk_counter"] != "-1" || got["yk_use"] != "-1" || got["modified"] != "-1" ||
		got["yk_publicname"] != tok.PublicID || got["nonce"] == "" {
		t.Errorf("the first: %v", got)
	}
	got = h.ask(t, "/wsapi/2.0/sync", request(tok.PublicID, "yk_counter", "6"))
	if got["status"] != "OK" || got["yk_counter"] != "7" || got["yk_use"] != "3" || got["yk_high"] != "1" ||
		got["yk_low"] != "2" || got["modified"] != "1359470659" || got["nonce"] != nonce {
		t.Errorf("an older one: %v", got)
	}
	if last, err := h.otp.Counter(t.Context(), tok.PublicID); err != nil || last.Seq != 7<<8|3 {
		t.Errorf("the counter is %+v, %v", last, err)
	}
	if got := h.ask(t, "/wsapi/2.0/sync", request("cccccccccccb")); got["status"] != "OK" {
		t.Errorf("an unknown key: %v", got)
	}
	if got := h.ask(t, "/wsapi/2.0/sync", request(disabled.PublicID)); got["status"] != "BAD_OTP" {
		t.Errorf("a disabled key: %v", got)
	}
	if last, err := h.otp.Counter(t.Context(), disabled.PublicID); err != nil || last.Seq != 7<<8|3 {
		t.Errorf("the disabled key's counter is %+v, %v", last, err)
	}
	for _, bad := range [][]string{
		{"otp", ""},
		{"modified", ""},
		{"nonce", ""},
		{"yk_publicname", ""},
		{"yk_counter", ""},
		{"yk_use", ""},
		{"yk_high", ""},
		{"yk_low", ""},
		{"yk_counter", "-2"},
		{"yk_counter", "65536"},
		{"yk_use", "256"},
		{"yk_low", "x"},
		{"nonce", "short"},
		{"yk_publicname", "abc"},
		{"otp", "123456"},
	} {
		if got := h.ask(t, "/wsapi/2.0/sync", request(tok.PublicID, bad...)); got["status"] != "MISSING_PARAMETER" {
			t.Errorf("%v: %v", bad, got)
		}
	}
}

func TestSyncIsOffAndGuarded(t *testing.T) {
	off := fleet(t, otp.Sync{})
	resp, err := http.Get(off.syncURL())
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("by default sync is answered %d", resp.StatusCode)
	}
	guarded := fleet(t, otp.Sync{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if got := guarded.ask(t, "/wsapi/2.0/sync", query("yk_counter", "1")); got["status"] != "OPERATION_NOT_ALLOWED" {
		t.Errorf("from an address that is not allowed: %v", got)
	}
	for name, s := range map[string]otp.Sync{
		"no store":  {Allow: loopbackNet},
		"bad URL":   {Peers: []string{"val2"}, Store: off.otp},
		"bad level": {Default: 101},
	} {
		if _, err := otp.NewService(otp.Config{Sync: s}, off.otp, off.db); postern.CodeOf(err) != postern.Invalid ||
			err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSyncNeverSendsTheCode: the code is a secret as long as a peer may accept
// it.
func TestSyncNeverSendsTheCode(t *testing.T) {
	sent := make(chan string, 10)
	spy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r.URL.RawQuery
	}))
	defer spy.Close()
	h := fleet(t, otp.Sync{Peers: []string{spy.URL + "/"}})
	code := touch(t, h.token(t, ""))
	h.verify(t, code, "sl", "100", "timeout", "0")
	if got := <-sent; strings.Contains(got, code[12:]) || !strings.Contains(got, code[:12]) {
		t.Errorf("the peer is sent %s", got)
	}
}

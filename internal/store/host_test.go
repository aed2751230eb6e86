package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/sshd/rescue"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

var hostIssuer = []byte("a CA's certificate")

// invited adds a host and returns its token's hash.
func invited(t *testing.T, db *store.DB, name string, again bool) []byte {
	t.Helper()
	i := host.Invitation{
		Host: postern.Host{Name: name}, Hash: fmt.Appendf(nil, "%s %d", name, time.Now().UnixNano()),
		Expires: db.Now().Add(time.Hour),
	}
	must(t, db.Hosts().AddHosts(t.Context(), postern.Actor{}, []host.Invitation{i}, again, postern.Event{}))
	return i.Hash
}

// admitted admits a host with a key, by a certificate of that serial number.
func admitted(db *store.DB, hash []byte, name, key, serial string) error {
	c := ca.Certificate{Serial: serial, Issuer: "test", Profile: ca.ProfileHost, Key: key, DER: []byte{}}
	return db.Hosts().AdmitHost(context.Background(), hash, name, postern.Actor{}, c,
		postern.Event{Kind: postern.EventCertIssued, Object: serial})
}

func wantCode(t *testing.T, what string, err error, want postern.Code) {
	t.Helper()
	if err == nil || postern.CodeOf(err) != want {
		t.Errorf("%s: %v, not %s", what, err, want)
	}
}

// hostRescue follows a host's rescue codes until it has them, and until it is removed.
func hostRescue(t *testing.T, open opener) {
	db := open(t)
	r := db.Rescue()
	have := func() rescue.Set {
		set, err := r.Set(t.Context(), "hv1")
		must(t, err)
		return set
	}
	invited(t, db, "hv1", false)
	_, first := rescue.New(2, time.Now().AddDate(1, 0, 0)) // the clock is wrong
	must(t, r.Replace(t.Context(), postern.Actor{}, "hv1", first, postern.Event{}))
	_, second := rescue.New(3, time.Now())
	must(t, r.Replace(t.Context(), postern.Actor{}, "hv1", second, postern.Event{}))
	if set := have(); !set.Made.After(first.Made) {
		t.Errorf("the host, which keeps the newest, keeps codes that were replaced: %v", set.Made)
	}
	must(t, r.Taken(t.Context(), "hv1", first)) // which was replaced meanwhile
	if set := have(); set.ID != second.ID || len(set.Hashes) != 3 {
		t.Errorf("after another set was taken: %+v", set)
	}
	must(t, r.Taken(t.Context(), "hv1", second))
	if set := have(); set.ID != second.ID || len(set.Hashes) != 0 {
		t.Errorf("the host gets codes that it has had: %+v", set)
	}
	_, err := db.Hosts().SetHostStatus(t.Context(), postern.Actor{}, "hv1", postern.HostRemoved, postern.Event{})
	must(t, err)
	if set := have(); set.ID != "" {
		t.Errorf("a removed host has rescue codes: %+v", set)
	}
}

// hosts follows hosts from the invitation to the end.
func hosts(t *testing.T, open opener) {
	a, b := open(t), open(t)
	storetest.AddIssuer(t, a, hostIssuer)
	ctx, s := t.Context(), b.Hosts()
	first := invited(t, a, "hv1", false)
	must(t, admitted(a, first, "hv1", "k1", "a1"))
	wantCode(t, "a second key with one token", admitted(b, first, "hv1", "k2", "a2"), postern.Denied)
	must(t, admitted(b, first, "hv1", "k1", "a3")) // the first answer was lost
	_, err := s.HostByCertificate(ctx, "a1", hostIssuer)
	wantCode(t, "the certificate before", err, postern.Denied)
	h, err := s.HostByCertificate(ctx, "a3", hostIssuer)
	if err != nil || h.Name != "hv1" || h.Status != postern.HostJoined || h.Joined.IsZero() {
		t.Fatalf("%+v, %v", h, err)
	}
	_, err = s.HostByCertificate(ctx, "a3", []byte("another CA with the same serial number"))
	wantCode(t, "another CA", err, postern.Denied)

	second := invited(t, a, "hv2", false)
	wantCode(t, "another host's key", admitted(a, second, "hv2", "k1", "b1"), postern.Denied)
	wantCode(t, "another host's name", admitted(a, second, "hv1", "k3", "b2"), postern.Denied)
	wantCode(t, "no token", admitted(a, []byte("guessed"), "hv2", "k3", "b3"), postern.Denied)

	set := func(status postern.HostStatus) {
		t.Helper()
		if changed, err := a.Hosts().SetHostStatus(ctx, postern.Actor{}, "hv1", status,
			postern.Event{}); err != nil || !changed {
			t.Fatalf("%s: %v, %v", status, changed, err)
		}
	}
	set(postern.HostSuspended)
	_, err = s.HostByCertificate(ctx, "a3", hostIssuer)
	wantCode(t, "suspended", err, postern.Denied)
	wantCode(t, "suspended, with its token", admitted(b, first, "hv1", "k1", "a4"), postern.Denied)
	renewal := ca.Certificate{Serial: "a5", Issuer: "test", Profile: ca.ProfileHost, Key: "k1", DER: []byte{}}
	wantCode(t, "a suspended host's renewal", s.RenewHost(ctx, "hv1", "a3", postern.Actor{}, renewal,
		postern.Event{Kind: postern.EventCertRenewed}), postern.Denied)
	set(postern.HostJoined)
	must(t, s.RenewHost(ctx, "hv1", "a3", postern.Actor{}, renewal, postern.Event{Kind: postern.EventCertRenewed}))
	for _, serial := range []string{"a3", "a5"} {
		_, err = s.HostByCertificate(ctx, serial, hostIssuer)
		must(t, err)
	}
	set(postern.HostRemoved)
	for _, serial := range []string{"a3", "a5"} {
		_, err = s.HostByCertificate(ctx, serial, hostIssuer)
		wantCode(t, "removed", err, postern.Denied)
	}
	if list, err := s.Hosts(ctx); err != nil || len(list) != 1 || list[0].Name != "hv2" {
		t.Errorf("left are %+v, %v", list, err)
	}
	must(t, admitted(a, invited(t, b, "hv1", false), "hv1", "k4", "a6")) // installed anew
}

// hostServes removes a host: the server certificates for its names are revoked, and none
// for a name that another has, too.
func hostServes(t *testing.T, open opener) {
	db := open(t)
	storetest.AddIssuer(t, db, hostIssuer)
	names := func(list ...string) func(*postern.Host) error {
		return func(h *postern.Host) error { h.Names = list; return nil }
	}
	for host, list := range map[string][]string{
		"hv1": {"hv1.example.com", "192.0.2.1", "vm.example.com"}, "hv2": {"vm.example.com"},
	} {
		invited(t, db, host, false)
		must(t, db.Hosts().ChangeHost(t.Context(), postern.Actor{}, host, names(list...), postern.Event{}))
	}
	want := map[string]bool{} // by serial number: revoked
	for i, c := range []struct {
		revoked bool
		profile ca.Profile
		names   []string
	}{
		{true, ca.ProfileServer, []string{"hv1.example.com", "192.0.2.1"}},
		{true, "appliance", []string{"hv1"}},
		{false, ca.ProfileServer, []string{"hv1", "vm.example.com"}},
		{false, ca.ProfileServer, []string{"hv1", "db.example.com"}},
		{false, ca.ProfileServer, []string{"hv2"}},
		{false, ca.ProfileHost, []string{"hv1"}},
	} {
		serial := fmt.Sprint("c", i)
		want[serial] = c.revoked
		must(t, db.CA().AddCertificate(t.Context(), postern.Actor{}, ca.Certificate{
			Serial: serial, Issuer: "test", Profile: c.profile, Names: c.names, Key: serial, DER: []byte{},
			NotAfter: db.Now().Add(time.Hour),
		}, postern.Event{Kind: postern.EventCertIssued, Object: serial}))
	}
	_, err := db.Hosts().SetHostStatus(t.Context(), postern.Actor{}, "hv1", postern.HostRemoved, postern.Event{})
	must(t, err)
	for serial, revoked := range want {
		c, err := db.CA().Certificate(t.Context(), serial)
		must(t, err)
		if c.Revoked.IsZero() == revoked {
			t.Errorf("%s for %q: revoked %v", c.Profile, c.Names, !c.Revoked.IsZero())
		}
	}
}

// hostTokensEnd removes tokens that have expired, and no other.
func hostTokensEnd(t *testing.T, open opener) {
	db := open(t)
	invited(t, db, "hv1", false)
	count := func() (n int) {
		must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			return tx.QueryRow(ctx, `SELECT COUNT(*) FROM host_tokens`).Scan(&n)
		}))
		return n
	}
	for _, c := range []struct {
		at   time.Time
		want int
	}{{db.Now(), 1}, {db.Now().Add(2 * time.Hour), 0}} {
		_, err := db.CA().RemoveExpired(t.Context(), c.at, 0)
		must(t, err)
		if n := count(); n != c.want {
			t.Errorf("%d tokens are left at %v, want %d", n, c.at, c.want)
		}
	}
}

// hostFacts keeps what is said of a host, by administrators and by itself.
func hostFacts(t *testing.T, open opener) {
	db := open(t)
	storetest.AddIssuer(t, db, hostIssuer)
	ctx, s := t.Context(), db.Hosts()
	hash := invited(t, db, "hv1", false)
	i := host.Invitation{Host: postern.Host{Name: "hv1"}, Hash: []byte("h"), Expires: db.Now().Add(time.Hour)}
	wantCode(t, "a second of that name",
		s.AddHosts(ctx, postern.Actor{}, []host.Invitation{i}, false, postern.Event{}), postern.Conflict)
	must(t, s.ChangeHost(ctx, postern.Actor{}, "hv1", func(h *postern.Host) error {
		h.Names, h.Groups = []string{"hv1.example.com", "192.0.2.1"}, []string{"web", "hv", "web"}
		h.Labels = map[string]string{"rack": "b=4", "row": ""}
		return nil
	}, postern.Event{}))
	wantCode(t, "two lines", s.ChangeHost(ctx, postern.Actor{}, "hv1", func(h *postern.Host) error {
		h.Labels = map[string]string{"rack": "4\nrow=5"}
		return nil
	}, postern.Event{}), postern.Invalid)
	must(t, s.HostReported(ctx, "hv1", postern.HostReport{Version: "before it joined"}))
	must(t, admitted(db, hash, "hv1", "k1", "a1"))
	must(t, s.HostReported(ctx, "hv1", postern.HostReport{
		Version: "1.2\n3", Serves: []string{"ssh", "libvirt"}, KRL: 7, Problems: []string{"a\nb", "c"},
	}))
	h, err := s.Host(ctx, "hv1")
	must(t, err)
	if h.Version != "1.23" || h.KRL != 7 || h.Heard.IsZero() || !slices.Equal(h.Problems, []string{"ab", "c"}) ||
		!slices.Equal(h.Serves, []string{"ssh", "libvirt"}) || !slices.Equal(h.Groups, []string{"hv", "web"}) ||
		!slices.Equal(h.All(), []string{"hv1", "hv1.example.com", "192.0.2.1"}) ||
		len(h.Labels) != 2 || h.Labels["rack"] != "b=4" {
		t.Errorf("%+v", h)
	}
}

// oneTokenTwoHosts joins two hosts with one token at the same time.
func oneTokenTwoHosts(t *testing.T, open opener) {
	dbs := []*store.DB{open(t), open(t)}
	storetest.AddIssuer(t, dbs[0], hostIssuer)
	hash := invited(t, dbs[0], "hv1", false)
	results := make(chan error)
	for i, db := range dbs {
		go func() { results <- admitted(db, hash, "hv1", fmt.Sprint("k", i), fmt.Sprint("a", i)) }()
	}
	one, two := <-results, <-results
	if (one == nil) == (two == nil) {
		t.Errorf("not one of two is admitted: %v, %v", one, two)
	}
}

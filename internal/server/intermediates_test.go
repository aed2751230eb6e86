package server

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/state"
)

// elevenYearsAgo makes an authority whose intermediates ended a year ago, and its root
// did not.
func elevenYearsAgo(t *testing.T, dir string) (*ca.Authority, *state.State) {
	t.Helper()
	st, err := state.Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	past := time.Now().AddDate(-11, 0, 0)
	a, err := ca.Init(t.Context(), ca.Config{Now: func() time.Time { return past }}, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	return a, st
}

// TestAServerThatWasOffFollowsItsIntermediates starts a server after its intermediates
// have ended: its first site has a chain that verifies, and a certificate is issued to
// its first person.
func TestAServerThatWasOffFollowsItsIntermediates(t *testing.T) {
	r := startServer(t, func(o *Options) { elevenYearsAgo(t, o.State) })
	root := r.root()
	r.awaitSite(r.opts.HTTPSPort, "localhost", root)
}

// TestSitesHaveTheirCertificatesOnceAServerSaysThatItServes starts a server with many new
// sites, and asks each once.
func TestSitesHaveTheirCertificatesOnceAServerSaysThatItServes(t *testing.T) {
	port := posterntest.FreePort(t)
	config := fmt.Sprintf("{\n https_port %d\n http_port %d\n default_bind 127.0.0.1\n}\n", port,
		posterntest.FreePort(t))
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("site%d.localhost", i), fmt.Sprintf("site%d.example.com", i))
		config += fmt.Sprintf("site%d.localhost {\n respond ok\n}\nsite%d.example.com {\n tls internal\n"+
			" respond ok\n}\n", i, i)
	}
	file := filepath.Join(t.TempDir(), "Caddyfile")
	writeFile(t, file, config)
	r := startServer(t, func(o *Options) { o.Config, o.HTTPSPort, o.HTTPPort = file, 0, 0 })
	root := r.root()
	for _, name := range names {
		if err := r.verifies(port, name, root); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAnIntermediateMadeByAnotherProcessIsServedAtOnce lets a server run whose
// intermediates have ended, and which cannot follow them since the root's key is
// elsewhere. When the key is lent to a command, the site gets a chain that verifies,
// without a restart.
func TestAnIntermediateMadeByAnotherProcessIsServedAtOnce(t *testing.T) {
	port := posterntest.FreePort(t)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	writeFile(t, file,
		fmt.Sprintf("{\n https_port %d\n http_port %d\n default_bind 127.0.0.1\n}\nlocalhost {\n respond ok\n}\n",
			port, posterntest.FreePort(t)))
	var key crypto.Signer
	r := startServer(t, func(o *Options) {
		o.Config, o.HTTPSPort, o.HTTPPort = file, 0, 0
		a, _ := elevenYearsAgo(t, o.State)
		key = removeRootKey(t, a)
	})
	root := r.root()
	if err := r.verifies(port, "localhost", root); err == nil {
		t.Fatal("a chain verifies whose intermediate has ended")
	}
	a, err := ca.Open(t.Context(), ca.Config{}, r.open().Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.NewIntermediate(t.Context(), ca.Server, key); err != nil {
		t.Fatal(err)
	}
	r.awaitSite(port, "localhost", root)
}

// TestARootMadeByAnotherProcessIsServedAtOnce lets a server run while a command makes the
// next root and retires the one before: clients that trust either of them, and then the new
// one, verify its site without a restart.
func TestARootMadeByAnotherProcessIsServedAtOnce(t *testing.T) {
	r := startServer(t, nil)
	port, first := r.opts.HTTPSPort, r.root()
	r.awaitSite(port, "localhost", first)
	a, err := ca.Open(t.Context(), ca.Config{}, r.open().Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.NewRoot(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	second := a.Root()
	r.await(func() bool {
		return r.verifies(port, "localhost", first) == nil && r.verifies(port, "localhost", second) == nil
	})
	file := filepath.Join(r.opts.State, rootFile)
	r.await(func() bool { return holds(t, file, a.Roots()) })
	if err := a.Retire(t.Context(), ca.RetireRequest{ID: "root", Revoke: true}); err != nil {
		t.Fatal(err)
	}
	r.await(func() bool { return holds(t, file, a.Roots()) })
}

// TestWhatEndsIsReported lets a root end in half a year, and with it its intermediates: it
// alone is reported, until another root has followed it.
func TestWhatEndsIsReported(t *testing.T) {
	st, err := state.Create(t.Context(), t.TempDir())
	must(t, err)
	t.Cleanup(func() { st.Close() })
	now := time.Now()
	a, err := ca.Init(t.Context(), ca.Config{
		Now: func() time.Time {
			return now
		}, RootValidity: 1000 * 24 * time.Hour, IntermediateValidity: 1000 * 24 * time.Hour,
	}, st.Store.CA())
	must(t, err)
	c := checks{&server{state: st, authority: a}, map[[2]string]string{}}
	reported := func() (ids []string) {
		c.checkCAs(t.Context(), now)
		for key, wrong := range c.recorded {
			if wrong != "" {
				ids = append(ids, key[1])
			}
		}
		return ids
	}
	if ids := reported(); len(ids) > 0 {
		t.Errorf("%v end soon", ids)
	}
	now = now.Add(980 * 24 * time.Hour)
	if ids := reported(); len(ids) != 1 || ids[0] != "root" {
		t.Errorf("%v end soon, want the root alone", ids)
	}
	_, err = a.NewRoot(t.Context(), nil)
	must(t, err)
	if ids := reported(); len(ids) > 0 {
		t.Errorf("%v end soon, and others have followed them", ids)
	}
}

// holds reports whether a file has these certificates and no others.
func holds(t *testing.T, file string, certs []*x509.Certificate) bool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(data, ca.EncodeCertificates(certs...))
}

func removeRootKey(t *testing.T, a *ca.Authority) crypto.Signer {
	t.Helper()
	exported, err := a.ExportRootKey(t.Context(), "", []byte("a passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.ParseKey(exported, []byte("a passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.RemoveRootKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return key
}

// awaitSite waits until a site has its certificate, which it gets in the background.
func (r *running) awaitSite(port int, name string, root *x509.Certificate) {
	r.t.Helper()
	r.await(func() bool { return r.verifies(port, name, root) == nil })
}

// verifies returns an error unless a site at a port shows a chain to a root that is
// valid now.
func (r *running) verifies(port int, name string, root *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(root)
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: name}}
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	return conn.Close()
}

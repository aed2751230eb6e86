package pkcs11

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"golang.org/x/crypto/ocsp"
	"golang.org/x/crypto/ssh"
)

// TestMain lets this program be the process with the module, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == module.Command {
		if err := module.Serve(); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (hint: %s)", err, postern.HintOf(err))
	}
}

// unavailable fails unless the error is Unavailable, contains the words, and says
// what to do.
func unavailable(t *testing.T, err error, words string) {
	t.Helper()
	if postern.CodeOf(err) != postern.Unavailable || err == nil || !strings.Contains(err.Error(), words) ||
		postern.HintOf(err) == "" {
		t.Errorf("%v (hint: %s), want %q", err, postern.HintOf(err), words)
	}
}

func newKeys(t *testing.T) *Keys {
	k := &Keys{ReadPIN: os.ReadFile}
	t.Cleanup(func() {
		for _, d := range k.hsms {
			if d.process != nil {
				d.process.stop()
			}
		}
	})
	return k
}

func newAuthority(t *testing.T, cfg ca.Config) (*ca.Authority, *store.DB) {
	t.Helper()
	db := storetest.Open(t)
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "dan"}))
	a, err := ca.Init(t.Context(), cfg, db.CA())
	must(t, err)
	return a, db
}

// use has an authority sign all that it can sign, and verifies that.
func use(t *testing.T, a *ca.Authority) {
	t.Helper()
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
	must(t, err)
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.Root())
	inter.AddCert(server.Chain[0])
	_, err = server.Leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter})
	must(t, err)
	must(t, a.Revoke(t.Context(), server.Serial, postern.Superseded, postern.Actor{}))
	list, err := a.CRL(t.Context(), server.Issuer)
	must(t, err)
	crl, err := x509.ParseRevocationList(list.DER)
	must(t, err)
	must(t, crl.CheckSignatureFrom(server.Chain[0]))
	if !revokes(crl, server.Leaf) {
		t.Error("the list does not hold what is revoked")
	}
	if got := ask(t, a, server); got != ocsp.Revoked {
		t.Errorf("OCSP says %d", got)
	}
	_, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	pub, err := ssh.NewPublicKey(newKey(t).Public())
	must(t, err)
	login, err := a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: pub})
	must(t, err)
	check := &ssh.CertChecker{IsUserAuthority: func(key ssh.PublicKey) bool {
		_, all, err := a.SSHCA(ca.SSHUser)
		return err == nil && string(all[0].Marshal()) == string(key.Marshal())
	}}
	must(t, check.CheckCert("dan", login.Cert))
	_, err = a.SignSSHHost(t.Context(), ca.SSHHostRequest{Names: []string{"www.example.com"}, Key: pub})
	must(t, err)
}

func newKey(t *testing.T) crypto.Signer {
	key, err := ca.GenerateKey(ca.P256)
	must(t, err)
	return key
}

func revokes(crl *x509.RevocationList, cert *x509.Certificate) bool {
	for _, e := range crl.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			return true
		}
	}
	return false
}

// ask asks over OCSP.
func ask(t *testing.T, a *ca.Authority, c *ca.Issued) int {
	t.Helper()
	req, err := ocsp.CreateRequest(c.Leaf, c.Chain[0], nil)
	must(t, err)
	answer, err := a.OCSP(t.Context(), req)
	must(t, err)
	resp, err := ocsp.ParseResponse(answer.DER, c.Chain[0])
	must(t, err)
	return resp.Status
}

// TestAuthorityInAnHSM makes all keys in an HSM, and only the root's; uses
// them; and again after a restart.
func TestAuthorityInAnHSM(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	for _, cfg := range []ca.Config{
		{KeyURI: hsm.URI("")},
		{RootKeyURI: hsm.URI(""), Algorithm: ca.RSA3072, SSHAlgorithm: ca.Ed25519},
		{KeyURI: hsm.URI(""), RootKeyURI: ca.KeyInStore, Algorithm: ca.P384, SSHAlgorithm: ca.RSA3072},
	} {
		cfg.Keys = newKeys(t)
		a, db := newAuthority(t, cfg)
		use(t, a)
		for _, i := range a.Issuers() {
			stored := cfg.KeyURI == ""
			if i.Role == ca.Root {
				stored = cfg.RootKeyURI == ca.KeyInStore
			}
			if (i.KeyURI == "") != stored {
				t.Errorf("the key of the %s CA is at %q", i.ID, i.KeyURI)
			}
		}
		_, err := a.ExportRootKey(t.Context(), "", []byte("a passphrase"))
		if (postern.CodeOf(err) == postern.Invalid) == (cfg.RootKeyURI == ca.KeyInStore) {
			t.Errorf("export of the root's key: %v", err)
		}
		must(t, a.CheckKey(t.Context(), "root"))
		i, err := a.NewIntermediate(t.Context(), ca.Server, nil)
		must(t, err)
		if (i.KeyURI == "") != (cfg.KeyURI == "") || i.KeyURI == a.Issuers()[1].KeyURI && i.KeyURI != "" {
			t.Errorf("the next key is at %q", i.KeyURI)
		}
		a, err = ca.Open(t.Context(), ca.Config{Keys: newKeys(t)}, db.CA())
		must(t, err)
		use(t, a)
	}
	if got := hsm.P11Tool("--list-privkeys"); strings.Contains(got, "CKA_EXTRACTABLE") ||
		!strings.Contains(got, "CKA_SENSITIVE") {
		t.Error(got)
	}
}

// TestKeyThatIsThere takes keys that others made: one wants the PIN for each
// signature, as those of a YubiKey's slot 9c do.
func TestKeyThatIsThere(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	hsm.P11Tool("--generate-ecc", "--curve=secp256r1", "--label=plain", "--id=07", "pkcs11:token=postern")
	hsm.P11Tool("--generate-rsa", "--bits=2048", "--label=careful", "--mark-always-authenticate",
		"pkcs11:token=postern")
	for _, name := range []string{";object=plain", ";id=%07", ";object=careful"} {
		cfg := ca.Config{RootKeyURI: hsm.URI(name), Keys: newKeys(t)}
		a, db := newAuthority(t, cfg)
		use(t, a)
		a, err := ca.Open(t.Context(), ca.Config{Keys: newKeys(t)}, db.CA())
		must(t, err)
		_, err = a.NewIntermediate(t.Context(), ca.Client, nil)
		must(t, err)
	}
	_, err := ca.Init(t.Context(), ca.Config{KeyURI: hsm.URI(";object=plain"), Keys: newKeys(t)},
		storetest.Open(t).CA())
	if postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), "would have one key") {
		t.Errorf("one key for all: %v", err)
	}
}

// TestWhatIsWrongIsSaid opens HSMs that cannot be opened.
func TestWhatIsWrongIsSaid(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	for uri, words := range map[string]string{
		"pkcs11:token=other?module-path=" + hsm.Module: "there is no such token",
		"pkcs11:?module-path=/nowhere.so":              "its module cannot be loaded",
		"pkcs11:?module-path=/etc/hostname":            "its module cannot be loaded",
		"pkcs11:?module-path=" + hsm.Module:            "it wants a PIN",
		hsm.URI("") + ".not":                           "no such file",
		hsm.URI(";object=other"):                       "there is no such key",
	} {
		_, _, err := newKeys(t).CreateKey(t.Context(), uri, "root", ca.P256)
		unavailable(t, err, words)
	}
	// Without a module's file p11-kit knows it.
	_, _, err := newKeys(t).CreateKey(t.Context(), "pkcs11:token=postern?pin-source="+hsm.PINFile, "root", ca.P256)
	must(t, err)
}

// TestDeviceThatGoesAndComes has everything go on that needs no key, and the rest
// again without a restart.
func TestDeviceThatGoesAndComes(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	var skew time.Duration
	keys := newKeys(t)
	a, db := newAuthority(t, ca.Config{KeyURI: hsm.URI(""), Keys: keys, Now: func() time.Time {
		return time.Now().Add(skew)
	}})
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
	must(t, err)
	ask(t, a, server)
	_, err = a.CRL(t.Context(), "server")
	must(t, err)

	hsm.Unplug()
	onlyHSM(t, keys).process.stop()
	again := func() error {
		_, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
		return err
	}
	unavailable(t, again(), "there is no such token")
	unavailable(t, again(), "there is no such token")
	unavailable(t, a.CheckKey(t.Context(), "server"), "there is no such token")
	skew = 5 * 24 * time.Hour // past half the life of the list and of the OCSP signer
	if got := ask(t, a, server); got != ocsp.Good {
		t.Errorf("OCSP says %d", got)
	}
	list, err := a.CRL(t.Context(), "server")
	must(t, err)
	inter := a.Chain(ca.Client)[0]
	unavailable(t, a.Revoke(t.Context(), ca.SerialString(inter.SerialNumber), postern.Superseded, postern.Actor{}),
		"there is no such token")
	must(t, a.Revoke(t.Context(), server.Serial, postern.Superseded, postern.Actor{}))
	if got := ask(t, a, server); got != ocsp.Revoked {
		t.Errorf("OCSP says %d", got)
	}
	_, err = a.CRL(t.Context(), "server")
	unavailable(t, err, "there is no such token") // no list that lacks it
	other, err := ca.Open(t.Context(), ca.Config{Keys: newKeys(t)}, db.CA())
	must(t, err) // also at the start
	_, err = other.Holder(t.Context(), []*x509.Certificate{server.Leaf})
	if postern.CodeOf(err) != postern.Denied {
		t.Error(err)
	}

	hsm.Plug()
	forget(onlyHSM(t, keys))
	must(t, again())
	newer, err := a.CRL(t.Context(), "server")
	must(t, err)
	if newer.Number <= list.Number {
		t.Error("the list was not signed again")
	}
}

// onlyHSM returns the HSM that is in use.
func onlyHSM(t *testing.T, k *Keys) *hsm {
	t.Helper()
	if len(k.hsms) != 1 {
		t.Fatalf("%d HSMs", len(k.hsms))
	}
	for _, d := range k.hsms {
		return d
	}
	return nil
}

// forget ends the time for which an HSM that failed is not tried again.
func forget(d *hsm) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.since = time.Time{}
}

func createKey(t *testing.T, hsm *posterntest.SoftHSM, k *Keys) (crypto.Signer, string) {
	t.Helper()
	key, uri, err := k.CreateKey(t.Context(), hsm.URI(""), "root", ca.P256)
	must(t, err)
	return key, uri
}

func sign(key crypto.Signer) error {
	digest := sha256.Sum256([]byte("data"))
	_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	return err
}

// TestWrongPINIsTriedOnce keeps the HSM from locking itself.
func TestWrongPINIsTriedOnce(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	keys := newKeys(t)
	key, _ := createKey(t, hsm, keys)
	d := onlyHSM(t, keys)
	d.process.stop()
	hsm.SetPIN("4321")
	unavailable(t, sign(key), "does not take the PIN")
	if d.refused != sha256.Sum256([]byte("4321")) {
		t.Error("the wrong PIN is not remembered")
	}
	forget(d)
	if _, err := d.pin(); !errors.Is(err, module.ErrWrongPIN) {
		t.Errorf("the wrong PIN is tried again: %v", err)
	}
	unavailable(t, sign(key), "does not take the PIN")
	hsm.SetPIN("1234")
	forget(d)
	must(t, sign(key))
}

// TestKeyThatIsGone deletes a key beside us, and puts another one in its place.
func TestKeyThatIsGone(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	keys := newKeys(t)
	key, uri := createKey(t, hsm, keys)
	must(t, sign(key))
	foreign, err := keys.OpenKey(uri, newKey(t).Public())
	must(t, err)
	unavailable(t, sign(foreign), "another one")
	hsm.P11Tool("--delete", "pkcs11:token=postern;object=postern%20root;type=private")
	unavailable(t, sign(key), "there is no such key")
	unavailable(t, key.(interface{ Check() error }).Check(), "there is no such key")
	second, _ := createKey(t, hsm, keys)
	must(t, sign(second)) // the HSM itself works
}

// TestModuleThatFails kills and stops the process that the module is in.
func TestModuleThatFails(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	keys := newKeys(t)
	key, _ := createKey(t, hsm, keys)
	d := onlyHSM(t, keys)
	must(t, d.process.cmd.Process.Kill())
	must(t, sign(key))
	p := d.process
	halt(t, p.cmd.Process)
	unavailable(t, d.call(module.Find, module.Key{}, &module.None{}, 50*time.Millisecond), "does not answer in time")
	unavailable(t, sign(key), "does not answer in time") // and does not wait for the call before
	forget(d)
	must(t, sign(key))
	if err := p.cmd.Process.Signal(syscall.Signal(0)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the process that hangs is still there: %v", err)
	}
}

// halt stops a process, and waits until all of its threads have stopped.
func halt(t *testing.T, p *os.Process) {
	t.Helper()
	must(t, p.Signal(syscall.SIGSTOP))
	runs := func(file string) bool {
		text, err := os.ReadFile(file)
		return err == nil && !strings.Contains(string(text), ") T ")
	}
	for {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid))
		must(t, err)
		if !slices.ContainsFunc(threads, runs) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestManySignAtOnce shares the sessions, while the process dies under them.
func TestManySignAtOnce(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	keys := newKeys(t)
	key, _ := createKey(t, hsm, keys)
	p := onlyHSM(t, keys).process
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for range 20 {
				if ctx.Err() == nil {
					if err := sign(key); err != nil {
						t.Error(err)
						cancel()
					}
				}
			}
			if i == 0 {
				_ = p.cmd.Process.Kill()
			}
		})
	}
	wg.Wait()
}

package ca_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/crypto/ssh"
)

func sshKey(t testing.TB) ssh.PublicKey {
	t.Helper()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err := ssh.NewPublicKey(pub)
	must(t, err)
	return key
}

func TestSSHCertificatesAsOpenSSHReadsThem(t *testing.T) {
	keygen := posterntest.Need(t, "ssh-keygen")
	for _, alg := range []ca.Algorithm{ca.P256, ca.P384, ca.Ed25519, ca.RSA3072} {
		t.Run(string(alg), func(t *testing.T) {
			a, _ := newAuthority(t, ca.Config{SSHAlgorithm: alg})
			user, err := a.SignSSHUser(t.Context(), ca.SSHUserRequest{
				Person: "dan", Key: sshKey(t), Principals: []string{"dan", "root"},
				Sources:      []string{"192.0.2.7", "2001:db8::/32"},
				ForceCommand: "/bin/true", Extensions: []string{"permit-pty", "permit-port-forwarding"},
			})
			must(t, err)
			text := runs(t, keygen, "-L", "-f", write(t, "u-cert.pub", user.Line()))
			for _, want := range []string{
				"user certificate", `Key ID: "dan"`, "Serial: 1\n", "root",
				"force-command /bin/true", "source-address 192.0.2.7/32,2001:db8::/32", "permit-port-forwarding",
				"permit-pty",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("ssh-keygen -L lacks %q:\n%s", want, text)
				}
			}
			host, err := a.SignSSHHost(t.Context(), ca.SSHHostRequest{
				Names: []string{"host.example.com", "192.0.2.1"},
				Key:   sshKey(t),
			})
			must(t, err)
			text = runs(t, keygen, "-L", "-f", write(t, "h-cert.pub", host.Line()))
			if !strings.Contains(text, "host certificate") || !strings.Contains(text, "host.example.com") ||
				!strings.Contains(text, "Critical Options: (none)") {
				t.Errorf("host certificate:\n%s", text)
			}
		})
	}
}

func TestKRLAsOpenSSHReadsIt(t *testing.T) {
	keygen := posterntest.Need(t, "ssh-keygen")
	a, _ := newAuthority(t, ca.Config{})
	sign := func() *ca.SSHIssued {
		c, err := a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: sshKey(t)})
		must(t, err)
		return c
	}
	var certs []*ca.SSHIssued
	for range 12 {
		certs = append(certs, sign())
	}
	revoked := map[int]bool{0: true, 3: true, 4: true, 5: true, 6: true, 9: true}
	for i := range revoked {
		must(t, a.RevokeSSH(t.Context(), certs[i].Serial, postern.Actor{}))
	}
	key, other := sshKey(t), sshKey(t)
	certOfKey, err := a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: key})
	must(t, err)
	must(t, a.RevokeSSHKey(t.Context(), key, postern.Actor{}))
	must(t, a.RevokeSSHKey(t.Context(), sshKey(t), postern.Actor{}))
	_, err = a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: key})
	wantCode(t, err, postern.Denied, "revoked")
	krl, err := a.KRL(t.Context())
	must(t, err)
	path := write(t, "krl", krl)
	check := func(name string, line []byte, want bool) {
		t.Helper()
		file := write(t, "k.pub", line)
		out, err := exec.Command(keygen, "-Q", "-f", path, file).CombinedOutput()
		if got := strings.Contains(string(out), "REVOKED"); got != want || (err != nil) != want {
			t.Errorf("%s: revoked %v, want %v (%v): %s", name, got, want, err, out)
		}
	}
	for i, c := range certs {
		check(fmt.Sprint("certificate ", i), c.Line(), revoked[i])
	}
	check("revoked key", ssh.MarshalAuthorizedKey(key), true)
	check("certificate of a revoked key", certOfKey.Line(), true)
	check("another key", ssh.MarshalAuthorizedKey(other), false)
	if out := runs(t, keygen, "-Q", "-l", "-f", path); !strings.Contains(out, "serial: 4-7") {
		t.Errorf("ssh-keygen -Ql:\n%s", out)
	}
}

func TestKnownHosts(t *testing.T) {
	keygen := posterntest.Need(t, "ssh-keygen")
	a, _ := newAuthority(t, ca.Config{})
	lines, err := a.KnownHosts("*.example.com")
	must(t, err)
	if !strings.HasPrefix(lines, "@cert-authority *.example.com ecdsa-sha2-nistp256 ") {
		t.Errorf("known_hosts %q", lines)
	}
	out := runs(t, keygen, "-l", "-F", "host.example.com", "-f", write(t, "known_hosts", []byte(lines)))
	newest, _, err := a.SSHCA(ca.SSHHost)
	must(t, err)
	if !strings.Contains(out, ssh.FingerprintSHA256(newest)) {
		t.Errorf("ssh-keygen -l: %s", out)
	}
	_, err = a.KnownHosts("x y")
	wantCode(t, err, postern.Invalid, "pattern")
}

func TestSSHRefusals(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	caKey, _, err := a.SSHCA(ca.SSHUser)
	must(t, err)
	good := sshKey(t)
	for _, c := range []struct {
		r     ca.SSHUserRequest
		words string
	}{
		{ca.SSHUserRequest{}, "no SSH public key"},
		{ca.SSHUserRequest{Key: caKey}, "key of the ssh-user CA"},
		{ca.SSHUserRequest{Key: good, Principals: []string{}}, "principals"},
		{ca.SSHUserRequest{Key: good, Principals: []string{"a,b"}}, "principal"},
		{ca.SSHUserRequest{Key: good, Sources: []string{"everywhere"}}, "not an address"},
		{ca.SSHUserRequest{Key: good, ForceCommand: "a\nb"}, "control character"},
		{ca.SSHUserRequest{Key: good, Extensions: []string{"permit-all"}}, "unknown SSH extension"},
		{ca.SSHUserRequest{Key: good, Validity: -1}, "validity"},
	} {
		c.r.Person = "dan"
		if _, err := a.SignSSHUser(t.Context(), c.r); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%+v: %v, want %q", c.r, err, c.words)
		}
	}
	_, err = a.SignSSHHost(t.Context(), ca.SSHHostRequest{Names: []string{"*.example.com"}, Key: good})
	wantCode(t, err, postern.Invalid, "wildcard")
}

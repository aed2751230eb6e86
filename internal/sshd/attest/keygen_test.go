package attest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/crypto/ssh"
)

// TestSSHKeygen has ssh-keygen make keys and attestations with a FIDO2 key in software.
func TestSSHKeygen(t *testing.T) {
	provider := posterntest.NewSecurityKeyProvider(t)
	challenge := filepath.Join(t.TempDir(), "challenge")
	if err := os.WriteFile(challenge, []byte("a challenge"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind string
		want Key
		more []string
	}{
		{"ed25519-sk", Key{}, nil},
		{"ed25519-sk", Key{VerifyRequired: true}, []string{"-O", "verify-required"}},
		{"ecdsa-sk", Key{}, nil},
		{"ecdsa-sk", Key{VerifyRequired: true}, []string{"-O", "verify-required"}},
	} {
		file := filepath.Join(t.TempDir(), "key")
		keygen := exec.Command("ssh-keygen", append([]string{
			"-q", "-t", c.kind, "-w", provider.Library, "-N", "", "-f", file,
			"-O", "challenge=" + challenge, "-O", "write-attestation=" + file + ".attestation",
		}, c.more...)...)
		keygen.Env = provider.Env
		if out, err := keygen.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", c.kind, c.more, err, out)
		}
		line, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			t.Fatal(err)
		}
		made, err := os.ReadFile(file + ".attestation")
		if err != nil {
			t.Fatal(err)
		}
		c.want.Public, c.want.Maker = key, "Software Keys"
		c.want.AAGUID = uuid([]byte("postern software"))
		got, err := Check(made, []byte("a challenge"), key, Trust{Roots: provider.Roots}, time.Now())
		if err != nil || got.AAGUID != c.want.AAGUID || got.Maker != c.want.Maker ||
			got.VerifyRequired != c.want.VerifyRequired {
			t.Errorf("%s %v: %+v, %v", c.kind, c.more, got, err)
		}
		_, err = Check(made, []byte("a challenge"), key, Trust{Roots: Roots()}, time.Now())
		if postern.CodeOf(err) != postern.Denied {
			t.Errorf("%s %v: a maker that is not known: %v", c.kind, c.more, err)
		}
	}
}

package server_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/crypto/ssh"
)

// enrol makes a key with ssh-keygen and enrols it for alice.
func (r *signRig) enrol(t *testing.T, p *posterntest.SecurityKeyProvider, file string, change func(*client.Enrol)) (
	sign.EnrolAnswer, error,
) {
	t.Helper()
	e := client.Enrol{
		Login: client.Login{
			Server: r.url, CA: r.root, Person: "alice", Key: file + ".pub",
			Code: func(string) (string, error) { return r.Touch(t, "alice"), nil },
		},
		Type: "ed25519-sk", Provider: p.Library,
		Keygen: func(c *exec.Cmd) error {
			c.Args, c.Env = append(c.Args, "-q", "-N", ""), p.Env
			return c.Run()
		},
	}
	if change != nil {
		change(&e)
	}
	return e.Run(t.Context())
}

// TestEnrolledKeysOpenHosts enrols a FIDO2 key with its attestation, has a certificate
// issued for it and for no other key, and logs in to a real sshd with it.
func TestEnrolledKeysOpenHosts(t *testing.T) {
	posterntest.NeedRoot(t)
	provider := posterntest.NewSecurityKeyProvider(t)
	rig := newSignRig(t, "alice")
	h := certificateHost(t, rig)
	known := rig.knownHosts(t, h)
	write := func(name string, content []byte) {
		if err := os.WriteFile(rig.State.Path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(server.SSHRulesFile, []byte(`[{"key": "key.attested && key.user_verified"}]`))
	file := filepath.Join(h.Dir, "id_ed25519_sk")

	if _, err := rig.enrol(t, provider, file, nil); postern.CodeOf(err) != postern.Denied {
		t.Fatalf("a key of a maker that is not known is enrolled: %v", err)
	}
	if _, err := rig.login(t, file+".pub", rig.Touch(t, "alice"), nil); postern.CodeOf(err) != postern.Denied {
		t.Errorf("a key that is not enrolled gets a certificate: %v", err)
	}
	write(server.FIDORootsFile, provider.RootPEM)
	if _, err := rig.enrol(t, provider, file, nil); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a key that is there is made again: %v", err)
	}
	for _, f := range []string{file, file + ".pub"} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	write(server.FIDOMetadataFile, []byte("metadata"))
	if _, err := rig.enrol(t, provider, file+"-unknown", nil); err == nil {
		t.Error("a key is enrolled while the metadata cannot be read")
	}
	if err := os.Remove(rig.State.Path(server.FIDOMetadataFile)); err != nil {
		t.Fatal(err)
	}
	k, err := rig.enrol(t, provider, file, nil)
	if err != nil || k.Person != "alice" || k.Maker != "Software Keys" || !k.Verified {
		t.Fatalf("%+v, %v", k, err)
	}
	if _, err := rig.login(t, h.KeyFile+".pub", rig.Touch(t, "alice"), nil); postern.CodeOf(err) != postern.Denied ||
		postern.HintOf(err) == "" {
		t.Errorf("a key in a file gets a certificate: %v", err)
	}
	if _, err := rig.login(t, file+".pub", rig.Touch(t, "alice"), nil); err != nil {
		t.Fatal(err)
	}
	certificate, err := os.ReadFile(file + "-cert.pub")
	if err != nil {
		t.Fatal(err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(certificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, required := public.(*ssh.Certificate).CriticalOptions["verify-required"]; !required {
		t.Error("the certificate does not require the PIN")
	}
	login := func() (string, error) {
		cmd := h.Command("ssh", "-F", "none", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+known,
			"-o", "SecurityKeyProvider="+provider.Library, "-o", "IdentitiesOnly=yes",
			"-o", "PreferredAuthentications=publickey", "-i", file, "alice@127.0.0.1", "id -un")
		cmd.Env = provider.Env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := login(); err != nil || !strings.HasSuffix(out, "alice\n") {
		t.Errorf("%v: %s\n%s", err, out, h.Log())
	}
	provider.Touch(t, false)
	if out, err := login(); err == nil {
		t.Errorf("without a touch: %s", out)
	}
	provider.Touch(t, true)
	provider.TypePIN(t, "000000")
	if out, err := login(); err == nil {
		t.Errorf("with a wrong PIN: %s", out)
	}

	events, err := rig.State.Store.Timeline().Events(t.Context(), timeline.Filter{
		Kind: postern.EventSSHKeyAdded, Outcome: postern.OK,
	})
	if err != nil || len(events) != 1 || events[0].Details["maker"] != "Software Keys" ||
		timeline.Sentence(events[0], nil) != "alice, from 127.0.0.1, was given the SSH key "+k.Fingerprint+"." {
		t.Errorf("%+v, %v", events, err)
	}
	if err := rig.State.Store.People().SetCredentialStatus(t.Context(), postern.SSHKey, k.Fingerprint,
		postern.CredentialDisabled); err != nil {
		t.Fatal(err)
	}
	for _, rules := range []string{`[{"key": "key.attested"}, {}]`, ``} {
		write(server.SSHRulesFile, []byte(rules))
		if _, err := rig.login(t, file+".pub", rig.Touch(t, "alice"), nil); postern.CodeOf(err) != postern.Denied {
			t.Errorf("a disabled key gets a certificate by %q: %v", rules, err)
		}
	}
	if err := server.EnrolSSHKey(t.Context(), rig.State, postern.Actor{}, sign.EnrolledKey{
		Person: "alice", Public: public.(*ssh.Certificate).Key,
	}); postern.CodeOf(err) != postern.Denied {
		t.Errorf("a disabled key is enabled by enrolling it: %v", err)
	}
}

// TestEnrolmentsThatProveNothing tries what an attacker with a code of alice's has.
func TestEnrolmentsThatProveNothing(t *testing.T) {
	provider := posterntest.NewSecurityKeyProvider(t)
	rig := newSignRig(t, "alice", "bob")
	if err := os.WriteFile(rig.State.Path(server.FIDORootsFile), provider.RootPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	asBob := func(e *client.Enrol) {
		e.Person, e.Code = "bob", func(string) (string, error) { return rig.Touch(t, "bob"), nil }
	}
	bobs := filepath.Join(dir, "bob")
	if _, err := rig.enrol(t, provider, bobs, asBob); err != nil {
		t.Fatal(err)
	}
	// sends has another file sent than ssh-keygen wrote behind an argument.
	sends := func(argument, extension, with string) func(*client.Enrol) {
		return func(e *client.Enrol) {
			e.Keygen = func(c *exec.Cmd) error {
				c.Args, c.Env = append(c.Args, "-q", "-N", ""), provider.Env
				i := slices.IndexFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, argument) })
				b, err := os.ReadFile(with)
				err = errors.Join(err, c.Run())
				file := strings.TrimPrefix(c.Args[i], "write-attestation=") + extension
				return errors.Join(err, os.WriteFile(file, b, 0o600))
			}
		}
	}
	_, keyFile := posterntest.NewSSHKey(t, dir, "ordinary")
	for name, change := range map[string]func(*client.Enrol){
		"a key in a file":      sends(dir, ".pub", keyFile+".pub"),
		"another person's key": sends(dir, ".pub", bobs+".pub"),
		"no attestation":       sends("write-attestation=", "", os.DevNull),
		"a wrong code": func(e *client.Enrol) {
			e.Code = func(string) (string, error) { return "cccc", nil }
		},
		"a code of another person": func(e *client.Enrol) {
			e.Code = func(string) (string, error) { return rig.Touch(t, "bob"), nil }
		},
		"a person who is not there": func(e *client.Enrol) { e.Person = "carol" },
	} {
		file := filepath.Join(dir, "alice "+name)
		if _, err := rig.enrol(t, provider, file, change); err == nil || postern.CodeOf(err) == postern.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := rig.OneTime.Close(); err != nil {
		t.Fatal(err)
	}
	refused, err := rig.State.Store.Timeline().Events(t.Context(), timeline.Filter{
		Kind: postern.EventSSHKeyAdded, Outcome: postern.Refused, Person: "alice",
	})
	if err != nil || len(refused) != 3 {
		t.Errorf("%d refused keys are on the timeline: %+v, %v", len(refused), refused, err)
	}
	for _, person := range []string{"alice", "bob"} {
		list, err := rig.State.Store.People().CredentialsOf(t.Context(), person)
		if err != nil {
			t.Fatal(err)
		}
		n := len(slices.DeleteFunc(list, func(c postern.Credential) bool { return c.Kind != postern.SSHKey }))
		if n != map[string]int{"bob": 1}[person] {
			t.Errorf("%s has %d SSH keys", person, n)
		}
	}
}

package sshd_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/sshd/socket"
	"golang.org/x/crypto/ssh"
)

// TestCertificatesWithoutAServer logs in by an SSH certificate while no server answers.
// Who is suspended is refused by a server that answers, and else by the KRL.
func TestCertificatesWithoutAServer(t *testing.T) {
	posterntest.NeedRoot(t)
	authority, caFile := posterntest.NewSSHKey(t, t.TempDir(), "ca")
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files: servertest.SSHDFiles(t, setup.Setup{
			Mode: setup.Certificates, UserCA: ssh.MarshalAuthorizedKey(authority.PublicKey()),
			Module: posterntest.PAMModule(t) + " timeout=1", Socket: "@DIR@/pam.sock",
		}, ""),
	})
	rig := servertest.NewSSH(t, "alice")
	pam := filepath.Join(h.Dir, "pam.sock")
	certificate := posterntest.SSHCertificate(t, authority, h.Key, "alice")
	try := func(what string, key ssh.Signer, opens bool) {
		t.Helper()
		client, err := h.Connect("alice", nil, ssh.PublicKeys(key))
		if err == nil {
			client.Close()
		}
		if (err == nil) != opens {
			t.Errorf("%s: %v\n%s", what, err, h.Log())
		}
	}
	try("no server", certificate, true)
	try("no server, a key without a certificate", h.Key, false)
	stop := mute(t, pam, 0o600, func(c net.Conn) { _, _ = c.Read(make([]byte, 2000)) })
	try("a server that ends mid-question", certificate, true)
	stop()
	ended := make(chan struct{})
	stop = mute(t, pam, 0o600, func(net.Conn) { <-ended })
	try("a server that hangs", certificate, true)
	close(ended)
	stop()
	if err := rig.State.Store.People().SetPersonStatus(t.Context(), "alice", postern.PersonSuspended); err != nil {
		t.Fatal(err)
	}
	stop = rig.Serve(t, pam, socket.Config{}, 0o600)
	try("a suspended person", certificate, false)
	stop()
	list := filepath.Join(t.TempDir(), "serials")
	if err := os.WriteFile(list, []byte("serial: 4711\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh-keygen", "-k", "-f", h.Inside(setup.KRLFile), "-s", caFile+".pub", list).
		CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	try("no server, a suspended person", certificate, false)
}

// TestKeysWithoutAServer refuses hardware keys while no server answers: nothing but its
// answer says that their person is not suspended.
func TestKeysWithoutAServer(t *testing.T) {
	posterntest.NeedRoot(t)
	key := posterntest.NewSecurityKey(t, false)
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files: servertest.SSHDFiles(t, setup.Setup{
			Mode: setup.HardwareKey, Module: posterntest.PAMModule(t) + " timeout=1", Socket: "@DIR@/pam.sock",
		}, ""),
	})
	h.Authorize(t, "alice", "", key.PublicKey())
	if client, err := h.Connect("alice", nil, ssh.PublicKeys(key)); err == nil {
		client.Close()
		t.Error("a key was accepted without a server")
	}
	rig := servertest.NewSSH(t, "alice")
	defer rig.Serve(t, filepath.Join(h.Dir, "pam.sock"), socket.Config{}, 0o600)()
	client, err := h.Connect("alice", nil, ssh.PublicKeys(key))
	if err != nil {
		t.Fatalf("with a server: %v\n%s", err, h.Log())
	}
	client.Close()
}

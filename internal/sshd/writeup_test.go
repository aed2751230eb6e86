package sshd_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/otp"
	"golang.org/x/crypto/ssh"
)

// writeUpPAM is the PAM file of the write-up, its module's name left open.
const writeUpPAM = `auth required pam_env.so # [1]
auth required pam_env.so envfile=/etc/default/locale
auth sufficient @MODULE@
@include common-auth
account required pam_nologin.so
@include common-account
session required pam_loginuid.so
`

// writeUpHost is a host with the write-up's own files, to which Postern's
// validation service is api.yubico.com. fred has two keys, as there; jimbob has
// one, and bob none.
func writeUpHost(t *testing.T, module string, more map[string]string) (*posterntest.Host, *servertest.SSH) {
	t.Helper()
	rig := servertest.NewSSH(t, "fred", "spare", "jimbob")
	service := newYubico(t, rig)
	ids := func(who string) string { return rig.Tokens[who].PublicID }
	files := map[string]string{
		"/etc/pam.d/sshd": strings.ReplaceAll(writeUpPAM, "@MODULE@", module),
		"/etc/yubikey_mappings": "fred:" + ids("fred") + ":" + ids(
			"spare",
		) + "\njimbob:" + ids("jimbob") + "\n",
		"/etc/hosts":                         yubicoHosts,
		"/etc/ssl/certs/ca-certificates.crt": service.root,
		"/etc/ssh/sshd_config": "UsePAM yes\nKbdInteractiveAuthentication yes\nAcceptEnv LANG LC_*\n" +
			"Subsystem sftp /usr/lib/openssh/sftp-server\n",
	}
	for path, content := range more {
		files[path] = content
	}
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{
			{Name: "fred", Password: "s3cret"},
			{Name: "jimbob"},
			{Name: "bob"},
		}, Files: files,
	})
	h.Install(t)
	service.serve(t, h)
	return h, rig
}

// yubico is Postern's validation service in the place of api.yubico.com.
type yubico struct {
	root    string // PEM, for ca-certificates.crt
	cert    tls.Certificate
	handler http.Handler
}

func newYubico(t *testing.T, rig *servertest.SSH) yubico {
	t.Helper()
	authority, _, err := ca.Ensure(t.Context(), ca.Config{}, rig.State.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.OneTime.Keys.AddClient(t.Context(), &otp.APIClient{
		ID:     4711,
		Secret: []byte("secret of client 4711"),
	}); err != nil {
		t.Fatal(err)
	}
	key, csr := posterntest.NewCSR(t)
	issued, err := authority.IssueCSR(
		t.Context(), csr,
		ca.SignRequest{Profile: ca.ProfileServer, Names: []string{"api.yubico.com"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	return yubico{
		root:    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Root().Raw})),
		cert:    tls.Certificate{Certificate: [][]byte{issued.Leaf.Raw, issued.Chain[0].Raw}, PrivateKey: key},
		handler: rig.OneTime.Service,
	}
}

// serve answers on a host until stop is called.
func (y yubico) serve(t *testing.T, h *posterntest.Host) (stop func()) {
	t.Helper()
	server := &http.Server{Handler: y.handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{y.cert}}}
	l := h.Listen(t, "tcp", yubicoAddr)
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(l, "", "") }()
	stop = sync.OnceFunc(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// yubicoAddr is where a host's api.yubico.com answers, and yubicoHosts its
// /etc/hosts that says so.
const (
	yubicoAddr  = "127.0.0.1:443"
	yubicoHosts = "127.0.0.1 localhost api.yubico.com\n"
)

// writeUpScript does what the script of old did, and as badly: any line that
// ends a name with the user's is accepted, the answer is not signed, and a command
// with arguments is taken for a program's name.
const writeUpScript = `#!/bin/bash
DEBUG=0
TRUSTED_KEYS_FILE=/etc/yubikey_mappings
YUBICO_API_ID=16
[ -f /etc/yubikey_shell ] && . /etc/yubikey_shell
out() {
	[ "$DEBUG" = 1 ] && echo "$*" >&2
	kill -9 "$PPID"
	exit 1
}
trap out INT
[ -n "$USER" ] && [ -f "$TRUSTED_KEYS_FILE" ] || out "no user, or no keys"
KEYS=$(grep "$USER:" "$TRUSTED_KEYS_FILE" | sed "s/$USER://" | tr : ' ')
echo -n "Please provide Yubi OTP: "
read -rs OTP
echo
for key in $KEYS; do
	[ "${OTP:0:12}" = "$key" ] || continue
	wget -q -O - "https://api.yubico.com/wsapi/verify?id=$YUBICO_API_ID&otp=$OTP" | grep -q status=OK || out "not valid"
	[ -n "$SSH_ORIGINAL_COMMAND" ] && exec "$SSH_ORIGINAL_COMMAND"
	exec $(grep "^$(whoami):" /etc/passwd | cut -d: -f7)
done
out "not trusted"
`

// logsIn reports whether the user gets a shell by the answers to the prompts.
func logsIn(h *posterntest.Host, user string, answers ...string) bool {
	c, err := h.Connect(user, nil, ssh.KeyboardInteractive(posterntest.Answers(answers...)))
	if err != nil {
		return false
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		return false
	}
	out, err := s.Output("id -un")
	return err == nil && string(out) == user+"\n"
}

// TestWriteUpPAMFile has the real libpam-yubico ask Postern's validation
// service, and pam_postern in its place.
func TestWriteUpPAMFile(t *testing.T) {
	posterntest.NeedRoot(t)
	yubico, _ := filepath.Glob("/lib/security/pam_yubico.so")
	if more, _ := filepath.Glob("/lib/*/security/pam_yubico.so"); len(yubico) == 0 {
		yubico = more
	}
	if len(yubico) == 0 {
		posterntest.Missing(t, "needs libpam-yubico")
	}
	for name, module := range map[string]string{
		"pam_yubico":  yubico[0] + " id=4711 authfile=/etc/yubikey_mappings",
		"pam_postern": posterntest.PAMModule(t) + " socket=@DIR@/pam.sock",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, rig := writeUpHost(t, module, nil)
			rig.Map(t, h.Inside("/etc/yubikey_mappings"))
			rig.Serve(t, filepath.Join(h.Dir, "pam.sock"), socket.Config{}, 0o600)
			code := rig.Touch(t, "fred")
			for _, c := range []struct {
				what    string
				user    string
				answers []string
				in      bool
			}{
				{"a code", "fred", []string{code}, true},
				{"it again", "fred", []string{code, "wrong password"}, false},
				{"a code of the second key", "fred", []string{rig.Touch(t, "spare")}, true},
				{"password and code in one", "fred", []string{"s3cret" + rig.Touch(t, "fred")}, true},
				// sufficient is what the write-up says
				{"no code, but the password", "fred", []string{"", "s3cret"}, true},
				{"jimbob's code for bob", "bob", []string{rig.Touch(t, "jimbob"), "wrong"}, false},
				{"jimbob's code for jimbob", "jimbob", []string{rig.Touch(t, "jimbob")}, true},
			} {
				t.Run(c.what, func(t *testing.T) {
					if in := logsIn(h, c.user, c.answers...); in != c.in {
						t.Errorf("in %v, want %v\n%s", in, c.in, h.Log())
					}
				})
			}
		})
	}
}

// TestCheckAsksTheRightSSHD audits what the sshd that runs was started with.
func TestCheckAsksTheRightSSHD(t *testing.T) {
	t.Parallel()
	h, _ := gateHost(t)
	if found := auditHost(t, h); slices.Contains(found, "another-sshd") || slices.Contains(found, "gate-tunnel") {
		t.Errorf("found %q", found)
	}
	sshd := h.Command(
		"/usr/sbin/sshd", "-f", "/etc/ssh/sshd_config", "-oPermitTunnel=yes", "-h",
		filepath.Join(h.Dir, "host"), "-p", "2201",
	)
	if out, err := sshd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for !slices.Contains(auditHost(t, h), "another-sshd") {
		posterntest.Pause(t)
	}
}

// TestCheckWithoutTheDirectoryOfSSHD audits a host without /run/sshd, which sshd -T asks
// for, as one where sshd has not been started since.
func TestCheckWithoutTheDirectoryOfSSHD(t *testing.T) {
	t.Parallel()
	h, _ := gateHost(t)
	want := auditHost(t, h)
	if out, err := h.Command("rmdir", "/run/sshd").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := auditHost(t, h); !slices.Equal(got, want) {
		t.Errorf("found %q without /run/sshd, %q with it", got, want)
	}
	if out, err := h.Command("ls", "-d", "/run/sshd").CombinedOutput(); err == nil {
		t.Errorf("the audit made %s", out)
	}
}

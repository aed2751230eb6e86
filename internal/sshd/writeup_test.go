package sshd_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// comesIn reports whether the user gets a shell by the answers to the prompts.
func comesIn(h *posterntest.Host, user string, answers ...string) bool {
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
					if in := comesIn(h, c.user, c.answers...); in != c.in {
						t.Errorf("in %v, want %v\n%s", in, c.in, h.Log())
					}
				})
			}
		})
	}
}

// gateHost is a host whose sshd asks by ForceCommand, with the write-up's files
// and every channel beside it shut.
func gateHost(t *testing.T) (*posterntest.Host, *servertest.SSH) {
	t.Helper()
	posterntest.NeedRoot(t)
	return writeUpHost(t, "pam_deny.so", map[string]string{
		"/etc/yubikey_shell": "# Configuration for /sbin/yubikey_shell\nYUBICO_API_ID=\"4711\"\n#DEBUG=1\n" +
			"#TRUSTED_KEYS_FILE=/etc/yubikey_mappings\n",
		"/etc/ssh/sshd_config": gateConfig(
			"ForceCommand @DIR@/postern ssh shell --timeout 20s\nDisableForwarding yes\nMaxSessions 1\n" +
				"PermitUserRC no\n",
		),
	})
}

func TestShellTypesTheCode(t *testing.T) {
	t.Parallel()
	h, rig := gateHost(t)
	session := func(t *testing.T, user string, setup func(*ssh.Session)) (*ssh.Session, io.WriteCloser, io.Reader) {
		t.Helper()
		c, err := h.Connect(user, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if setup != nil {
			setup(s)
		}
		in, _ := s.StdinPipe()
		out, _ := s.StdoutPipe()
		return s, in, out
	}
	terminal := func(s *ssh.Session) {
		if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 1}); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("on a terminal, for a login shell", func(t *testing.T) {
		s, in, out := session(t, "fred", terminal)
		if err := s.Shell(); err != nil {
			t.Fatal(err)
		}
		expectAll(t, out, "Please provide Yubi OTP: ")
		io.WriteString(in, rig.Touch(t, "fred")+"\n")
		before := expectAll(t, out, "$ ")
		io.WriteString(in, "shopt -q login_shell && echo is lo''gin; echo code is $LC_POSTERN_OTP.; exit 7\n")
		said := before + expectAll(t, out, "is login", "code is .")
		if strings.Contains(said, rig.Tokens["fred"].PublicID) {
			t.Errorf("the code is echoed: %q", said)
		}
		if err := s.Wait(); err == nil || !strings.Contains(err.Error(), "status 7") {
			t.Errorf("ends with %v", err)
		}
	})
	t.Run("in a pipe, before the command's own input", func(t *testing.T) {
		s, in, out := session(t, "fred", nil)
		if err := s.Start("read -r x; echo got \"$x\", ran $0; cat"); err != nil {
			t.Fatal(err)
		}
		io.WriteString(in, rig.Touch(t, "fred")+"\nfirst\nrest\n")
		in.Close()
		all, err := io.ReadAll(out)
		if err != nil || string(all) != "got first, ran bash\nrest\n" {
			t.Errorf("%q, %v", all, err)
		}
	})
	for name, typed := range map[string]string{
		"a wrong code": strings.Repeat("c", 44) + "\n", "nothing": "\n", "the end": "\x04", "an interrupt": "\x03",
		"a stop":         "\x1a",
		"another's code": "", "far too much": strings.Repeat("c", 2000) + "\n",
	} {
		t.Run(name+" ends the connection", func(t *testing.T) {
			user := "fred"
			if typed == "" {
				user, typed = "bob", rig.Touch(t, "jimbob")+"\n"
			}
			s, in, out := session(t, user, terminal)
			if err := s.Shell(); err != nil {
				t.Fatal(err)
			}
			if user == "fred" {
				expectAll(t, out, "Please provide Yubi OTP: ")
			}
			io.WriteString(in, typed)
			io.WriteString(in, "echo op''en\n")
			all, _ := io.ReadAll(out)
			if strings.Contains(string(all), "open") {
				t.Errorf("it opened: %q", all)
			}
			if err := s.Wait(); err == nil {
				t.Error("ends well")
			}
		})
	}
	t.Run("a terminal that closes leaves nothing behind", func(t *testing.T) {
		s, _, out := session(t, "fred", terminal)
		if err := s.Shell(); err != nil {
			t.Fatal(err)
		}
		expectAll(t, out, "Please provide Yubi OTP: ")
		s.Close()
		deadline := time.Now().Add(20 * time.Second)
		for {
			left, err := h.Command("pgrep", "-u", "fred", "-a").Output()
			if err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("left behind:\n%s", left)
			}
			posterntest.Pause(t)
		}
	})
}

// TestShellAsksTheRightSSHD has a second sshd beside the first, with another
// configuration, that leaves everything open.
func TestShellAsksTheRightSSHD(t *testing.T) {
	t.Parallel()
	h, rig := gateHost(t)
	strict := posterntest.Read(t, h.Inside("/etc/ssh/sshd_config"))
	for name, content := range map[string]string{
		"open":   strings.ReplaceAll(strict, "DisableForwarding yes\n", ""),
		"strict": strict,
	} {
		if err := os.WriteFile(h.Inside("/etc/ssh/"+name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(h.Inside("/etc/yubikey_shell"), []byte("YUBICO_API_ID=4711\nDEBUG=1\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	run := func(port string) string {
		out, _ := h.Command("ssh", "-F", "none", "-i", h.KeyFile, "-o", "BatchMode=yes", "-o",
			"StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "SetEnv=LC_POSTERN_OTP="+rig.Touch(t, "fred"), "-p", port, "fred@127.0.0.1", "echo is i''n").
			CombinedOutput()
		return string(out)
	}
	for _, c := range []struct {
		port string
		args []string
		want string
	}{
		{"2201", []string{"-f", "/etc/ssh/strict"}, "is in\n"},
		{"2202", []string{"-f", "/etc/ssh/open"}, "sshd leaves open what no code guards: gate-tcp-forwarding"},
		{
			"2203",
			[]string{"-f", "/etc/ssh/strict", "-oPermitTunnel=yes"},
			"sshd leaves open what no code guards: gate-tunnel",
		},
		{"2204", []string{"-f", "/etc/ssh/strict", "-o", "PermitTunnel no"}, "cannot be found out"},
	} {
		t.Run(fmt.Sprintf("sshd %q", c.args), func(t *testing.T) {
			sshd := h.Command("/usr/sbin/sshd", append(c.args, "-h", filepath.Join(h.Dir, "host"), "-p", c.port)...)
			if out, err := sshd.CombinedOutput(); err != nil { // it goes into the background
				t.Fatalf("%v: %s", err, out)
			}
			out := run(c.port)
			for out == "" || strings.Contains(out, "Connection refused") {
				posterntest.Pause(t)
				out = run(c.port)
			}
			if !strings.Contains(out, c.want) {
				t.Error(out)
			}
			id := rig.Tokens["fred"].PublicID
			if tells := strings.Contains(out, "[i]"); tells != (c.want == "is in\n") ||
				tells && (!strings.Contains(out, "key "+id+"\n") || strings.Contains(out, id+"c")) {
				t.Errorf("DEBUG=1 tells: %s", out)
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

func TestShellCarriesFiles(t *testing.T) {
	t.Parallel()
	h, rig := gateHost(t)
	for _, program := range []string{"sftp", "scp", "rsync"} {
		posterntest.Need(t, program)
	}
	options := func(code string) []string {
		return []string{
			"-F", "none", "-i", h.KeyFile, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
			"UserKnownHostsFile=/dev/null", "-o",
			"SetEnv=LC_POSTERN_OTP=" + code,
		}
	}
	target := filepath.Join(h.Dir, "home/fred/copied")
	source := filepath.Join(h.Dir, "etc/yubikey_mappings")
	for name, command := range map[string]func(code string) *exec.Cmd{
		"sftp": func(code string) *exec.Cmd {
			cmd := h.Command("sftp", append(options(code), "-b", "-", "fred@127.0.0.1")...)
			cmd.Stdin = strings.NewReader("put " + source + " " + target + "\n")
			return cmd
		},
		"scp": func(code string) *exec.Cmd {
			return h.Command("scp", append(options(code), source, "fred@127.0.0.1:"+target)...)
		},
		"scp of old": func(code string) *exec.Cmd {
			return h.Command("scp", append(append([]string{"-O"}, options(code)...), source,
				"fred@127.0.0.1:"+target)...)
		},
		"rsync": func(code string) *exec.Cmd {
			return h.Command("rsync", "-e", "ssh "+strings.Join(options(code), " "), source, "fred@127.0.0.1:"+target)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := command("x").CombinedOutput(); err == nil {
				t.Errorf("it works without a code: %s", out)
			}
			if _, err := os.Stat(target); err == nil {
				t.Fatal("it wrote without a code")
			}
			if out, err := command(rig.Touch(t, "fred")).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if posterntest.Read(t, target) != posterntest.Read(t, source) {
				t.Error("it copied something else")
			}
			os.Remove(target)
		})
	}
}

// expectAll reads until all of the words have come.
func expectAll(t *testing.T, r io.Reader, words ...string) string {
	t.Helper()
	var mu sync.Mutex
	var got []byte
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			mu.Lock()
			got = append(got, buf[:n]...)
			all := !slices.ContainsFunc(words, func(w string) bool { return !bytes.Contains(got, []byte(w)) })
			mu.Unlock()
			if all || err != nil {
				done <- err
				return
			}
		}
	}()
	var err error
	select {
	case err = <-done:
	case <-time.After(20 * time.Second):
		err = errors.New("nothing more comes")
	}
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		t.Fatalf("got %q, not %q: %v", got, words, err)
	}
	return string(got)
}

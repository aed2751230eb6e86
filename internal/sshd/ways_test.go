package sshd_test

import (
	"slices"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/setup"
	"golang.org/x/crypto/ssh"
)

// way is one configuration of the matrix and how its user logs in.
type way struct {
	name  string
	files map[string]string
	user  string
	// methods returns what the client offers, given the answers to the
	// prompts for codes; key is a client's, and cert its certificate.
	methods func(h *posterntest.Host, answer ssh.KeyboardInteractiveChallenge, good bool) []ssh.AuthMethod
	code    func(code string) []string // what is typed, prompt by prompt
	wrong   bool                       // one factor opens it: the auditor must say so
	finds   []string                   // some of what the auditor must say
	gate    bool                       // the code is asked for in each session
	script  bool                       // the gate is the script of old: it reads the code, and asks api.yubico.com
	opens   func(state string) []string
	service yubico          // what the script asks
	keys    []ssh.PublicKey // more that are authorized
	joined  *joined         // the server is elsewhere, and an agent asks it
}

// opensAll is what a right configuration opens, and when.
func opensAll(state string) []string {
	if state != rightCode {
		return nil
	}
	return allChannels()
}

func allChannels() []string {
	var all []string
	for _, c := range channels {
		all = append(all, c.name)
	}
	return all
}

// opensFor returns what a key alone opens beside a gate, and the code in it.
func opensFor(beside, behind []string) func(string) []string {
	return func(state string) []string {
		var open []string
		for _, c := range allChannels() {
			if state != onlyNone && slices.Contains(beside, c) || state == rightCode && slices.Contains(behind, c) {
				open = append(open, c)
			}
		}
		return open
	}
}

func keyAnd(h *posterntest.Host, answer ssh.KeyboardInteractiveChallenge, _ bool) []ssh.AuthMethod {
	m := []ssh.AuthMethod{ssh.PublicKeys(h.Key)}
	if answer != nil {
		m = append(m, ssh.KeyboardInteractive(answer))
	}
	return m
}

func alone(_ *posterntest.Host, answer ssh.KeyboardInteractiveChallenge, _ bool) []ssh.AuthMethod {
	if answer == nil {
		return nil
	}
	return []ssh.AuthMethod{ssh.KeyboardInteractive(answer)}
}

// everything is let through by sshd, so that what stays shut is shut by the
// factors.
const everything = "PermitTunnel yes\nX11Forwarding yes\n"

func ways(t *testing.T, module string) []way {
	caKey, _ := posterntest.NewSSHKey(t, t.TempDir(), "ca")
	filesOf := func(s setup.Setup) map[string]string {
		s.Module, s.Socket = module+" timeout=1", "@DIR@/pam.sock"
		s.UserCA = ssh.MarshalAuthorizedKey(caKey.PublicKey())
		return servertest.SSHDFiles(t, s, everything)
	}
	typed := func(code string) []string { return []string{code} }
	return append(hardwareWays(t, filesOf), []way{
		{
			name:    "key and code",
			files:   filesOf(setup.Setup{Mode: setup.KeyAndCode}),
			user:    "alice",
			methods: keyAnd,
			code:    typed,
		},
		{
			name: "password and code", files: filesOf(setup.Setup{Mode: setup.PasswordAndCode}), user: "fred",
			methods: alone,
			code:    func(code string) []string { return []string{code, "s3cret"} },
		},
		{
			name: "password and code in one", files: filesOf(setup.Setup{Mode: setup.PasswordAndCode}), user: "fred",
			methods: alone,
			code:    func(code string) []string { return []string{"s3cret" + code} },
		},
		{
			name:  "code, and password of those without a key",
			files: filesOf(setup.Setup{Mode: setup.KeyAndCode, PasswordGroup: "keyless"}), user: "fred",
			methods: alone,
			code:    func(code string) []string { return []string{code, "s3cret"} },
		},
		{
			name:    "some groups only",
			files:   filesOf(setup.Setup{Mode: setup.GroupsOnly, Groups: []string{"staff2"}}),
			user:    "alice",
			methods: keyAnd,
			code:    typed,
		},
		{
			name:    "break-glass",
			files:   filesOf(setup.Setup{Mode: setup.Certificates, RescueUser: "alice", RescueFrom: "127.0.0.1"}),
			user:    "alice",
			methods: keyAnd,
			code:    typed,
		},
		{
			name: "certificate", files: filesOf(setup.Setup{Mode: setup.Certificates}), user: "alice", code: typed,
			methods: func(h *posterntest.Host, _ ssh.KeyboardInteractiveChallenge, good bool) []ssh.AuthMethod {
				if !good { // only right codes are signed
					return []ssh.AuthMethod{ssh.PublicKeys(h.Key)}
				}
				return []ssh.AuthMethod{ssh.PublicKeys(posterntest.SSHCertificate(t, caKey, h.Key, "alice"))}
			},
		},
		{
			name:    "the write-up's PAM file",
			user:    "alice",
			methods: keyAnd,
			code:    typed,
			wrong:   true,
			opens:   opensFor(allChannels(), nil),
			files: map[string]string{
				"/etc/ssh/sshd_config": "UsePAM yes\nKbdInteractiveAuthentication yes\nAcceptEnv LANG LC_*\n" +
					"Subsystem sftp /usr/lib/openssh/sftp-server\n" + everything,
				"/etc/pam.d/sshd": "auth required pam_env.so # [1]\n" +
					"auth required pam_env.so envfile=/etc/default/locale\nauth sufficient " + module +
					" timeout=1 socket=@DIR@/pam.sock\n@include common-auth\naccount required pam_unix.so\n",
			},
		},
		// What the shell refuses stays shut; what sshd opens beside it does not.
		{
			name: "the write-up's ForceCommand", user: "alice", methods: keyOnly, code: typed, wrong: true, gate: true,
			files: map[string]string{
				"/etc/ssh/sshd_config": gateConfig(
					everything + "Match User alice\n\tForceCommand @DIR@/postern ssh shell --timeout 1s\n",
				),
			},
			opens: opensFor([]string{"-L", "-L socket", "-R", "-R socket", "-w", "agent", "X11", "-N"}, nil),
		},
		{
			name: "the write-up's ForceCommand script", user: "alice", methods: keyOnly, code: typed, wrong: true,
			gate: true, script: true,
			files: map[string]string{
				"/etc/ssh/sshd_config": gateConfig(
					everything + "Match User alice\n\tForceCommand @DIR@/sbin/yubikey_shell\n",
				),
				"/sbin/yubikey_shell": writeUpScript,
				"/etc/yubikey_shell":  "YUBICO_API_ID=\"4711\"\n",
				"/etc/hosts":          yubicoHosts,
			},
			opens: func(state string) []string {
				var behind []string
				if state == othersCode { // whose name ends with alice's; it is good once
					behind = []string{"shell"}
				}
				beside := []string{"-L", "-L socket", "-R", "-R socket", "-w", "agent", "X11", "-N"}
				return opensFor(append(behind, beside...), []string{"shell", "sftp"})(state)
			},
			finds: []string{
				"forcecommand-factor", "gate-tcp-forwarding", "gate-tcp-listening", "gate-socket-forwarding",
				"gate-agent", "gate-x11",
				"gate-tunnel", "gate-controlmaster", "unanchored-user", "validation-unsigned",
			},
		},
		{
			name: "a ForceCommand with everything shut beside it", user: "alice", methods: keyOnly, code: typed,
			gate: true,
			files: map[string]string{
				"/etc/ssh/sshd_config": gateConfig(
					"Match User alice\n\tForceCommand @DIR@/postern ssh shell --timeout 1s\n" +
						"\tDisableForwarding yes\n\tMaxSessions 1\n\tPermitUserRC no\n" +
						"Match User *,!alice\n\t# postern: one factor is meant\n\tAuthenticationMethods publickey\n",
				),
			},
			opens: opensFor([]string{"-N"}, []string{"shell", "exec", "sftp", "scp"}),
		},
		{
			name: "a ForceCommand with all accepted by name", user: "alice", methods: keyOnly, code: typed,
			wrong: true, gate: true,
			files: map[string]string{
				"/etc/ssh/sshd_config": gateConfig(
					"X11Forwarding yes\nPermitTunnel yes\nMatch User alice\n" +
						"\tForceCommand @DIR@/postern ssh shell --timeout 1s " +
						"--accept gate-tcp-forwarding,gate-tcp-listening,gate-socket-forwarding,gate-agent,gate-x11," +
						"gate-tunnel,gate-controlmaster,gate-userrc\n",
				),
			},
			opens: opensFor(
				[]string{"-L", "-L socket", "-R", "-R socket", "-w", "agent", "X11", "-N"},
				[]string{"shell", "exec", "sftp", "scp", "second session"},
			),
		},
	}...)
}

func keyOnly(h *posterntest.Host, _ ssh.KeyboardInteractiveChallenge, _ bool) []ssh.AuthMethod {
	return []ssh.AuthMethod{ssh.PublicKeys(h.Key)}
}

func gateConfig(more string) string {
	return "UsePAM no\nPermitRootLogin no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n" +
		"AcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n" + more
}

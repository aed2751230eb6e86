package sshd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/sshd/socket"
	"golang.org/x/crypto/ssh"
)

// clientChannels are OpenSSH's ways to use a connection: what to run, and what
// its output or effect shows when it works. What needs no answer of its own
// ends with a command that prints "open".
var clientChannels = map[string]struct {
	options, command []string
	want             string
}{
	"command": {nil, []string{"echo", "open"}, "open"},
	"-L": {
		[]string{"-o", "ExitOnForwardFailure=yes", "-L", "127.0.0.1:1081:127.0.0.1:22"},
		[]string{"echo", "open"},
		"open",
	},
	"-R": {
		[]string{"-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:22", "-v"},
		[]string{"true"},
		"remote forward success",
	},
	"-D": {
		[]string{"-o", "ExitOnForwardFailure=yes", "-D", "127.0.0.1:1080"},
		[]string{"echo", "open"},
		"open",
	},
	"-W": {[]string{"-W", "127.0.0.1:22"}, nil, "SSH-2.0-"},
	"-R socket": {
		[]string{"-o", "ExitOnForwardFailure=yes", "-R", "@HOME@/forwarded:127.0.0.1:22", "-v"},
		[]string{"true"},
		"remote forward success",
	},
	"-A":  {[]string{"-A", "-v"}, []string{"test -S \"$SSH_AUTH_SOCK\" && echo open"}, "\nopen"},
	"X11": {[]string{"-Y", "-v"}, []string{"test -n \"$DISPLAY\" && echo open"}, "\nopen"},
	"-J": {
		[]string{"-F", "@DIR@/jump.conf", "-J", "alice@localhost"},
		[]string{"echo", "open"},
		"open",
	},
	"-w": {
		[]string{"-w", "1:0", "-v"},
		[]string{"sleep 0.2; echo open"},
		"forwarding using interface",
	},
	"ControlMaster": {
		[]string{"-M", "-S", "@DIR@/control", "-o", "ControlPersist=no"},
		[]string{"echo", "open"},
		"open",
	},
	"sftp as a subsystem": {[]string{"-s", "-v"}, []string{"sftp"}, "Sending subsystem: sftp"},
}

// TestOpenSSHClient goes through sshd with OpenSSH's own client, that types the
// code by SSH_ASKPASS: no channel works with a wrong one, all do with a right.
func TestOpenSSHClient(t *testing.T) {
	t.Parallel()
	posterntest.NeedRoot(t)
	posterntest.Need(t, "xauth")
	module := posterntest.PAMModule(t)
	both := setup.Setup{Mode: setup.KeyAndCode, Module: module, Socket: "@DIR@/pam.sock"}
	files := servertest.SSHDFiles(t, both, everything)
	files["/bin/askpass"] = "#!/bin/sh\nhead -n 1 \"@DIR@/code\"\nsed -i 1d \"@DIR@/code\"\n"
	h := matrixHost(t, files)
	rig := servertest.NewSSH(t, "alice", "fred")
	rig.Serve(t, filepath.Join(h.Dir, "pam.sock"), socket.Config{}, 0o600)
	if out, err := h.Command("ip", "tuntap", "add", "dev", "tun1000", "mode", "tun").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	agent := h.Command("ssh-agent", "-D", "-a", filepath.Join(h.Dir, "agent"))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	h.Write(
		t, "jump.conf",
		"IdentityFile "+h.KeyFile+
			"\nIdentitiesOnly yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nNumberOfPasswordPrompts 1\n",
	)
	for name, c := range clientChannels {
		for _, good := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, right code %t", name, good), func(t *testing.T) {
				code := strings.Repeat("c", 44)
				if good { // the second is for the host behind -J
					code = rig.Touch(t, "alice") + "\n" + rig.Touch(t, "alice")
				}
				h.Write(t, "code", code+"\n")
				args := []string{
					"SSH_ASKPASS=" + filepath.Join(h.Dir, "bin/askpass"), "SSH_ASKPASS_REQUIRE=force",
					"SSH_AUTH_SOCK=" + filepath.Join(h.Dir, "agent"), "DISPLAY=127.0.0.1:9",
					"timeout", "10", "ssh", "-F", "none", "-i", h.KeyFile, "-o", "IdentitiesOnly=yes",
					"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
					"NumberOfPasswordPrompts=1",
				}
				replace := strings.NewReplacer("@DIR@", h.Dir, "@HOME@", filepath.Join(h.Dir, "home/alice"))
				for _, o := range c.options {
					args = append(args, replace.Replace(o))
				}
				target := "alice@127.0.0.1"
				out, err := h.Command("env", append(append(args, target), c.command...)...).CombinedOutput()
				if works := strings.Contains(string(out), c.want) && !strings.Contains(string(out),
					"Permission denied"); works != good {
					t.Errorf("works %v, %v:\n%s", works, err, out)
				}
			})
		}
	}
}

// TestProofs has the auditor prove what it finds, on a host like the write-up's,
// with OpenSSH's client.
func TestProofs(t *testing.T) {
	t.Parallel()
	posterntest.NeedRoot(t)
	h := matrixHost(t, map[string]string{
		"/etc/ssh/sshd_config": "UsePAM no\nPermitRootLogin no\nPasswordAuthentication no\n" +
			"KbdInteractiveAuthentication no\nMatch User alice\n\tForceCommand @DIR@/postern ssh shell\n",
	})
	var out, complaint bytes.Buffer
	cmd := h.Command(
		"timeout", "60", filepath.Join(h.Dir, "postern"), "ssh", "check", "--json", "--prove", "--identity",
		h.KeyFile,
	)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	var report audit.Report
	if jerr := json.Unmarshal(out.Bytes(), &report); jerr != nil || err == nil {
		t.Fatalf("%v, %v: %s%s", err, jerr, &out, &complaint)
	}
	proved := map[string]string{}
	for _, f := range report.Findings {
		proved[f.ID] = f.Proved
	}
	for id, want := range map[string]string{
		"gate-tcp-forwarding": audit.Proved, "gate-tcp-listening": audit.Proved, "gate-x11": "",
		"gate-agent":          audit.NotTried,
		"forcecommand-factor": audit.NotTried,
	} {
		if proved[id] != want {
			t.Errorf("%s: %q, want %q", id, proved[id], want)
		}
	}
}

// TestProofsOfWhatOneFactorOpens has sshd run a command for a user who logs in by key
// alone, and each finding say what that opens, and prove it.
func TestProofsOfWhatOneFactorOpens(t *testing.T) {
	t.Parallel()
	posterntest.NeedRoot(t)
	accounts := []posterntest.Account{
		{Name: "alice"},
		{Name: "chrooted"},
		{Name: "files"},
		{Name: "forwards"},
		{Name: "git"},
		{Name: "odd"},
		{Name: "shell"},
		{Name: "some"},
	}
	keyAlone := func(user, more string) string {
		return "Match User " + user + "\n\tAuthenticationMethods publickey\n" + more
	}
	h := posterntest.StartHost(t, posterntest.HostConfig{Accounts: accounts, Files: map[string]string{
		"/etc/pam.d/sshd": "auth required pam_deny.so\nauth required pam_postern.so\n",
		"/etc/ssh/sshd_config": "UsePAM yes\nPermitRootLogin no\nPasswordAuthentication no\n" +
			"KbdInteractiveAuthentication yes\n" +
			"AuthenticationMethods publickey,keyboard-interactive:pam\nAllowTcpForwarding no\n" +
			"AllowStreamLocalForwarding no\nSubsystem sftp internal-sftp\n" +
			keyAlone("chrooted", "\tChrootDirectory /run/sshd\n\tForceCommand internal-sftp\n") +
			keyAlone("files", "\tForceCommand internal-sftp\n") +
			keyAlone("forwards",
				"\tChrootDirectory /run/sshd\n\tForceCommand internal-sftp\n\tAllowTcpForwarding yes\n") +
			keyAlone("git", "") + keyAlone("odd", "") + keyAlone("shell", "") + keyAlone("some", ""),
	}})
	h.Install(t)
	line := string(ssh.MarshalAuthorizedKey(h.Key.PublicKey()))
	for user, content := range map[string]string{
		"git": `restrict,command="git-shell" ` + line, "odd": `restrict,command="/usr/bin/id" ` + line,
		"shell": `command="/bin/bash" ` + line, "some": line + `restrict,command="git-shell" ` + line,
	} {
		h.Write(t, "home/"+user+"/.ssh/authorized_keys", content)
	}
	out, err := h.Command("timeout", "100", filepath.Join(h.Dir, "postern"), "ssh", "check", "--json", "--prove",
		"--identity", h.KeyFile).Output()
	var report audit.Report
	if jerr := json.Unmarshal(out, &report); jerr != nil {
		t.Fatalf("%v, %v: %s", err, jerr, out)
	}
	for user, want := range map[string]string{
		"chrooted": "medium: publickey alone opens SFTP below /run/sshd",
		"files":    "high: publickey alone opens SFTP with all of the account's files",
		"forwards": "critical: publickey alone opens SFTP below /run/sshd; beside it -L, -D and -W reach the network",
		"git":      "medium: publickey alone opens git repositories (git-shell)",
		"odd":      "high: publickey alone opens the command /usr/bin/id",
		"shell":    "critical: publickey alone opens everything",
		"some":     "critical: publickey alone opens everything",
	} {
		i := slices.IndexFunc(report.Findings, func(f audit.Finding) bool {
			return strings.HasPrefix(f.Case, "user="+user+",")
		})
		if i < 0 {
			t.Errorf("nothing is found for %s", user)
			continue
		}
		if f := report.Findings[i]; string(f.Severity)+": "+f.Title != want || f.Proved != audit.Proved {
			t.Errorf("%s: %s: %s: %s (%s)", user, f.Severity, f.Title, f.Proved, f.Proof)
		}
	}
}

package format_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
)

// proxied is a client of virtproxyd, and what a trace says of it.
type proxied struct {
	name   string
	uri    string
	as     []string // the words that virsh runs under
	line   string   // who calls, as text; PID stands for virsh's process
	peer   peer
	direct bool // it calls virtqemud itself
}

type peer struct {
	PID     int
	UID     *int
	Start   uint64
	User    string
	Command string
	TLS     string `json:"tls_name"`
	SASL    string `json:"sasl_name"`
	Remote  string
	Via     int
}

// TestModularDaemons has clients of all sorts call virtqemud by way of virtproxyd: a call
// is one line of virtqemud's, of the client itself, with its monitor commands below.
func TestModularDaemons(t *testing.T) {
	l := posterntest.StartModular(t)
	t.Cleanup(l.Stop)
	reconfigure(t, l, l.SASL(t, "scram-sha-256"), map[string]string{"auth_tls": `"sasl"`})
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	const dn = `O=Postern,CN=tester`
	nobody := 65534
	local := `nobody +PROGRAM\[PID\]`
	for _, c := range []proxied{
		{
			"a local user", l.UnixURI(),
			[]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"},
			strings.Replace(local, "PROGRAM", "virsh", 1),
			peer{UID: &nobody, User: "nobody", Command: "virsh", Remote: "127.0.0.1;0"},
			false,
		},
		{
			"virt-ssh-helper", "qemu+ssh://host/system?command=" + helperScript(t, l), nil,
			strings.NewReplacer("PROGRAM", "virt-ssh-helper", "PID", `\d+`).Replace(local),
			peer{UID: &nobody, User: "nobody", Command: "virt-ssh-helper", Remote: "127.0.0.1;0"},
			true,
		},
		{"TCP", l.TCPURI(), nil, `127\.0\.0\.1;\d{4,}`, peer{}, false},
		{
			"TLS and SASL", l.TLSURI() + "&authfile=" + posterntest.SASLPassword(t, posterntest.SASLSecret), nil,
			`alice 127\.0\.0\.1;\d{4,}`,
			peer{TLS: dn, SASL: "alice"},
			false,
		},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(t, l) })
	}
}

// helperScript writes what ssh is for a client: it runs the command, which is libvirt's
// virt-ssh-helper, as an unprivileged user where the daemons run.
func helperScript(t *testing.T, l *posterntest.Libvirtd) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ssh")
	script := fmt.Sprintf(`#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2 # and the host
exec nsenter -t %d -m -- chroot --userspec=65534:65534 / sh -c "$*"
`, l.PID)
	if err := os.WriteFile(file, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

func (c *proxied) check(t *testing.T, l *posterntest.Libvirtd) {
	var pid int
	virsh := func(command string) func() {
		return func() {
			words := append(append([]string{}, c.as...), "virsh", "-q", "-c", c.uri, command, "vm1")
			cmd := exec.Command(words[0], words[1:]...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("virsh %s: %v: %s", command, err, out)
			}
			pid = cmd.Process.Pid
		}
	}
	watched := capture.Config{What: capture.RPC | capture.Monitor, Tree: true}
	watched.Filter.PIDs = []int{l.PID, l.Virtqemud(t)} // virsh over SSH stands for one of another host
	out := traced(t, virsh("suspend"), watched, format.Config{Format: format.Text, Tree: true})
	daemon := fmt.Sprintf(` virtqemud\[%d\]`, l.Virtqemud(t))
	if c.direct {
		daemon = "" // the only one that is seen
	}
	want := regexp.MustCompile(fmt.Sprintf(`(?m)^\S+ %s *%s remote\.domain_suspend\(.*\n.*\n +└─ vm1 stop → ok`,
		strings.Replace(c.line, "PID", fmt.Sprint(pid), 1), daemon))
	if !want.MatchString(out) || strings.Count(out, "domain_suspend") != 1 {
		t.Errorf("want one line %s in\n%s", want, out)
	}

	out = traced(t, virsh("resume"), watched, format.Config{Format: format.JSON})
	answers := 0
	for line := range strings.Lines(out) {
		var e struct {
			Procedure, Side, Direction string
			PID                        int
			Peer                       peer
			Forwarded                  bool
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if e.Procedure != "domain_resume" || e.Side != "server" || e.PID != l.Virtqemud(t) {
			continue
		}
		answers++
		c.identified(t, l, pid, e.Peer, line)
	}
	if answers != 2 {
		t.Errorf("%d messages of the call at virtqemud, want 2:\n%s", answers, out)
	}
}

// identified holds who a trace says has called against who it was.
func (c *proxied) identified(t *testing.T, l *posterntest.Libvirtd, pid int, got peer, line string) {
	t.Helper()
	want := c.peer
	if want.Start = got.Start; !c.direct {
		want.Via = l.PID
	}
	switch {
	case want.UID == nil: // of another host: from a port of its own
		want.Remote = got.Remote
		if !regexp.MustCompile(`^127\.0\.0\.1;\d{4,}$`).MatchString(got.Remote) {
			t.Errorf("from %q: %s", got.Remote, line)
		}
	case want.Command == "virsh":
		want.PID, want.Command = pid, got.Command
	default: // virt-ssh-helper is a child of the shell's
		want.PID, want.Command = got.PID, got.Command
	}
	local := want.UID != nil
	if local != (got.Start > 0) || !strings.HasPrefix(got.Command, c.peer.Command) || local != (got.UID != nil) ||
		local && *got.UID != *want.UID {
		t.Errorf("the client: %s", line)
	}
	got.UID, want.UID = nil, nil
	if got != want {
		t.Errorf("the client is %+v, want %+v", got, want)
	}
}

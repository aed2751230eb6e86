package agent_test

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/tracetest"
	"github.com/postern-project/postern/timeline"
)

// clients are a daemon whose clients prove who they are in several ways, and a server that
// knows some of them.
type clients struct {
	l   *posterntest.Libvirtd
	rig *servertest.SSH
	ca  *ca.Authority
}

// TestClientsAreNamed has clients of every sort change a virtual machine while alice is
// signed in: each is named as what it is, and none is taken for her but what she started.
func TestClientsAreNamed(t *testing.T) {
	posterntest.NeedRoot(t)
	c := startClients(t)
	defer posterntest.TraceAlone(t)()
	stopEvents := takeEvents(t, c.rig.State)
	a := start(t, c.rig.State, t.TempDir())

	const suffix = ` ran domainSuspend on vm1; answered in [^;]*\.$`
	serial, pki := c.certificate(t, "alice")
	var want []string
	suspend := func(who string, virsh func(args ...string)) {
		virsh("suspend", "vm1")
		virsh("resume", "vm1")
		want = append(want, "^"+who+suffix)
	}
	at := func(uri string) func(...string) {
		return func(args ...string) { posterntest.Virsh(t, uri, args...) }
	}
	address := `, from (127\.0\.0\.1|::1),`
	suspend("alice, certificate "+serial+address,
		at(fmt.Sprintf("qemu+tls://localhost:%d/system?pkipath=%s", c.l.TLSPort, pki)))
	suspend("the TLS client [^;]*CN=tester"+address, at(c.l.TLSURI()))
	suspend("the SASL user bob"+address, at(c.sasl(t, "bob")))
	suspend("carol, SASL user carol"+address, at(c.sasl(t, "carol")))
	suspend("the account root", at(c.l.UnixURI()))

	// alice is in, and something that she did not start has a session of its own, as cron's jobs do.
	shell, id := startSession(t)
	c.opened(t, id)
	suspend("alice", func(args ...string) { shell(c.virsh(args...)) })
	suspend("alice", func(args ...string) { shell("(setsid nohup " + c.virsh(args...) + " & wait $!)") })
	other, _ := startSession(t)
	suspend("the account root", func(args ...string) { other(c.virsh(args...)) })
	inUnit(t, "postern-test.service", func(shell func(string)) {
		suspend(`the account root, in postern-test\.service,`, func(args ...string) { shell(c.virsh(args...)) })
	})
	c.proxied(t)

	a.stop()
	stopEvents()
	sentences := slices.DeleteFunc(said(t, c.rig.State, postern.EventLibvirtCall), func(s string) bool {
		return strings.Contains(s, " ran domainResume on ") || strings.Contains(s, " ran connectSetIdentity")
	})
	want = append(want, `^the SASL user dan@EXAMPLE ran domainDestroy on vm1; answered in [^;]*\.$`)
	for i, pattern := range want {
		if len(sentences) != len(want) || !regexp.MustCompile(pattern).MatchString(sentences[i]) {
			t.Fatalf("the timeline says:\n%s\nwant\n%s", strings.Join(sentences, "\n"), strings.Join(want, "\n"))
		}
	}
	mine, err := c.rig.State.Store.Timeline().Events(t.Context(),
		timeline.Filter{Person: "alice", Kind: postern.EventLibvirtCall})
	if err != nil || len(mine) != 6 {
		t.Errorf("%d calls are kept as alice's, want 6: %v", len(mine), err)
	}
}

func startClients(t *testing.T) *clients {
	t.Helper()
	posterntest.Need(t, "saslpasswd2")
	c := &clients{l: posterntest.StartLibvirtd(t), rig: servertest.NewSSH(t, "alice", "bob", "carol")}
	t.Cleanup(c.l.Stop)
	var err error
	if c.ca, err = ca.Init(t.Context(), ca.Config{Name: "Example Org"}, c.rig.State.Store.CA()); err != nil {
		t.Fatal(err)
	}
	if err := c.rig.State.Store.People().AddAccount(t.Context(),
		postern.Account{Name: "sasl:carol", Person: "carol"}); err != nil {
		t.Fatal(err)
	}
	trusted := filepath.Join(c.l.Dir, "pki/cacert.pem")
	pem := append([]byte(posterntest.Read(t, trusted)), ca.EncodeCertificates(c.ca.Chain(ca.Client)...)...)
	pem = append(pem, ca.EncodeCertificates(c.ca.Root())...)
	conf, users := filepath.Join(c.l.Dir, "sasl"), filepath.Join(c.l.Dir, "sasl/users.db")
	settings := filepath.Join(c.l.Dir, "conf/libvirtd.conf")
	for file, text := range map[string]string{
		trusted:                             string(pem),
		filepath.Join(conf, "libvirt.conf"): "mech_list: digest-md5\nsasldb_path: " + users + "\n",
		settings: strings.Replace(posterntest.Read(t, settings), `auth_tcp = "none"`,
			`auth_tcp = "sasl"`, 1),
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bob", "carol"} {
		add := exec.Command("saslpasswd2", "-p", "-c", "-a", "libvirt", "-f", users, name)
		add.Stdin = strings.NewReader("open sesame")
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("saslpasswd2: %v: %s", err, out)
		}
	}
	c.l.Kill()
	c.l.Env = []string{"SASL_CONF_PATH=" + conf}
	if err := c.l.Start(); err != nil {
		t.Fatal(err)
	}
	posterntest.Virsh(t, c.l.UnixURI(), "start", "vm1")
	return c
}

// certificate issues a client certificate, with which virsh connects by the files in dir.
func (c *clients) certificate(t *testing.T, person string) (serial, dir string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // libvirt 9.0 takes no other kind from virsh
	if err != nil {
		t.Fatal(err)
	}
	issued, err := c.ca.IssueClient(t.Context(), ca.ClientRequest{Person: person, Label: "laptop", Key: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.Bundle{Issued: issued, Key: key}.Files(ca.LayoutLibvirt)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, f := range files {
		if filepath.Base(f.Name) == "cacert.pem" {
			f.Data = []byte(posterntest.Read(t, filepath.Join(c.l.Dir, "pki/cacert.pem")))
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Name)), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return issued.Certificate.Serial, dir
}

// sasl returns the URI with which virsh proves a password.
func (c *clients) sasl(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "auth.conf")
	text := "[credentials-test]\nauthname=" + name + "\npassword=open sesame\n" +
		"[auth-libvirt-localhost]\ncredentials=test\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(c.l.TCPURI(), "127.0.0.1", "localhost", 1) + "?authfile=" + file
}

func (c *clients) virsh(args ...string) string {
	return "virsh -q -c '" + c.l.UnixURI() + "' " + strings.Join(args, " ")
}

// opened records that alice has opened an SSH session of that number.
func (c *clients) opened(t *testing.T, id string) {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	boot := strings.TrimSpace(posterntest.Read(t, "/proc/sys/kernel/random/boot_id"))
	if err := c.rig.State.Store.Append(t.Context(), postern.Event{
		Kind: postern.EventSSHOpened, Outcome: postern.OK, Person: "alice", Object: "alice",
		Links: []postern.Link{{Kind: postern.LinkSession, ID: host + "/" + boot + "/" + id}},
	}); err != nil {
		t.Fatal(err)
	}
}

// proxied calls for another client and names it, as virtproxyd does.
func (c *clients) proxied(t *testing.T) {
	t.Helper()
	r, err := posterntest.DialRPC("unix", c.l.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Call(libvirt.SetIdentity.Proc, tracetest.SetIdentity(4711, 77, 20000, "dan",
		"dan@EXAMPLE")); err != nil {
		t.Fatal(err)
	}
	domain, err := r.Call(posterntest.ProcLookupByName, posterntest.String("vm1"))
	if err != nil {
		t.Fatal(err)
	}
	const destroy = 12
	if _, err := r.Call(destroy, slices.Clone(domain)); err != nil {
		t.Fatal(err)
	}
}

// startSession starts a shell in an audit session of its own, as pam_loginuid does. It
// returns what runs a command there, and the session's number.
func startSession(t *testing.T) (run func(command string), id string) {
	t.Helper()
	run, read := startShell(t)
	run("echo 0 > /proc/self/loginuid")
	id = read("cat /proc/self/sessionid")
	if n, err := strconv.ParseUint(id, 10, 32); err != nil || n == 1<<32-1 {
		t.Fatalf("the shell has no audit session: %q", id)
	}
	return run, id
}

// startShell starts a shell, and returns what runs a command there and waits for it, and
// what returns the output of one.
func startShell(t *testing.T) (run func(command string), read func(command string) string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	n := 0
	read = func(command string) string {
		t.Helper()
		n++
		out := filepath.Join(dir, strconv.Itoa(n))
		fmt.Fprintf(in, "{ %s; } > %s.out 2>&1; echo $? > %s.tmp; mv %s.tmp %s\n", command, out, out, out, out)
		for {
			if status, err := os.ReadFile(out); err == nil {
				text := strings.TrimSpace(posterntest.Read(t, out+".out"))
				if strings.TrimSpace(string(status)) != "0" {
					t.Fatalf("%s: status %s%s", command, status, text)
				}
				return text
			}
			posterntest.Pause(t)
		}
	}
	return func(command string) { t.Helper(); read(command) }, read
}

// inUnit runs a shell in a cgroup of that name, as systemd runs a unit.
func inUnit(t *testing.T, unit string, do func(shell func(string))) {
	t.Helper()
	var dir string
	for _, top := range []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(top, "cgroup.procs")); err == nil {
			dir = filepath.Join(top, unit)
			break
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the shell has ended
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	shell, _ := startShell(t)
	shell("echo $$ > " + dir + "/cgroup.procs")
	do(shell)
}

package posterntest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ActiveDirectory is a domain controller of Samba's, from Debian's package, of which only
// the LDAP server runs, in a network namespace of its own: its port is fixed. Connect to it
// by [InNetwork].
type ActiveDirectory struct {
	URL      string // of LDAPS
	CA       string // the CA's certificate, PEM
	Base     string // dc=corp,dc=example,dc=com
	Admin    string // the account that may change everything
	Password string // its password
	PID      int    // of the server

	t   testing.TB
	dir string
}

// StartActiveDirectory makes a domain, which takes some seconds, and starts its server. It
// is stopped when the test ends.
func StartActiveDirectory(t testing.TB) *ActiveDirectory {
	t.Helper()
	NeedRoot(t)
	a := &ActiveDirectory{
		URL: "ldaps://127.0.0.1", Base: "dc=corp,dc=example,dc=com", Admin: "administrator@corp.example.com",
		Password: "Passw0rd.1234", t: t, dir: t.TempDir(),
	}
	a.CA = filepath.Join(a.dir, "ca.pem")
	certifyLocalhost(t, a.dir, net.IPv4(127, 0, 0, 1))
	a.run(Need(t, "samba-tool"), "domain", "provision", "--targetdir="+a.dir, "--realm=CORP.EXAMPLE.COM",
		"--domain=CORP", "--server-role=dc", "--adminpass="+a.Password, "--dns-backend=NONE")
	args := []string{
		"--net", "sh", "-c", `ip link set lo up && exec "$0" "$@"`, Need(t, "samba"), "-i", "-M",
		"single",
		"-s", filepath.Join(a.dir, "etc/smb.conf"), "--debug-stdout",
	}
	for name, value := range map[string]string{
		"server services": "ldap", "tls enabled": "yes", "tls cafile": a.CA, "pid directory": a.dir,
		"tls certfile": filepath.Join(a.dir, "server.pem"), "tls keyfile": filepath.Join(a.dir, "server.key"),
		"ncalrpc dir": filepath.Join(a.dir, "ncalrpc"), "ntp signd socket directory": a.dir,
	} {
		args = append(args, "--option="+name+"="+value)
	}
	cmd := exec.Command(Need(t, "unshare"), args...)
	Start(t, cmd, func() bool {
		a.PID = cmd.Process.Pid
		open, _ := InNetwork(a.PID, func() (bool, error) { return answers("tcp", "127.0.0.1:636"), nil })
		return open
	})
	return a
}

func (a *ActiveDirectory) run(program string, args ...string) {
	a.t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		a.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

// Change changes the domain as LDIF says, each record with its changetype.
func (a *ActiveDirectory) Change(ldif string) {
	a.t.Helper()
	cmd := a.command("ldapmodify")
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		a.t.Fatalf("ldapmodify: %v\n%s", err, out)
	}
}

// Value returns an attribute of an entry.
func (a *ActiveDirectory) Value(dn, attribute string) string {
	a.t.Helper()
	out, err := a.command("ldapsearch", "-LLL", "-b", dn, "-s", "base", "(objectClass=*)", attribute).Output()
	if err != nil {
		a.t.Fatal(err)
	}
	_, value, found := strings.Cut(string(out), attribute+": ")
	if !found {
		a.t.Fatalf("%s has no %s: %s", dn, attribute, out)
	}
	value, _, _ = strings.Cut(value, "\n")
	return value
}

// command returns a command that asks the server as its administrator.
func (a *ActiveDirectory) command(program string, args ...string) *exec.Cmd {
	a.t.Helper()
	cmd := exec.Command(Need(a.t, "nsenter"),
		append([]string{
			"--net", "--target", fmt.Sprint(a.PID), Need(a.t, program),
			"-x", "-H", a.URL, "-D", a.Admin, "-w", a.Password,
		}, args...)...)
	cmd.Env = append(os.Environ(), "LDAPTLS_CACERT="+a.CA)
	return cmd
}

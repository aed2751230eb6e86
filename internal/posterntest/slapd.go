package posterntest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Slapd is an LDAP server of the test's own, from Debian's package, on loopback, with a
// certificate for localhost by a CA of its own.
type Slapd struct {
	Secure, Plain string // ldaps:// and ldap:// URLs
	CA            string // the CA's certificate, PEM
	Base          string // dc=example,dc=com
	Admin         string // the DN that may change everything, with the password "secret"
	Reader        string // the DN that may read, with the password "reader"

	t     testing.TB
	dir   string
	ports [2]int
	cmd   *exec.Cmd
	ended chan error // nil while it is stopped
}

const slapdConfig = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/msuser.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
pidfile %[1]s/pid
argsfile %[1]s/args
TLSCACertificateFile %[1]s/ca.pem
TLSCertificateFile %[1]s/server.pem
TLSCertificateKeyFile %[1]s/server.key
sizelimit size.soft=500 size.hard=1000 size.prtotal=unlimited
database mdb
suffix "dc=example,dc=com"
rootdn "cn=admin,dc=example,dc=com"
rootpw secret
directory %[1]s/data
overlay ppolicy
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=reader,dc=example,dc=com" read by * none
`

// StartSlapd starts a server with an empty tree. It is stopped when the test ends.
func StartSlapd(t testing.TB) *Slapd {
	t.Helper()
	Need(t, "slapd")
	Need(t, "ldapmodify")
	s := &Slapd{
		t: t, dir: t.TempDir(), Base: "dc=example,dc=com",
		Admin: "cn=admin,dc=example,dc=com", Reader: "cn=reader,dc=example,dc=com",
		ports: [2]int{FreePort(t), FreePort(t)},
	}
	s.CA = filepath.Join(s.dir, "ca.pem")
	s.Secure = fmt.Sprintf("ldaps://localhost:%d", s.ports[0])
	s.Plain = fmt.Sprintf("ldap://localhost:%d", s.ports[1])
	certifyLocalhost(t, s.dir)
	writeSecret(t, filepath.Join(s.dir, "slapd.conf"), []byte(fmt.Sprintf(slapdConfig, s.dir)))
	if err := os.Mkdir(filepath.Join(s.dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	s.Start()
	s.Change(`dn: dc=example,dc=com
changetype: add
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: cn=reader,dc=example,dc=com
changetype: add
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: reader
`)
	return s
}

// Start starts the server, which must be stopped, and waits until it answers.
func (s *Slapd) Start() {
	s.t.Helper()
	s.cmd = exec.Command(Need(s.t, "slapd"), "-d", "0", "-f", filepath.Join(s.dir, "slapd.conf"), "-h",
		s.Secure+" "+s.Plain+" "+s.socket())
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.ended, err = startTied(s.cmd); err != nil {
		s.t.Fatal(err)
	}
	for range 500 {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.ports[0]))
		if err == nil {
			conn.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Stop()
	text, _ := os.ReadFile(log.Name())
	s.t.Fatalf("slapd does not answer:\n%s", text)
}

// socket is the URL of a socket, over which the tree is changed.
func (s *Slapd) socket() string { return "ldapi://" + url.PathEscape(filepath.Join(s.dir, "socket")) }

// Stop stops the server.
func (s *Slapd) Stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.ended // its status is that of the signal
	s.cmd = nil
}

// Change changes the tree as LDIF says, each record with its changetype.
func (s *Slapd) Change(ldif string) {
	s.t.Helper()
	cmd := exec.Command(Need(s.t, "ldapmodify"), "-x", "-H", s.socket(), "-D", s.Admin, "-w", "secret", "-M")
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		s.t.Fatalf("ldapmodify: %v\n%s\nslapd:\n%s", err, out, text)
	}
}

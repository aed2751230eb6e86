package posterntest

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Rsyslog is a real rsyslogd on loopback, which is not started yet. In Dir are ca.pem and the
// certificates and keys of localhost, server.pem and server.key, and of the one client that it
// accepts by TLS, client.pem and client.key.
type Rsyslog struct {
	Dir     string
	Port    int    // TCP and UDP
	TLSPort int    // TCP
	Socket  string // a socket like /dev/log

	t testing.TB
}

// NewRsyslog prepares one. It writes the text of each message to a file.
func NewRsyslog(t testing.TB) *Rsyslog {
	t.Helper()
	NeedRoot(t) // for the size of its buffers
	Need(t, "rsyslogd")
	r := &Rsyslog{Dir: t.TempDir(), Port: FreePort(t), TLSPort: FreePort(t), t: t}
	r.Socket = filepath.Join(r.Dir, "log")
	root, key := Issue(t, nil, nil, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.BasicConstraintsValid = pkix.Name{CommonName: "CA of syslog"}, true, true
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign, nil
	})
	r.write("ca.pem", "CERTIFICATE", root.Raw)
	for name, usage := range map[string]x509.ExtKeyUsage{
		"localhost": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth,
	} {
		r.certify(name, usage, root, key)
	}
	writeSecret(t, filepath.Join(r.Dir, "conf"), fmt.Appendf(nil, rsyslogConfig, r.Dir, r.Port, r.TLSPort))
	return r
}

func (r *Rsyslog) certify(name string, usage x509.ExtKeyUsage, root *x509.Certificate, by *ecdsa.PrivateKey) {
	cert, key := Issue(r.t, root, by, func(c *x509.Certificate) {
		c.Subject, c.DNSNames = pkix.Name{CommonName: name}, []string{name}
		c.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	})
	r.write(name+".pem", "CERTIFICATE", cert.Raw)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(name+".key", "PRIVATE KEY", der)
}

func (r *Rsyslog) write(name, kind string, der []byte) {
	writeSecret(r.t, filepath.Join(r.Dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// rsyslogConfig is its configuration: directory, port, port of TLS.
const rsyslogConfig = `
global(workDirectory="%[1]s" maxMessageSize="64k" defaultNetstreamDriverCAFile="%[1]s/ca.pem"
	defaultNetstreamDriverCertFile="%[1]s/localhost.pem" defaultNetstreamDriverKeyFile="%[1]s/localhost.key")
module(load="imtcp")
module(load="imudp")
module(load="imuxsock" SysSock.Use="off")
template(name="text" type="string" string="%%msg%%\n")
input(type="imtcp" address="127.0.0.1" port="%[2]d" ruleset="all")
input(type="imtcp" address="127.0.0.1" port="%[3]d" ruleset="all" StreamDriver.Name="gtls"
	StreamDriver.Mode="1" StreamDriver.AuthMode="x509/name" PermittedPeer=["client"])
input(type="imudp" address="127.0.0.1" port="%[2]d" ruleset="all" rcvbufSize="8m")
input(type="imuxsock" Socket="%[1]s/log" ruleset="all")
ruleset(name="all") { action(type="omfile" file="%[1]s/messages" template="text") }
`

// Start starts it and waits until it receives. It ends with the test.
func (r *Rsyslog) Start() {
	r.t.Helper()
	cmd := exec.Command(Need(r.t, "rsyslogd"), "-n", "-f", filepath.Join(r.Dir, "conf"),
		"-i", filepath.Join(r.Dir, "pid"))
	Start(r.t, cmd, func() bool {
		conn, err := net.Dial("unixgram", r.Socket) // the last input of its configuration
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	r.t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may take long to end
}

// Messages returns the texts that were received so far, in their order.
func (r *Rsyslog) Messages() (texts []string) {
	r.t.Helper()
	all, err := os.ReadFile(filepath.Join(r.Dir, "messages"))
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if text, whole := strings.CutSuffix(line, "\n"); whole {
			texts = append(texts, strings.TrimPrefix(text, " "))
		}
	}
	return texts
}

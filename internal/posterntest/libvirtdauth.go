package posterntest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// SASLSecret is the password of alice, the one SASL user of a daemon.
const SASLSecret = "open sesame"

// SASL makes SASL's configuration for a daemon, with the user alice, and returns the
// environment that the daemon must have to find it.
func (l *Libvirtd) SASL(t testing.TB, mechanism string) (env []string) {
	t.Helper()
	Need(t, "saslpasswd2")
	conf, db := filepath.Join(l.Dir, "sasl"), filepath.Join(l.Dir, "sasl/users.db")
	if err := os.Mkdir(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(conf, "libvirt.conf"),
		[]byte("mech_list: "+mechanism+"\nsasldb_path: "+db+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	add := exec.Command("saslpasswd2", "-p", "-c", "-a", "libvirt", "-f", db, "alice")
	add.Stdin = strings.NewReader(SASLSecret)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("saslpasswd2: %v: %s", err, out)
	}
	return []string{"SASL_CONF_PATH=" + conf}
}

// SASLPassword writes a file that answers for alice with a password, and returns its path,
// which is a URI's authfile.
func SASLPassword(t testing.TB, password string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "auth.conf")
	text := "[credentials-test]\nauthname=alice\npassword=" + password +
		"\n[auth-libvirt-localhost]\ncredentials=test\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// certificates makes the PKI of the TLS listener: DN of the client is
// CN=tester,O=Postern.
func (l *Libvirtd) certificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := certificate("Postern test CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	if err := l.writePEM("cacert.pem", "CERTIFICATE", caDER); err != nil {
		return err
	}
	for name, cn := range map[string]string{"server": "localhost", "client": "tester"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		c := certificate(cn)
		c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		if name == "server" {
			c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, ca, &key.PublicKey, caKey)
		if err != nil {
			return err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return err
		}
		if err := errors.Join(l.writePEM(name+"cert.pem", "CERTIFICATE", der),
			l.writePEM(name+"key.pem", "PRIVATE KEY", keyDER)); err != nil {
			return err
		}
	}
	return nil
}

func certificate(cn string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		serial = big.NewInt(time.Now().UnixNano())
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: cn, Organization: []string{"Postern"}},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

func (l *Libvirtd) writePEM(name, typ string, der []byte) error {
	b := pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
	return os.WriteFile(filepath.Join(l.Dir, "pki", name), b, 0o644)
}

package format_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/format"
)

// reconfigure starts the daemon again with settings of libvirtd.conf changed,
// and with more in its environment.
func reconfigure(t *testing.T, l *posterntest.Libvirtd, env []string, settings map[string]string) {
	t.Helper()
	file := filepath.Join(l.Dir, "conf/libvirtd.conf")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var conf strings.Builder
	for line := range strings.Lines(string(old)) {
		name, _, _ := strings.Cut(line, " = ")
		if _, changed := settings[name]; !changed {
			conf.WriteString(line)
		}
	}
	for name, value := range settings {
		fmt.Fprintf(&conf, "%s = %s\n", name, value)
	}
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l.Kill()
	l.Env = env
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
}

// seen is what the JSON lines of a trace say about a client that authenticates.
type seen struct {
	Event, Side, Procedure string
	Identity, Dname        string
	PID                    int
	Peer                   struct {
		TLS  string `json:"tls_name"`
		SASL string `json:"sasl_name"`
	}
}

// tracedJSON returns the events of a trace by name.
func tracedJSON(t *testing.T, do func(), f correlate.Filter) map[string][]seen {
	t.Helper()
	events := map[string][]seen{}
	for line := range strings.Lines(traced(t, do, capture.Config{Filter: f}, format.Config{Format: format.JSON})) {
		var e seen
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		events[e.Event] = append(events[e.Event], e)
	}
	return events
}

// TestTraceOfSASL has a user prove a password to the daemon, and another fail to:
// the trace says who it was, and shows nothing of the proof.
func TestTraceOfSASL(t *testing.T) {
	for _, mechanism := range []string{"scram-sha-256", "digest-md5"} {
		t.Run(mechanism, func(t *testing.T) { traceSASL(t, mechanism) })
	}
}

func traceSASL(t *testing.T, mechanism string) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	reconfigure(t, l, l.SASL(t, mechanism),
		map[string]string{"auth_tls": `"sasl"`, "auth_tcp": `"sasl"`})
	as := func(password string) string {
		file := posterntest.SASLPassword(t, password)
		if mechanism == "digest-md5" { // which encrypts by itself
			return strings.Replace(l.TCPURI(), "127.0.0.1", "localhost", 1) + "?authfile=" + file
		}
		return l.TLSURI() + "&authfile=" + file
	}
	right, wrong := as(posterntest.SASLSecret), as("wrong")
	refused := func() {
		if out, err := posterntest.VirshAt(wrong, "uri"); err == nil {
			t.Errorf("the daemon takes a wrong password: %s", out)
		}
	}

	events := tracedJSON(t, func() { posterntest.Virsh(t, right, "dominfo", "vm1") }, correlate.Filter{})
	if allowed := events["auth.allow"]; len(allowed) != 1 || allowed[0].Identity != "alice" {
		t.Errorf("allowed: %+v", allowed)
	}
	after := 0
	for _, e := range events["message"] {
		if e.Side != "server" || strings.HasPrefix(e.Procedure, "auth_") {
			continue
		}
		if after++; e.Peer.SASL != "alice" || strings.Contains(e.Peer.TLS,
			"CN=tester") != (mechanism == "scram-sha-256") {
			t.Errorf("%s of %+v", e.Procedure, e.Peer)
		}
	}
	if after < 10 {
		t.Errorf("only %d messages of alice's", after)
	}

	events = tracedJSON(t, refused, correlate.Filter{})
	if failed := len(events["auth.fail"]) + len(events["auth.deny"]); failed != 1 || len(events["auth.allow"]) > 0 {
		t.Errorf("a wrong password: %v", events)
	}
	for _, e := range events["message"] {
		if e.Peer.SASL != "" {
			t.Errorf("%s of %q, who has not proved it", e.Procedure, e.Peer.SASL)
		}
	}

	// SCRAM's proof begins with "n,,n=alice", DIGEST-MD5's with "username=".
	for _, f := range []format.Format{format.Text, format.JSON} {
		do := func() { posterntest.Virsh(t, right, "uri") }
		c := format.Config{Format: f, Full: true, Verbose: true}
		if out := traced(t, do, capture.Config{}, c); strings.Contains(out, "n=alice") ||
			strings.Contains(out, "username=") || !strings.Contains(out, "auth_sasl_step") {
			t.Errorf("%q shows the proof:\n%s", f, out)
		}
		c.Secrets = true
		if out := traced(t, do, capture.Config{}, c); !strings.Contains(out, "auth_sasl_start") ||
			strings.Contains(out, "***") {
			t.Errorf("%q does not show the proof when asked to:\n%s", f, out)
		}
	}
}

// TestTraceOfTLSRefusals shows clients that the daemon refuses: one that is not
// on its list, one whose certificate is of an authority that it does not know.
func TestTraceOfTLSRefusals(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	reconfigure(t, l, nil, map[string]string{"tls_allowed_dn_list": `["CN=another client"]`})
	refused := func() {
		if out, err := posterntest.VirshAt(l.TLSURI(), "uri"); err == nil {
			t.Errorf("the daemon takes a client: %s", out)
		}
	}
	events := tracedJSON(t, refused, correlate.Filter{Errors: true})
	if denied := events["tls.deny"]; len(denied) != 1 || !strings.Contains(denied[0].Dname, "CN=tester") ||
		denied[0].PID != l.PID {
		t.Errorf("not on the list: %v", events)
	}
	if out := traced(t, refused, capture.Config{}, format.Config{}); !strings.Contains(out,
		"TLS certificate refused") {
		t.Errorf("the refusal is not shown:\n%s", out)
	}
	if len(events["message"])+len(events["tls.allow"]) > 0 {
		t.Errorf("a refused client says something: %v", events)
	}

	unknown := selfSigned(t)
	events = tracedJSON(t, func() { knock(t, l, unknown) }, correlate.Filter{Errors: true})
	if len(events["tls.deny"])+len(events["tls.fail"]) == 0 {
		t.Errorf("an unknown certificate: %v", events)
	}
}

// knock connects with a certificate whatever the daemon says of those that it
// takes (virsh looks at it first, and does not connect), and waits to be refused.
func knock(t *testing.T, l *posterntest.Libvirtd, cert tls.Certificate) {
	t.Helper()
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.TLSPort), &tls.Config{
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	})
	if err != nil {
		return
	}
	defer c.Close()
	// libvirt's daemon says so with one byte, 1, to a client that it accepts.
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("the daemon accepts an unknown certificate")
	}
}

// selfSigned returns a certificate that no authority has signed.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "unknown"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

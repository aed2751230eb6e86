package front

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestCertificatesThatGoReadsReluctantly shows, with curl, certificates that other
// programs made and that Go's parser does not accept as they are. Public pages are served
// to whoever has one. A negative serial number opens what its CA opens; a key on a curve
// that the handshake does not offer is as no certificate.
func TestCertificatesThatGoReadsReluctantly(t *testing.T) {
	h := newRig(t)
	zoo := issue(t, nil, authority("Zoo CA"))
	h.file(t, "zoo.pem", string(zoo.pem()))
	dir := t.TempDir()
	der, err := x509.MarshalPKCS8PrivateKey(zoo.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"zoo.pem": zoo.pem(), "zoo.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"client.cnf": []byte("extendedKeyUsage=clientAuth\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), posterntest.Need(t, program), args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	made := func(name, curve, serial string) {
		t.Helper()
		run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:"+curve, "-noenc",
			"-keyout", name+".key", "-subj", "/CN="+name, "-out", name+".csr")
		run("openssl", "x509", "-req", "-in", name+".csr", "-CA", "zoo.pem", "-CAkey", "zoo.key",
			"-set_serial", serial, "-days", "2", "-extfile", "client.cnf", "-out", name+".pem")
	}
	made("negative", "prime256v1", "-5")
	made("brainpool", "brainpoolP256r1", "6")
	run("openssl", "req", "-x509", "-new", "-key", "negative.key", "-subj", "/CN=other",
		"-set_serial", "-7", "-days", "2", "-out", "other.pem")
	https, _ := h.serve(t,
		"localhost:HTTPS {\n\trequire /private* {\n\t\ttrust DIR/zoo.pem\n"+
			"\t\trule `cert.subject.cn in [\"negative\", \"brainpool\"]`\n\t}\n\trespond ok\n}\n")
	for _, c := range []struct{ cert, key, tls, private string }{
		{"negative", "negative", "1.3", "200"},
		{"negative", "negative", "1.2", "200"},
		{"other", "negative", "1.3", "403"},
		{"other", "negative", "1.2", "403"},
		{"brainpool", "brainpool", "1.3", "403"},
	} {
		for path, want := range map[string]string{"/": "200", "/private": c.private} {
			got := run("curl", "-sk", "--tlsv"+c.tls, "--tls-max", c.tls, "--cert", c.cert+".pem", "--key",
				c.key+".key",
				"--write-out", " %{http_code}", "--max-time", "20", fmt.Sprintf("https://localhost:%d%s", https, path))
			if !strings.HasSuffix(got, " "+want) {
				t.Errorf("%s shown by TLS %s for %s: %q, want %s", c.cert, c.tls, path, got, want)
			}
		}
	}
}

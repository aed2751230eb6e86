package posterntest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// SoftHSM is a PKCS#11 token in software, of the test's own: "postern", with the
// PIN 1234 in a file.
type SoftHSM struct {
	Module  string // the module's file
	PINFile string

	t      testing.TB
	tokens string // the directory that it lives in
}

// NewSoftHSM makes a token. Whatever the test starts afterwards finds it, by
// SOFTHSM2_CONF.
func NewSoftHSM(t *testing.T) *SoftHSM {
	t.Helper()
	util := Need(t, "softhsm2-util")
	dir := t.TempDir()
	h := &SoftHSM{
		Module: "/usr/lib/softhsm/libsofthsm2.so", PINFile: filepath.Join(dir, "pin"), t: t,
		tokens: filepath.Join(dir, "tokens"),
	}
	if _, err := os.Stat(h.Module); err != nil {
		Missing(t, "needs SoftHSM's module: %v", err)
	}
	h.SetPIN("1234")
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(h.tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nlog.level = ERROR\n", h.tokens),
		0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	h.run(util, "--init-token", "--free", "--label", "postern", "--pin", "1234", "--so-pin", "5678")
	return h
}

// URI returns the token's URI, with more attributes before the question mark:
// ";object=x".
func (h *SoftHSM) URI(more string) string {
	return fmt.Sprintf("pkcs11:token=postern%s?module-path=%s&pin-source=%s", more, h.Module, h.PINFile)
}

// SetPIN writes the file with the PIN.
func (h *SoftHSM) SetPIN(pin string) {
	h.t.Helper()
	if err := os.WriteFile(h.PINFile, []byte(pin+"\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// P11Tool runs GnuTLS's p11tool, logged in, as another program would that uses
// the token.
func (h *SoftHSM) P11Tool(args ...string) string {
	h.t.Helper()
	return h.run(Need(h.t, "p11tool"), append([]string{
		"--provider", h.Module, "--batch", "--login", "--set-pin",
		"1234",
	}, args...)...)
}

// Unplug removes the token, for programs that are started afterwards.
func (h *SoftHSM) Unplug() { h.move(h.tokens, h.tokens+".unplugged"); h.mkdir() }

// Plug brings it back.
func (h *SoftHSM) Plug() {
	h.t.Helper()
	if err := os.RemoveAll(h.tokens); err != nil {
		h.t.Fatal(err)
	}
	h.move(h.tokens+".unplugged", h.tokens)
}

func (h *SoftHSM) mkdir() {
	h.t.Helper()
	if err := os.Mkdir(h.tokens, 0o700); err != nil {
		h.t.Fatal(err)
	}
}

func (h *SoftHSM) move(from, to string) {
	h.t.Helper()
	if err := os.Rename(from, to); err != nil {
		h.t.Fatal(err)
	}
}

func (h *SoftHSM) run(program string, args ...string) string {
	h.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out)
	}
	return string(out)
}

package server_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestKeysInADevice makes the CAs' keys in a token, serves, and takes the token
// away: nothing is signed then, and all else goes on until it is back.
func TestKeysInADevice(t *testing.T) {
	hsm := posterntest.NewSoftHSM(t)
	r := unstarted(t, filepath.Join(t.TempDir(), "state"))
	out, err := r.postern("init", "--key", "pkcs11:token=postern?pin-value=1234")
	if err == nil || !strings.Contains(out, "holds a PIN") || strings.Contains(out, "1234") {
		t.Errorf("a PIN for all to see: %v %s", err, out)
	}
	hsm.SetPIN("4321")
	out, err = r.postern("init", "--key", hsm.URI(""))
	if code(err) != 5 || !strings.Contains(out, "does not take the PIN") ||
		!strings.Contains(out, "hint: write the right one to "+hsm.PINFile) {
		t.Errorf("a wrong PIN: %v %s", err, out)
	}
	hsm.SetPIN("1234")
	r.mustPostern("init", "--key", hsm.URI(""))
	r.start()
	me := r.me()
	once := append([]string{"--retry", "0"}, me...)
	if got := r.signOver(me); !strings.HasSuffix(got, "Server CA") {
		t.Fatalf("signed by %s", got)
	}
	out, _ = r.postern("doctor")
	if !strings.Contains(out, "the key of the ssh-user CA is in its HSM") || strings.Contains(out, "export-key") {
		t.Error(out)
	}
	out, err = r.postern("ca", "root", "export-key", "--out", filepath.Join(t.TempDir(), "root.key"))
	if code(err) != 2 || !strings.Contains(out, "cannot leave it") {
		t.Errorf("export: %v %s", err, out)
	}

	hsm.Unplug()
	r.killModule()
	if got := r.signOver(once); !strings.HasSuffix(got, "503") {
		t.Errorf("signed by %s without a key", got)
	}
	if got := r.curl(append(me, r.url("/guarded/"))...); !strings.Contains(got, "You are in") {
		t.Errorf("the gate does not go on: %s", got)
	}
	if got := r.curl(strings.Replace(r.url("/crl/root.crl"), "localhost", "id.localhost", 1), "-o",
		filepath.Join(t.TempDir(), "crl")); !strings.HasSuffix(got, "200") {
		t.Errorf("the list is gone: %s", got)
	}
	r.mustPostern("log", "verify")
	r.mustPostern("ca", "list")
	out, err = r.postern("ca", "issue", "--server", "www.example.com", "--out", t.TempDir())
	if code(err) != 5 || !strings.Contains(out, "there is no such token") ||
		!strings.Contains(out, "hint: plug it in") {
		t.Errorf("issued: %v %s", err, out)
	}
	out, err = r.postern("doctor")
	if err == nil || !strings.Contains(out, "the server CA: the HSM pkcs11:token=postern") {
		t.Errorf("doctor: %v %s", err, out)
	}

	hsm.Plug()
	r.await(func() bool { return strings.HasSuffix(r.signOver(once), "Server CA") })
	_ = r.stop()
	hsm.Unplug()
	again := unstarted(t, r.state)
	again.https, again.http = r.https, r.http
	again.start()
	if got := again.curl(append(me, again.url("/guarded/"))...); !strings.Contains(got, "You are in") {
		t.Errorf("started without the token, the gate does not go on: %s", got)
	}
}

// code returns the exit code of a command that failed.
func code(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}

// killModule kills the process that the server's PKCS#11 module is in, its only
// child.
func (r *running) killModule() {
	r.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	must(r.t, err)
	killed := 0
	for _, file := range files {
		text, _ := os.ReadFile(file)
		_, rest, _ := strings.Cut(string(text), ") ")
		if f := strings.Fields(rest); len(f) < 2 || f[1] != strconv.Itoa(r.cmd.Process.Pid) || f[0] == "Z" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		must(r.t, err)
		must(r.t, syscall.Kill(pid, syscall.SIGKILL))
		killed++
	}
	if killed != 1 {
		r.t.Fatalf("%d processes with a module", killed)
	}
}

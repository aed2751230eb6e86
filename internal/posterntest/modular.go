package posterntest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// virtqemud takes local clients only: those of elsewhere come by virtproxyd.
const virtqemudConf = `auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0777"
unix_sock_dir = "/run/libvirt"
log_level = 3
log_outputs = "3:file:%[1]s/virtqemud.log"
`

// StartModular starts libvirt's modular daemons, which the caller stops: a virtproxyd, which
// the PID and the URIs are of, and virtqemud behind it. No package of Debian has them:
// make soak-releases builds them.
func StartModular(t testing.TB) *Libvirtd {
	t.Helper()
	dir := os.Getenv("POSTERN_LIBVIRT_MODULAR")
	if dir == "" {
		t.Skip("needs the daemons that make soak-releases builds")
	}
	return startLibvirtd(t, &Libvirtd{modular: dir})
}

// Virtqemud returns the process of virtqemud.
func (l *Libvirtd) Virtqemud(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(l.Dir, "virtqemud.pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

package posterntest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sshdBaseFiles are on every test host that does not bring its own.
var sshdBaseFiles = map[string]string{
	"etc/passwd": "root:x:0:0::/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n" +
		"sshd:x:104:65534::/run/sshd:/usr/sbin/nologin\nalice:x:1000:1000::/home/alice:/bin/bash\n" +
		"fred:x:1001:1001::/home/fred:/bin/bash\nrobot:x:1002:1002::/home/robot:/bin/sh\n",
	"etc/group": "root:x:0:\nalice:x:1000:\nfred:x:1001:\nrobot:x:1002:\nremote:x:1100:robot\n",
	"etc/pam.d/common-auth": "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\n" +
		"auth required pam_permit.so\n",
	"etc/pam.d/sshd": "@include common-auth\n",
}

// SSHDCommand runs sshd where /run/sshd need not exist and etc/passwd, etc/group and
// etc/ssh are the test host's.
func SSHDCommand(t testing.TB, root string) []string {
	t.Helper()
	NeedRoot(t)
	Need(t, "sshd")
	Need(t, "unshare")
	_, key := NewSSHKey(t, root, "hostkey")
	script := `mount -t tmpfs tmpfs /run && mkdir /run/sshd &&
		for f in passwd group ssh; do mount --bind "$1/etc/$f" /etc/$f; done &&
		shift && exec /usr/sbin/sshd "$@"`
	return []string{"unshare", "--mount", "sh", "-c", script, "sh", root, "-h", key}
}

// SSHDFiles writes an archive's files below a new root.
func SSHDFiles(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for _, set := range []map[string]string{sshdBaseFiles, files} {
		for name, content := range set {
			if name == "etc/pam.d/sshd" && files["usr/lib/pam.d/sshd"] != "" {
				continue // the distribution's is there
			}
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// SSHDSetting returns what the sshd of a command takes for a keyword, given in
// lower case, for a connection as sshd -C takes it.
func SSHDSetting(t testing.TB, sshd []string, connection, keyword string) string {
	t.Helper()
	out, err := exec.Command(sshd[0], append(sshd[1:len(sshd):len(sshd)], "-T", "-C", connection)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == keyword {
			return value
		}
	}
	return ""
}

// SSHDImage adds Debian's sshd, and what asks NSS, to the files below a root, so that
// they run with it as their root. modules are NSS modules beside that for files.
func SSHDImage(t testing.TB, root string, modules ...string) {
	t.Helper()
	files := []string{Need(t, "sshd"), Need(t, "getent"), Need(t, "id")}
	for _, name := range modules {
		found, _ := filepath.Glob("/usr/lib/libnss_" + name + ".so.2")
		if len(found) == 0 {
			Missing(t, "needs the NSS module %s", name)
		}
		files = append(files, found...)
	}
	for _, file := range files[:len(files):len(files)] {
		out, err := exec.Command("ldd", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.Fields(string(out)) {
			if filepath.IsAbs(word) {
				files = append(files, word)
			}
		}
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		to := filepath.Join(root, file)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err == nil {
			err = os.WriteFile(to, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/sys/unix"
)

// TestRunOnNothingAtAll starts with an empty directory, gets in with the line
// that is printed, reloads, and starts again.
func TestRunOnNothingAtAll(t *testing.T) {
	before := trustStores(t)
	r := startRun(t, filepath.Join(t.TempDir(), "state"))
	if got := r.curl(r.url("/")); !strings.Contains(got, "It works") {
		t.Errorf("public page: %s", got)
	}
	if got := r.curl("--retry", "0", r.url("/guarded/")); !strings.HasSuffix(got, "403") {
		t.Errorf("guarded page, without a certificate: %s", got)
	}
	line := regexp.MustCompile(`(?m)^    curl (.*)$`).FindStringSubmatch(r.out.String())
	if line == nil {
		t.Fatalf("no way in is printed:\n%s", r.out)
	}
	if got := r.curl(strings.Fields(line[1])...); !strings.Contains(got, "You are in") {
		t.Errorf("guarded page: %s", got)
	}
	if got := r.curl("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}",
		fmt.Sprintf("http://localhost:%d/guarded/", r.http)); got != "301 "+r.url("/guarded/") {
		t.Errorf("plain HTTP: %s", got)
	}
	if got := r.curl(fmt.Sprintf("https://id.localhost:%d/", r.https)); !strings.HasSuffix(got, "200") {
		t.Errorf("portal: %s", got)
	}
	directory := regexp.MustCompile(`(https://localhost:[0-9]+)/acme/directory`).FindStringSubmatch(r.out.String())
	if directory == nil {
		t.Fatalf("no ACME directory at localhost is printed:\n%s", r.out)
	}
	if got := r.curl(directory[0]); !strings.Contains(got, directory[1]+"/acme/") {
		t.Errorf("ACME directory: %s", got)
	}
	r.checkFiles()

	if out, err := r.postern("run"); err == nil || !strings.Contains(out,
		fmt.Sprintf("serves this state already (process %d)", r.cmd.Process.Pid)) || !strings.Contains(out, "hint: ") {
		t.Errorf("second start: %v\n%s", err, out)
	}
	r.checkReload()
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v\n%s", err, r.out)
	}
	if out, err := r.postern("run", "--reload"); err == nil || !strings.Contains(out, "no postern serves") {
		t.Errorf("reload of nothing: %v %s", err, out)
	}

	r.out = new(printed)
	r.start()
	if got := r.curl(append(r.me(), r.url("/guarded/"))...); !strings.Contains(got, "You are in") {
		t.Errorf("after a second start: %s", got)
	}
	if !strings.Contains(r.out.String(), line[0]) {
		t.Errorf("the second start does not say how to get in:\n%s", r.out)
	}
	if out, err := r.postern("log", "verify"); err != nil {
		t.Errorf("log verify: %v\n%s", err, out)
	}
	if out, _ := r.postern("log", "list", "--columns"); !strings.Contains(out, "gate.passed") ||
		!strings.Contains(out, "gate.refused") || !strings.Contains(out, "config.loaded") {
		t.Errorf("the timeline lacks something:\n%s", out)
	}
	if after := trustStores(t); after != before {
		t.Error("the system's trust store has changed")
	}
}

// checkFiles checks that other users cannot read the files that grant access.
func (r *running) checkFiles() {
	r.t.Helper()
	err := filepath.WalkDir(r.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		secret := regexp.MustCompile(`\.(key|p12|password|db|db-wal|pid)$|/kek$`).MatchString(path) ||
			path == r.state || d.Name() == "first"
		if secret && info.Mode().Perm()&0o077 != 0 {
			r.t.Errorf("%s: %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		r.t.Error(err)
	}
}

// checkReload changes the configuration under a connection that is in use.
func (r *running) checkReload() {
	r.t.Helper()
	file := filepath.Join(r.state, "Caddyfile")
	old, err := os.ReadFile(file)
	if err != nil {
		r.t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	write(strings.Replace(string(old), "person ", "persons ", 1))
	if out, err := r.postern("run", "--reload"); err == nil || !strings.Contains(out, "knows person") {
		r.t.Errorf("a mistake is loaded: %v %s", err, out)
	}
	write(strings.Replace(string(old), "require /guarded*", "require /other*", 1))
	if out, err := r.postern("run", "--reload"); err != nil || !strings.Contains(out, "has loaded "+file) {
		r.t.Errorf("reload: %v %s", err, out)
	}
	if got := r.curl("-o", "/dev/null", r.url("/guarded/")); !strings.HasSuffix(got, "200") {
		r.t.Errorf("after the reload: %s", got)
	}
	// Who is an administrator is said once, for the portal and for signing.
	address := regexp.MustCompile(`portal https://id\.localhost:.*`).FindString(string(old))
	if got := r.signOver(r.me()); strings.HasSuffix(got, "403") {
		r.t.Errorf("an administrator may not sign: %s", got)
	}
	write(strings.Replace(string(old), address, address+" {\n\t\t\tadmins staff\n\t\t}", 1))
	if out, err := r.postern("run", "--reload"); err != nil {
		r.t.Errorf("reload: %v %s", err, out)
	}
	if got := r.signOver(append(r.me(), "--retry", "0")); !strings.HasSuffix(got, "403") {
		r.t.Errorf("who is no administrator any more signs: %s", got)
	}
	write(strings.Replace(string(old), "require /guarded*", "require /other*", 1))
	if out, err := r.postern("run", "--reload"); err != nil {
		r.t.Errorf("reload: %v %s", err, out)
	}
	// What can be read and not loaded leaves the old in place, its portal too.
	bad := strings.Replace(string(old), "require /guarded* {", "require /guarded* {\n\t\ttrust "+r.state+"/none.pem",
		1)
	write(strings.Replace(bad, "portal https://", "mail smtp://127.0.0.1:9\n\t\tportal https://", 1))
	if out, err := r.postern("run", "--reload"); err == nil || !strings.Contains(out, "none.pem") {
		r.t.Errorf("a CA that is missing is loaded: %v %s", err, out)
	}
	for url, want := range map[string]string{
		r.url("/guarded/"): "200",
		fmt.Sprintf("https://id.localhost:%d/acme/directory", r.https): "200",
	} {
		if got := r.curl("--retry", "0", "-o", "/dev/null", url); !strings.HasSuffix(got, want) {
			r.t.Errorf("after a reload that failed: %s: %s", url, got)
		}
	}
	write(string(old))
	if out, err := r.postern("run", "--reload", "--config", filepath.Join(r.state, ".", "Caddyfile")); err != nil {
		r.t.Errorf("reload: %v %s", err, out)
	}
	if got := r.curl("--retry", "0", "-o", "/dev/null", r.url("/guarded/")); !strings.HasSuffix(got, "403") {
		r.t.Errorf("after the second reload: %s", got)
	}
	if out, err := r.postern("run", "--reload", "--config", "/etc/hostname"); err == nil ||
		!strings.Contains(out, "serves "+file+", not /etc/hostname") || !strings.Contains(out, "hint: ") {
		r.t.Errorf("reload of another file: %v %s", err, out)
	}
}

// trustStores sums up where a program could install a root certificate.
func trustStores(t *testing.T) string {
	t.Helper()
	h := sha256.New()
	home, _ := os.UserHomeDir()
	for _, dir := range []string{
		"/etc/ssl", "/usr/local/share/ca-certificates", "/etc/ca-certificates",
		home + "/.pki", home + "/.mozilla",
	} {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if info, err := d.Info(); err == nil && !d.IsDir() {
				fmt.Fprintln(h, path, info.Size(), info.ModTime())
			}
			return nil
		})
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestRunRefusesAPortThatIsTaken starts where another program listens, one that
// shares its port (SO_REUSEPORT) and one that does not: nothing is made.
func TestRunRefusesAPortThatIsTaken(t *testing.T) {
	for name, control := range map[string]func(string, string, syscall.RawConn) error{
		"alone":  nil,
		"shared": sharePort,
	} {
		t.Run(name, func(t *testing.T) {
			l, err := (&net.ListenConfig{Control: control}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			r := unstarted(t, filepath.Join(t.TempDir(), "state"))
			out, err := r.postern("run", "--https-port", fmt.Sprint(l.Addr().(*net.TCPAddr).Port), "--http-port",
				fmt.Sprint(r.http))
			if err == nil || !strings.Contains(out, "another program listens on "+l.Addr().String()) ||
				!strings.Contains(out, "hint: ") {
				t.Errorf("%v\n%s", err, out)
			}
			if _, err := os.Stat(r.state); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a state was made: %v", err)
			}
		})
	}
}

// sharePort lets others of the same user listen on the port, too, as Caddy does.
func sharePort(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}), err)
}

// TestRunRefusesAnotherServersPort starts a second server, with a state of its
// own and a configuration that asks for the ports of the first.
func TestRunRefusesAnotherServersPort(t *testing.T) {
	first := unstarted(t, filepath.Join(t.TempDir(), "state"))
	first.start()
	second := unstarted(t, filepath.Join(t.TempDir(), "state"))
	file := filepath.Join(first.state, "Caddyfile")
	out, err := second.postern("run", "--config", file)
	if err == nil || !strings.Contains(out, "another program listens on ") ||
		!strings.Contains(out, "the ports are in "+file) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRunSaysThatPortsTakeNoEffect asks for other ports than those of the
// configuration that the first start has made, which is served as it is.
func TestRunSaysThatPortsTakeNoEffect(t *testing.T) {
	r := unstarted(t, filepath.Join(t.TempDir(), "state"))
	r.start()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	https := r.https
	r.https, r.out = posterntest.FreePort(t), new(printed)
	r.start()
	if out := r.out.String(); !strings.Contains(out, "take no effect") ||
		!strings.Contains(out, filepath.Join(r.state, "Caddyfile")) {
		t.Errorf("the configuration is not named:\n%s", out)
	}
	if got := r.curl(fmt.Sprintf("https://localhost:%d/", https)); !strings.Contains(got, "It works") {
		t.Errorf("%s", got)
	}
}

// TestRunWithAConfiguration starts with a file that is named, from another
// directory, which the reload need not name again; without the file nothing is
// made.
func TestRunWithAConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "Caddyfile")
	r := unstarted(t, filepath.Join(dir, "state"))
	if out, err := r.postern("run", "--config", file); err == nil || !strings.Contains(out, "no such file") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(r.state); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a state was made: %v", err)
	}
	write := func(text string) {
		t.Helper()
		text = fmt.Sprintf("{\n\thttp_port %d\n\tdefault_bind 127.0.0.1\n}\nhttp://localhost:%[1]d {\n\trespond %s\n"+
			"}\n", r.http, text)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	r.dir = dir
	r.start("--config", "Caddyfile")
	write("two")
	if out, err := r.postern("run", "--reload"); err != nil || !strings.Contains(out, "has loaded "+file) {
		t.Errorf("reload: %v %s", err, out)
	}
	if out, err := exec.Command(posterntest.Need(t, "curl"), "-sS",
		fmt.Sprintf("http://localhost:%d/", r.http)).CombinedOutput(); err != nil || string(out) != "two" {
		t.Errorf("%v %s", err, out)
	}
}

// TestRunOnAnyPort lets the sample choose its ports, which it keeps.
func TestRunOnAnyPort(t *testing.T) {
	r := unstarted(t, filepath.Join(t.TempDir(), "state"))
	r.https, r.http = 0, 0
	r.start()
	address := regexp.MustCompile(`site +(https://localhost:[0-9]+)/`).FindStringSubmatch(r.out.String())
	if address == nil || strings.HasSuffix(address[1], ":0") {
		t.Fatalf("no address is printed:\n%s", r.out)
	}
	if got := r.curl(address[1] + "/"); !strings.Contains(got, "It works") {
		t.Errorf("%s: %s", address[1], got)
	}
}

// TestRevocationReachesEveryServer runs two servers over one database: what is
// revoked or suspended is refused by both within a second.
func TestRevocationReachesEveryServer(t *testing.T) {
	one := startRun(t, filepath.Join(t.TempDir(), "one"))
	other := filepath.Join(t.TempDir(), "two")
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	kek, err := os.ReadFile(filepath.Join(one.state, "kek"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "kek"), kek, 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(one.state, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	two := &running{
		t: t, program: one.program, state: one.state, https: posterntest.FreePort(t),
		http: posterntest.FreePort(t), out: new(printed),
	}
	two.env = append(os.Environ(), "POSTERN_STATE="+other, "POSTERN_DATABASE="+filepath.Join(one.state, "postern.db"),
		"HOME="+t.TempDir())
	acme := regexp.MustCompile(`portal \S+ https://localhost:([0-9]+)`).FindStringSubmatch(string(config))
	if acme == nil {
		t.Fatalf("no second address of the portal in\n%s", config)
	}
	text := strings.NewReplacer(fmt.Sprint(one.https), fmt.Sprint(two.https), fmt.Sprint(one.http),
		fmt.Sprint(two.http),
		acme[1], fmt.Sprint(posterntest.FreePort(t))).Replace(string(config))
	if err := os.WriteFile(filepath.Join(other, "Caddyfile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	two.start()

	status := func(r *running) string {
		out := r.curl(append(r.me(), "--retry", "0", "-o", "/dev/null", r.url("/guarded/"))...)
		return out[len(out)-3:]
	}
	for _, r := range []*running{one, two} {
		r.await(func() bool { return exec.Command("curl", "-sk", r.url("/")).Run() == nil })
		if got := status(r); got != "200" {
			t.Fatalf("before: %s", got)
		}
	}
	person := strings.TrimSuffix(filepath.Base(one.me()[1]), ".crt")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"user", "suspend", person}, "403"},
		{[]string{"user", "resume", person}, "200"},
		{[]string{"ca", "revoke", one.intermediate("Client CA")}, "403"},
	} {
		if out, err := one.postern(c.args...); err != nil {
			t.Fatalf("%v: %v %s", c.args, err, out)
		}
		begin := time.Now()
		for _, r := range []*running{one, two} {
			r.await(func() bool { return status(r) == c.want })
		}
		t.Logf("%v: after %v", c.args, time.Since(begin))
	}
}

// TestRunServesPHP serves PHP behind a guard with certificates of the real
// authority: the page sees the names of Apache's mod_ssl.
func TestRunServesPHP(t *testing.T) {
	socket := posterntest.PHP(t)
	dir := t.TempDir()
	page := `<?php foreach (["SSL_CLIENT_S_DN_Email", "SSL_CLIENT_S_DN_CN", "SSL_CLIENT_SAN_Email_0", ` +
		`"SSL_CLIENT_VERIFY", "REMOTE_USER", "HTTP_SSL_CLIENT_S_DN_EMAIL"] as $k) ` +
		`echo $k, "=", $_SERVER[$k] ?? "", "\n";`
	for name, text := range map[string]string{
		"wp-login.php": page,
		"index.php":    "<?php echo 'public', $_SERVER['SSL_CLIENT_S_DN_Email'] ?? '';",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	https, http := posterntest.FreePort(t), posterntest.FreePort(t)
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n\thttps_port %d\n\thttp_port %d\n\tdefault_bind 127.0.0.1\n}\nhttps://localhost:%d {\n"+
		"\troot * %s\n\tphp_fastcgi unix/%s\n\trequire /wp-admin* /wp-login.php* {\n\t\tperson dan@example.com\n"+
		"\t}\n}\n",
		https, http, https, dir, socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRun(t, filepath.Join(t.TempDir(), "state"), "--config", config)
	r.https = https
	for _, args := range [][]string{
		{"user", "add", "dan", "--email", "dan@example.com"},
		{"ca", "issue", "--client", "dan", "--layout", "pem", "--out", filepath.Join(dir, "dan")},
	} {
		if out, err := r.postern(args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	root, err := os.ReadFile(filepath.Join(dir, "dan/ca-root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.state, "root.pem"), root, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := r.curl("--cert", filepath.Join(dir, "dan/dan.pem"), "--key", filepath.Join(dir, "dan/dan.key"),
		r.url("/wp-login.php")); got !=
		"SSL_CLIENT_S_DN_Email=dan@example.com\nSSL_CLIENT_S_DN_CN=dan\nSSL_CLIENT_SAN_Email_0=dan@example.com\n"+
			"SSL_CLIENT_VERIFY=SUCCESS\nREMOTE_USER=dan\nHTTP_SSL_CLIENT_S_DN_EMAIL=\n\n200" {
		t.Errorf("guarded page: %s", got)
	}
	if got := r.curl("--retry", "0", "-H", "SSL-Client-S-DN-Email: dan@example.com",
		r.url("/wp-login.php/x")); !strings.HasSuffix(got, "403") {
		t.Errorf("guarded page, without a certificate: %s", got)
	}
	if got := r.curl("-H", "SSL-Client-S-DN-Email: dan@example.com", r.url("/")); got != "public\n200" {
		t.Errorf("public page: %s", got)
	}
}

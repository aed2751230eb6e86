package posterntest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Apache starts an Apache 2.4 of the test's own that listens on the port of
// 127.0.0.1, with mod_ssl and a document root of its own, where index.html says
// "public" and private/index.html "private". The configuration follows, and may
// load more modules. It returns the directory of the document root.
func Apache(t testing.TB, port int, config string) string {
	t.Helper()
	Need(t, "apache2")
	dir, root := OpenDir(t), OpenDir(t)
	for name, text := range map[string]string{"index.html": "public", "private/index.html": "private"} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`ServerRoot %[1]s
PidFile %[1]s/apache.pid
DefaultRuntimeDir %[1]s
ErrorLog %[1]s/error.log
ServerName localhost
Listen 127.0.0.1:%[2]d
`, dir, port)
	for _, m := range []string{
		"mpm_event", "authn_core", "authz_core", "authz_host", "dir", "alias", "rewrite",
		"headers", "socache_shmcb", "ssl",
	} {
		text += fmt.Sprintf("LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	if os.Geteuid() == 0 {
		text += "User www-data\nGroup www-data\n"
	}
	text += fmt.Sprintf("DocumentRoot %s\n<Directory />\nRequire all granted\n</Directory>\n%s", root, config)
	conf := filepath.Join(dir, "apache.conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "error.log")); err == nil && t.Failed() {
			t.Logf("Apache's error log:\n%s", log)
		}
	})
	Serve(t, port, "apache2", "-D", "FOREGROUND", "-f", conf)
	return root
}

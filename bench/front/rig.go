package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/postern-project/postern/front/standard" // the plain Caddy
)

// page is what every server serves.
var page = strings.Repeat("guarded\n", 16)

// server is one that is measured.
type server struct {
	name    string
	address string
	guarded string // path of the guarded page
	resumes bool   // gives tickets under client authentication
	cmd     *exec.Cmd
}

// rig is the servers, with one CA's certificates.
type rig struct {
	dir     string
	client  *tls.Config
	servers []*server

	root, chain, cert, key string // files: root, client CAs, server's certificate and key
}

func newRig(dir string) (*rig, error) {
	r := &rig{dir: dir}
	err := errors.Join(os.Chmod(dir, 0o755), os.MkdirAll(filepath.Join(dir, "www/guarded"), 0o755),
		os.WriteFile(filepath.Join(dir, "www/guarded/page.txt"), []byte(page), 0o644))
	if err != nil {
		return nil, err
	}
	if err := r.startPostern(); err != nil {
		r.stop()
		return nil, err
	}
	for _, start := range []func() error{r.startCaddy, r.startNginx, r.startApache} {
		if err := start(); err != nil {
			r.stop()
			return nil, err
		}
	}
	return r, nil
}

func (r *rig) stop() {
	for _, s := range r.servers {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
		_ = s.cmd.Wait()
	}
}

// start starts a server in a process group of its own, and waits for its port.
func (r *rig) start(s *server, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	r.servers = append(r.servers, s)
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			return c.Close()
		}
		if time.Since(begin) > 20*time.Second {
			return fmt.Errorf("%s does not start: %s", s.name, out.String())
		}
	}
}

// cpu returns the seconds that the server's processes have used so far.
func (s *server) cpu() (float64, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var ticks int
	for _, file := range stats {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // gone meanwhile
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(fields) < 13 || fields[2] != strconv.Itoa(s.cmd.Process.Pid) {
			continue
		}
		for _, f := range fields[11:13] {
			n, err := strconv.Atoi(f)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return float64(ticks) / 100, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// startPostern builds and starts the real program, with its store, and takes the
// certificates from it.
func (r *rig) startPostern() error {
	binary, state := filepath.Join(r.dir, "postern"), filepath.Join(r.dir, "state")
	if out, err := exec.Command("go", "build", "-o", binary, "./cmd/postern").CombinedOutput(); err != nil {
		return fmt.Errorf("build postern: %w\n%s", err, out)
	}
	env := append(os.Environ(), "POSTERN_STATE="+state, "HOME="+r.dir)
	postern := func(args ...string) error {
		cmd := exec.Command(binary, args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("postern %v: %w\n%s", args, err, out)
		}
		return nil
	}
	for _, args := range [][]string{
		{"init"},
		{"user", "add", "alice", "--email", "alice@example.com"},
		{"ca", "issue", "--client", "alice", "--layout", "pem", "--out", filepath.Join(r.dir, "alice")},
		{"ca", "issue", "--server", "localhost", "--layout", "pem", "--out", filepath.Join(r.dir, "server")},
	} {
		if err := postern(args...); err != nil {
			return err
		}
	}
	if err := r.readFiles(); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	config := filepath.Join(r.dir, "Caddyfile")
	text := fmt.Sprintf("{\n\thttps_port %d\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n}\n"+
		"localhost:%d {\n\ttls %s %s\n\troot * %s/www\n\tfile_server\n\trequire /guarded* {\n\t\tperson alice\n\t}\n"+
		"}\n",
		port, port, r.cert, r.key, r.dir)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	cmd := exec.Command(binary, "run", "--config", config)
	cmd.Env = env
	return r.start(&server{
		name: "postern", address: fmt.Sprintf("127.0.0.1:%d", port), guarded: "/guarded/page.txt",
		resumes: true,
	}, cmd)
}

// readFiles finds what ca issue wrote.
func (r *rig) readFiles() error {
	one := func(pattern string) (string, error) {
		found, err := filepath.Glob(filepath.Join(r.dir, pattern))
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("%s: %v", pattern, found)
		}
		if err != nil {
			return "", err
		}
		return found[0], nil
	}
	var errs []error
	file := func(pattern string) string {
		f, err := one(pattern)
		errs = append(errs, err)
		return f
	}
	r.cert, r.key = file("server/localhost.pem"), file("server/localhost.key")
	r.root = file("server/ca-root.pem")
	cert, key := file("alice/alice.pem"), file("alice/alice.key")
	if err := errors.Join(errs...); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	rootPEM, err := os.ReadFile(r.root)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(rootPEM)
	r.chain = r.root
	r.client = &tls.Config{
		ServerName: "localhost", RootCAs: roots, MinVersion: tls.VersionTLS13,
		// The same key exchange with all: OpenSSL 3.0 knows no ML-KEM.
		CurvePreferences:     []tls.CurveID{tls.X25519},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}
	return nil
}

// startCaddy starts Caddy with client authentication and no rule.
func (r *rig) startCaddy() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("{\n\tadmin off\n\thttps_port %d\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n"+
		"\tservers {\n\t\tprotocols h1 h2\n\t}\n\tlog {\n\t\tlevel WARN\n\t}\n}\nlocalhost:%d {\n\ttls %s %s {\n"+
		"\t\tclient_auth {\n\t\t\tmode require_and_verify\n\t\t\ttrust_pool file %s\n\t\t}\n\t}\n\troot * %s/www\n"+
		"\tfile_server\n}\n",
		port, port, r.cert, r.key, r.chain, r.dir)
	config := filepath.Join(r.dir, "plain")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "-serve-caddy", config)
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "XDG_DATA_HOME="+r.dir+"/plain-data",
		"XDG_CONFIG_HOME="+r.dir+"/plain-config")
	return r.start(&server{name: "caddy", address: fmt.Sprintf("127.0.0.1:%d", port), guarded: "/guarded/page.txt"},
		cmd)
}

// serveCaddy serves a Caddyfile until it gets a signal to stop.
func serveCaddy(file string) error {
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(body, map[string]any{"filename": file})
	if err != nil {
		return err
	}
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	return caddy.Stop()
}

// startNginx starts nginx with client authentication on the whole server, and
// session tickets as it gives them by default.
func (r *rig) startNginx() error {
	program, err := lookPath("nginx")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`daemon off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log; worker_processes auto;
events { worker_connections 1024; }
http {
	access_log off; client_body_temp_path %[1]s/n1; proxy_temp_path %[1]s/n2; fastcgi_temp_path %[1]s/n3;
	uwsgi_temp_path %[1]s/n4; scgi_temp_path %[1]s/n5;
	keepalive_requests 1000000000; ssl_session_cache shared:SSL:10m;
	server {
		listen 127.0.0.1:%[2]d ssl; server_name localhost; root %[1]s/www;
		ssl_certificate %[3]s; ssl_certificate_key %[4]s; ssl_client_certificate %[5]s;
		ssl_verify_client on; ssl_verify_depth 3; ssl_protocols TLSv1.3;
	}
}
`, r.dir, port, r.cert, r.key, r.chain)
	if os.Geteuid() == 0 {
		text = "user root;\n" + text
	}
	config := filepath.Join(r.dir, "nginx.conf")
	return r.startWith("nginx", port, config, text, exec.Command(program, "-c", config, "-p", r.dir))
}

// startWith starts a server with the text of its configuration.
func (r *rig) startWith(name string, port int, config, text string, cmd *exec.Cmd) error {
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	return r.start(&server{
		name: name, address: fmt.Sprintf("127.0.0.1:%d", port), guarded: "/guarded/page.txt", resumes: true,
	}, cmd)
}

// startApache starts Apache with client authentication on the whole server:
// under TLS 1.3 it cannot ask for a location alone.
func (r *rig) startApache() error {
	program, err := lookPath("apache2")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`ServerRoot %[1]s
PidFile %[1]s/apache.pid
ErrorLog %[1]s/apache.log
Listen 127.0.0.1:%[2]d
ServerName localhost
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule socache_shmcb_module /usr/lib/apache2/modules/mod_socache_shmcb.so
SSLSessionCache shmcb:%[1]s/scache(512000)
DefaultRuntimeDir %[1]s
KeepAlive On
MaxKeepAliveRequests 0
<VirtualHost 127.0.0.1:%[2]d>
	DocumentRoot %[1]s/www
	SSLEngine on
	SSLProtocol TLSv1.3
	SSLCertificateFile %[3]s
	SSLCertificateKeyFile %[4]s
	SSLCACertificateFile %[5]s
	SSLVerifyClient require
	SSLVerifyDepth 3
</VirtualHost>
`, r.dir, port, r.cert, r.key, r.chain)
	if os.Geteuid() == 0 {
		text = "User www-data\nGroup www-data\n" + text
	}
	config := filepath.Join(r.dir, "apache.conf")
	return r.startWith("apache", port, config, text, exec.Command(program, "-DFOREGROUND", "-f", config))
}

func lookPath(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	path := filepath.Join("/usr/sbin", program)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("without %s, which is not installed", program)
	}
	return path, nil
}

package front

import (
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-project/postern"
)

// TestListens has a configuration's addresses found: of its sites, and of what
// redirects to them.
func TestListens(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"a site and its redirects": {"{\n\thttps_port 8443\n\thttp_port 8080\n\tdefault_bind 127.0.0.1\n}\n" +
			"https://localhost:8443 {\n}\n", []string{"127.0.0.1:8080", "127.0.0.1:8443"}},
		"no redirects": {
			"{\n\tauto_https disable_redirects\n\thttps_port 8443\n}\nhttps://localhost:8443 {\n}\n",
			[]string{":8443"},
		},
		"plain HTTP":    {"http://localhost:8081 {\n}\n", []string{":8081"}},
		"a Unix socket": {"http://localhost:8081 {\n\tbind unix//run/a.sock\n}\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			config, _, err := Adapt([]byte(c.text), "Caddyfile")
			if err != nil {
				t.Fatal(err)
			}
			if got := listens(config); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestListenErrors has each refusal of the kernel say what to do.
func TestListenErrors(t *testing.T) {
	for name, c := range map[string]struct {
		errno syscall.Errno
		code  postern.Code
		hint  string
	}{
		"taken":     {syscall.EADDRINUSE, postern.Unavailable, "ss -ltnp"},
		"no right":  {syscall.EACCES, postern.Denied, "CAP_NET_BIND_SERVICE"},
		"by sysctl": {syscall.EACCES, postern.Denied, "ip_unprivileged_port_start"},
	} {
		t.Run(name, func(t *testing.T) {
			err := listenError("127.0.0.1:443", &net.OpError{
				Op: "listen", Net: "tcp",
				Err: os.NewSyscallError("bind", c.errno),
			})
			if postern.CodeOf(err) != c.code || !strings.Contains(postern.HintOf(err), c.hint) ||
				!strings.Contains(err.Error(), "127.0.0.1:443") {
				t.Errorf("%v; %s", err, postern.HintOf(err))
			}
		})
	}
}

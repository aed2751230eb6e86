package front

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/postern-project/postern"
)

// Listenable fails if this process cannot listen on a TCP address (host:port):
// Unavailable if any process listens there, this one included, Denied without
// the right to. Caddy sets SO_REUSEPORT, by which a second server of the same
// user would get a share of the connections and no error.
func Listenable(address string) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err == nil {
		return l.Close()
	}
	return listenError(address, err)
}

// listenError returns why an address cannot be listened on. It returns nil for errors
// that Caddy reports, such as an address that this host does not have.
func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE), strings.Contains(err.Error(), "address already in use"):
		return postern.Errorf(postern.Unavailable, "another program listens on %s already", address).
			WithHint("stop it (ss -ltnp shows which it is), or choose another port")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return postern.Errorf(postern.Denied, "this user has no right to listen on %s", address).WithHint(
			"a port below 1024 needs CAP_NET_BIND_SERVICE: run the packaged systemd service, which has it " +
				"(AmbientCapabilities=CAP_NET_BIND_SERVICE), or as root: sysctl net.ipv4.ip_unprivileged_port_start=80")
	}
	return nil
}

// listenable checks what a configuration listens on, but for the ports that the
// one that is served has.
func listenable(config []byte) error {
	served := servedPorts()
	for _, address := range listens(config) {
		_, port, err := net.SplitHostPort(address)
		if err != nil || slices.Contains(served, port) || passed(address) {
			continue
		}
		if err := Listenable(address); err != nil {
			return err
		}
	}
	return nil
}

// listens returns the TCP addresses of a configuration's HTTP servers, those of
// its redirects to HTTPS included.
func listens(config []byte) []string {
	web := webOf(config)
	plain, secure := strconv.Itoa(portOr(web.HTTPPort, 80)), strconv.Itoa(portOr(web.HTTPSPort, 443))
	var all []string
	for _, s := range web.Servers {
		redirects := s.AutoHTTPS == nil || !s.AutoHTTPS.Disabled && !s.AutoHTTPS.DisableRedir
		for _, address := range addresses(s.Listen) {
			all = append(all, address)
			if host, port, _ := net.SplitHostPort(address); redirects && port == secure {
				all = append(all, net.JoinHostPort(host, plain))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// webOf returns a configuration's HTTP servers; none of one that cannot be read, which
// Caddy says.
func webOf(config []byte) caddyhttp.App {
	var c struct {
		Apps struct {
			HTTP caddyhttp.App `json:"http"`
		} `json:"apps"`
	}
	if json.Unmarshal(config, &c) != nil {
		return caddyhttp.App{}
	}
	return c.Apps.HTTP
}

// servedPorts returns the ports that the configuration in use listens on.
func servedPorts() (ports []string) {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if web, ok := app.(*caddyhttp.App); ok && err == nil {
		for _, s := range web.Servers {
			for _, address := range addresses(s.Listen) {
				_, port, _ := net.SplitHostPort(address)
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// addresses returns the TCP addresses of a server's listen words.
func addresses(listen []string) (all []string) {
	for _, text := range listen {
		a, err := caddy.ParseNetworkAddress(text)
		if err != nil || !strings.HasPrefix(a.Network, "tcp") && a.Network != passedNetwork {
			continue
		}
		for _, one := range a.Expand() {
			all = append(all, one.JoinHostPort(0))
		}
	}
	return all
}

func portOr(port, otherwise int) int {
	if port == 0 {
		return otherwise
	}
	return port
}

package front

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/postern-project/postern/internal/system"
)

// passedNetwork is the network of the addresses for which systemd may have passed a socket
// that listens there already. The socket is systemd's, so while the server restarts,
// connections wait in it, and none is refused.
const passedNetwork = "systemd"

func init() {
	caddy.RegisterNetwork(passedNetwork, listenPassed)
	caddyhttp.RegisterNetworkHTTP3(passedNetwork, "udp") // of which none is passed
}

// listenPassed listens on the socket that systemd passed for an address, else on one of its
// own.
func listenPassed(ctx context.Context, _, host, port string, offset uint, cfg net.ListenConfig) (any, error) {
	first, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	at := caddy.NetworkAddress{Network: "tcp", Host: host, StartPort: uint(first), EndPort: uint(first)}
	if l := passedListener(at.JoinHostPort(offset)); l != nil {
		return drained.listen(l), nil
	}
	return at.Listen(ctx, offset, cfg)
}

// passedListener returns a listener on the socket that systemd passed for a TCP address, or
// nil. Closing it does not close the socket.
func passedListener(address string) *net.TCPListener {
	for _, s := range system.PassedSockets() {
		l, err := net.FileListener(s.File)
		if err != nil {
			continue // no stream
		}
		if tcp, ok := l.(*net.TCPListener); ok && servesAddress(l.Addr(), address) {
			return tcp
		}
		_ = l.Close()
	}
	return nil
}

// servesAddress reports whether a socket listens on a TCP address, host:port, and on no
// other.
func servesAddress(socket net.Addr, address string) bool {
	is, ok := socket.(*net.TCPAddr)
	host, port, err := net.SplitHostPort(address)
	if !ok || err != nil || port != strconv.Itoa(is.Port) {
		return false
	}
	if is.IP.IsUnspecified() {
		return host == "" || host == "::"
	}
	ip, err := netip.ParseAddr(cmp.Or(host, "::"))
	return err == nil && ip.Unmap() == is.AddrPort().Addr().Unmap()
}

// passed reports whether systemd passed a socket for a TCP address.
func passed(address string) bool {
	l := passedListener(address)
	return l != nil && l.Close() == nil
}

// onPassed has a server's addresses listen on the sockets that systemd passed, if it passed
// any.
func onPassed(listen []string) []string {
	if len(system.PassedSockets()) == 0 {
		return listen
	}
	all := make([]string, len(listen))
	for i, text := range listen {
		all[i] = text
		if a, err := caddy.ParseNetworkAddress(text); err == nil && a.Network == "tcp" {
			a.Network = passedNetwork
			all[i] = a.String()
		}
	}
	return all
}

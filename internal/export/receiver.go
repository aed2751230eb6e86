package export

import (
	"context"
	"net/netip"
	"net/url"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// receiver is where entries are sent to. send returns when the receiver has all of them;
// after an error, of which a part may have arrived, the same records are sent again.
type receiver interface {
	send(ctx context.Context, records []record) error
}

// transport is one way to send. Its flags say which options it takes.
type transport struct {
	open      func(o Options, u *url.URL) (receiver, error)
	path      bool   // the address is a path on this host, instead of HOST:PORT
	encrypted bool   // nobody reads on the way what is sent
	port      string // where the address names none; "" if it must
	http      bool
	tls       bool
	rotation  bool
}

// transports are all of them, by the scheme of the receiver's address.
var transports = map[string]transport{
	"https":       {open: openHTTP, port: "443", encrypted: true, http: true},
	"http":        {open: openHTTP, port: "80", http: true},
	"syslog+tls":  {open: openTLS, port: "6514", encrypted: true, tls: true}, // RFC 5425, 4.1
	"syslog+tcp":  {open: openTCP},
	"syslog+udp":  {open: openUDP, port: "514"}, // RFC 5426, 3.3
	"syslog+unix": {open: openSocket, path: true},
	"file":        {open: openFile, path: true, rotation: true},
}

// open returns the receiver at an address. Nothing is sent yet.
func open(o Options) (receiver, error) {
	u, err := url.Parse(o.To)
	if err != nil || o.From < 0 {
		return nil, errAddress
	}
	t, ok := transports[u.Scheme]
	if !ok || t.path != (u.Host == "") || t.path != (u.Path != "") && !t.http || u.Fragment != "" ||
		u.RawQuery != "" && !t.http {
		return nil, errAddress
	}
	if !t.path && u.Port() == "" {
		if t.port == "" {
			return nil, errAddress
		}
		u.Host += ":" + t.port
	}
	if o.Secret+o.Authorization != "" && !t.http || o.TLS != (TLS{}) && !t.tls ||
		(o.Rotate != 0 || o.Keep != 0) && !t.rotation {
		return nil, postern.Errorf(postern.Invalid, "a receiver at %s:// does not take these options", u.Scheme).
			WithHint("a secret and a header are for HTTP, certificates are for syslog+tls, rotation is for files")
	}
	if !t.path && !t.encrypted && !o.Unencrypted && !isLoopback(u.Hostname()) {
		return nil, postern.Errorf(postern.Invalid, "without TLS the network would read what happens here").
			WithHint("use https or syslog+tls, or a receiver on this host that sends on by TLS")
	}
	return t.open(o, u)
}

var errAddress = postern.Errorf(postern.Invalid, "this is not the address of a receiver").
	WithHint("like https://logs.example.com/postern, syslog+tls://logs.example.com, syslog+tcp://127.0.0.1:514, " +
		"syslog+udp://127.0.0.1, syslog+unix:///dev/log or file:///var/log/postern/timeline.json")

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// thisHost is where entries were seen that name no host.
func thisHost() (string, error) { return system.HostName("") }

package front

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// from returns a dialer whose connections come from a loopback address.
func from(address string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: patience}
}

// TestNobodyIsAskedWhereAnAddressIsEnough makes handshakes from two addresses, of
// which one passes without a certificate.
func TestNobodyIsAskedWhereAnAddressIsEnough(t *testing.T) {
	h := newRig(t)
	const near = "\n\t\tor anyone {\n\t\t\taddress 127.0.0.1\n\t\t}\n\t}\n"
	site := func(name, guards string) string { return name + ".localhost:HTTPS {\n" + guards + "\trespond ok\n}\n" }
	https, _ := h.serve(t, site("near", "\trequire /a* {"+near)+
		site("both", "\trequire /a* {"+near+"\trequire /b* {"+near)+
		site("wider",
			"\trequire /a* {"+near+"\trequire /b* {\n\t\tor anyone {\n\t\t\taddress 127.0.0.0/8\n\t\t}\n\t}\n")+
		site("closed", "\trequire /a* {"+near+"\trequire /b* {\n\t\tanyone\n\t\trule false\n\t}\n")+
		site("other", "\trequire /a* {"+near+"\trequire /b*\n")+
		site("method", "\trequire {\n\t\tor anyone {\n\t\t\taddress 127.0.0.1\n\t\t\tmethod GET\n\t\t}\n\t}\n")+
		site("plain", "\trequire\n"))
	current().poll(t.Context())
	for name, asked := range map[string]map[string]bool{
		"near":   {"127.0.0.1": false, "127.0.0.2": true},
		"both":   {"127.0.0.1": false, "127.0.0.2": true},
		"wider":  {"127.0.0.1": false, "127.0.0.2": true},
		"closed": {"127.0.0.1": false, "127.0.0.2": true},
		"other":  {"127.0.0.1": true, "127.0.0.2": true},
		"method": {"127.0.0.1": true, "127.0.0.2": true},
		"plain":  {"127.0.0.1": true, "127.0.0.2": true},
	} {
		for address, want := range asked {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				config := h.clientConfig(nil)
				config.ServerName, config.MaxVersion = name+".localhost", version
				got := false
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					got = true
					return new(tls.Certificate), nil
				}
				c, err := tls.DialWithDialer(from(address), "tcp", fmt.Sprintf("127.0.0.1:%d", https), config)
				if err != nil {
					t.Fatalf("%s from %s: %v", name, address, err)
				}
				c.Close()
				if got != want {
					t.Errorf("%s from %s over %s: asked %v", name, address, tls.VersionName(version), got)
				}
			}
		}
	}
}

const lastingSite = `
localhost:HTTPS {
	require /near* {
		person alice
		or anyone {
			address NEAR
		}
	}
	require /window* {
		person alice
		or anyone {
			rule ` + "`time < timestamp(\"UNTIL\")`" + `
		}
	}
	require /method* {
		person alice
		or anyone {
			method METHOD
		}
	}
	require /public* {
		or anyone {
			rule true
		}
	}
	reverse_proxy APP {
		stream_close_delay 5m
	}
}
`

// TestALastingExchangeWithoutACertificateEnds opens exchanges in ways without a
// certificate, and ends each way: its time is over, or another configuration is
// loaded that has it no more.
func TestALastingExchangeWithoutACertificateEnds(t *testing.T) {
	h := newRig(t)
	uploading := make(chan struct{})
	app := newLastingApp(t, uploading).URL
	config := func(near, method string, until time.Time) string {
		return strings.NewReplacer("APP", app, "NEAR", near, "METHOD", method,
			"UNTIL", until.UTC().Format(time.RFC3339Nano)).Replace(lastingSite)
	}
	https, http := h.serve(t, config("127.0.0.1", "GET", time.Now().Add(time.Hour)), withGrace)
	alice := h.person(t, "alice")
	current().poll(t.Context())
	open := func(who *holder, place string) (out []*lasting) {
		for _, proto := range []string{"1.1", "2"} {
			c := h.lastingClient(t, https, proto, who, uploading)
			for _, kind := range []string{"events", "flood", "upload", "socket"} {
				if proto == "2" && kind == "socket" || place == "/method" && kind == "upload" {
					continue
				}
				l := c.open(t, place+"/"+kind)
				l.name += " over HTTP/" + proto
				out = append(out, l)
			}
		}
		return out
	}
	window, near, method := open(nil, "/window"), open(nil, "/near"), open(nil, "/method")
	hers := h.lastingClient(t, https, "1.1", alice, uploading).open(t, "/near/socket")
	end := func(what string, exchanges []*lasting) {
		t.Helper()
		for _, l := range exchanges {
			if err := l.ends(); err != nil {
				t.Errorf("%s: %s: %v", what, l.name, err)
			}
		}
	}
	goesOn := func(l *lasting) {
		t.Helper()
		if err := l.say("still there"); err != nil {
			t.Errorf("%s was cut: %v", l.name, err)
		}
	}
	socket := func(of []*lasting) *lasting {
		for _, l := range of {
			if strings.Contains(l.name, "/socket") {
				return l
			}
		}
		return nil
	}
	// Its time is over soon after it is loaded, however long it took to open all of them.
	until := time.Now().Add(3 * time.Second)
	h.load(t, https, http, config("127.0.0.1", "GET", until), withGrace)
	end("the time is over", window)
	goesOn(socket(near))
	h.load(t, https, http, config("127.0.0.1 192.0.2.1", "HEAD", until), withGrace)
	end("another method", method)
	goesOn(socket(near))
	h.load(t, https, http, config("192.0.2.1", "HEAD", until), withGrace)
	end("another address", near)
	goesOn(hers)
	public := open(nil, "/public")
	h.load(t, https, http, "localhost:HTTPS {\n\trequire\n\trespond closed\n}\n", withGrace)
	end("all is closed", public)
	goesOn(hers)
}

// withGrace lets a configuration end soon.
func withGrace(config []byte) []byte {
	config, err := with(config, "apps", "http", "grace_period", json.RawMessage(`"100ms"`))
	if err != nil {
		panic(err)
	}
	return config
}

// TestForwardedAddressesNeedATrustedProxy asks through a proxy that is trusted, and
// through one that is not.
func TestForwardedAddressesNeedATrustedProxy(t *testing.T) {
	h := newRig(t)
	h.global = "servers {\n\t\ttrusted_proxies static 127.0.0.1\n\t}"
	https, _ := h.serve(t,
		"localhost:HTTPS {\n\trequire {\n\t\tor anyone {\n\t\t\taddress 192.0.2.0/24 127.0.0.0/8\n\t\t}\n\t}\n"+
			"\trespond "+secret+"\n}\n")
	current().poll(t.Context())
	for _, c := range []struct {
		from, header string
		status       int
	}{
		{"127.0.0.1", "", 200},
		{"127.0.0.1", "X-Forwarded-For: 192.0.2.7", 200},
		{"127.0.0.1", "X-Forwarded-For: 198.51.100.7", 403},
		{"127.0.0.1", "X-Forwarded-For: 192.0.2.7, 198.51.100.7", 200},
		{"127.0.0.1", "X-Forwarded-For: 198.51.100.7\r\nX-Real-IP: 192.0.2.7", 403},
		{"127.0.0.2", "X-Forwarded-For: 198.51.100.7", 200},
	} {
		raw, err := from(c.from).DialContext(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", https))
		if err != nil {
			t.Fatal(err)
		}
		conn := tls.Client(raw, h.clientConfig(nil))
		a := attempt{proto: "1.1", method: "GET", host: "localhost", target: "/"}
		if c.header != "" {
			a.headers = []string{c.header}
		}
		got, err := http1(conn, a)
		conn.Close()
		if err != nil || got.status != c.status {
			t.Errorf("from %s with %q: %d %v, want %d", c.from, c.header, got.status, err, c.status)
		}
	}
}

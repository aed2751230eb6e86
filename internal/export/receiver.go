package export

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/webhook"
)

// open returns the receiver at an address. Nothing is sent yet.
func open(o Options) (receiver, error) {
	u, err := url.Parse(o.To)
	if err != nil || u.Host == "" || o.From < 0 {
		return nil, errAddress
	}
	if u.Scheme != "https" && !isLoopback(u.Hostname()) {
		return nil, postern.Errorf(postern.Invalid, "without TLS the network would read what happens here").
			WithHint("use https, or a receiver on this host that sends on by TLS")
	}
	switch u.Scheme {
	case "http", "https":
		hook := &webhook.Webhook{URL: o.To, Secret: o.Secret}
		return httpReceiver{hook}, hook.Validate()
	case "syslog+tcp":
		if u.Port() == "" || o.Secret != "" {
			return nil, errAddress
		}
		host, err := system.HostName("")
		return syslogReceiver{address: u.Host, host: host}, err
	}
	return nil, errAddress
}

var errAddress = postern.Errorf(postern.Invalid, "this is not the address of a receiver").
	WithHint("like https://logs.example.com/postern with a secret, or syslog+tcp://127.0.0.1:514 without one")

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// httpTimeout bounds one request.
const httpTimeout = 30 * time.Second

// httpReceiver gets a batch as NDJSON in the body of a request. Its webhook-id is the same
// when the batch is sent again.
type httpReceiver struct{ hook *webhook.Webhook }

func (h httpReceiver) send(ctx context.Context, records []record) error {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	var body bytes.Buffer
	for _, r := range records {
		body.Write(r.text)
		body.WriteByte('\n')
	}
	first, last := records[0].event, records[len(records)-1].event
	id := fmt.Sprintf("log-%d-%d-%d", first.Index, last.Index, first.Time.UnixMicro())
	return h.hook.Post(ctx, webhook.Message{ID: id, Type: "application/x-ndjson", Body: body.Bytes()}, time.Now())
}

// dial connects to a syslog receiver.
func dial(ctx context.Context, address string) (*net.TCPConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

package export

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/postern-project/postern"
)

// Sizes of messages, in octets.
const (
	udpMost   = 2048     // what receivers should take (RFC 5426, 3.2)
	localMost = 64 << 10 // what fits into a socket's buffer
)

// A receiver that is not there answers by ICMP, and one that is may have a small buffer: after
// so many datagrams the sender listens for so long.
const (
	udpBurst = 32
	udpPause = 5 * time.Millisecond
)

// datagramReceiver gets one message in a datagram: by UDP (RFC 5426), or through a socket on
// this host, as syslog(3) writes to /dev/log. Nobody says that a datagram arrived by UDP. One
// in a socket is the receiver's once it is written, which waits for space there.
type datagramReceiver struct {
	network, address string
	message          func(record) []byte
	lossy            bool
}

func openUDP(_ Options, u *url.URL) (receiver, error) {
	host, err := thisHost()
	return datagramReceiver{"udp", u.Host, func(r record) []byte { return cut(message(r, host), udpMost) }, true}, err
}

func openSocket(_ Options, u *url.URL) (receiver, error) {
	return datagramReceiver{
		network: "unixgram", address: u.Path,
		message: func(r record) []byte { return cut(localMessage(r), localMost) },
	}, nil
}

func (d datagramReceiver) send(ctx context.Context, records []record) error {
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	if err := d.write(ctx, records); err != nil {
		return postern.Errorf(postern.Unavailable, "the syslog receiver %s: %w", d.address, err)
	}
	return nil
}

func (d datagramReceiver) write(ctx context.Context, records []record) error {
	conn, err := new(net.Dialer).DialContext(ctx, d.network, d.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	for i, r := range records {
		if _, err := conn.Write(d.message(r)); err != nil {
			return err
		}
		if d.lossy && (i%udpBurst == udpBurst-1 || i == len(records)-1) {
			if err := listen(conn); err != nil {
				return err
			}
		}
	}
	return nil
}

// listen waits a moment for the error that the network reports of what was sent.
func listen(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(udpPause)); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

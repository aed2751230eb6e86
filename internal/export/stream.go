package export

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"

	"github.com/postern-project/postern"
)

// TLS says whom a syslog receiver is trusted by, and what this end shows. The files are
// read for each connection, so that certificates may be renewed.
type TLS struct {
	CA          string // file with the CAs of the receiver's certificate; "" for those that the system trusts
	Certificate string // file with the client certificate and its chain, if the receiver asks for one
	Key         string // file with its key
}

// streamReceiver gets RFC 5424 messages over TCP, framed by octet counting (RFC 6587,
// 3.4.1), or over TLS (RFC 5425). Syslog has no acknowledgement: each batch has a
// connection of its own, and the receiver has it when it has read to the end and closed
// the connection.
type streamReceiver struct {
	address string // HOST:PORT
	host    string // where entries were seen that name no host
	dial    func(ctx context.Context, address string) (stream, error)
}

// stream is a connection of which one direction can be ended.
type stream interface {
	net.Conn
	CloseWrite() error
}

func openTCP(_ Options, u *url.URL) (receiver, error) {
	host, err := thisHost()
	return streamReceiver{u.Host, host, func(ctx context.Context, address string) (stream, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}}, err
}

func openTLS(o Options, u *url.URL) (receiver, error) {
	if _, err := o.TLS.config(); err != nil {
		return nil, err
	}
	host, err := thisHost()
	return streamReceiver{u.Host, host, func(ctx context.Context, address string) (stream, error) {
		config, err := o.TLS.config()
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{Config: config} // it compares the name with the certificate
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return conn.(*tls.Conn), nil
	}}, err
}

// config reads the files.
func (t TLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "the receiver's CA: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, postern.Errorf(postern.Invalid, "%s has no certificate of a CA in PEM", t.CA)
		}
	}
	if t.Certificate != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "the client certificate and its key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (s streamReceiver) send(ctx context.Context, records []record) error {
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	if err := s.exchange(ctx, records); err != nil {
		return postern.Errorf(postern.Unavailable, "the syslog receiver %s: %w", s.address, err)
	}
	return nil
}

func (s streamReceiver) exchange(ctx context.Context, records []record) error {
	conn, err := s.dial(ctx, s.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var frames bytes.Buffer
	for _, r := range records {
		m := message(r, s.host)
		fmt.Fprintf(&frames, "%d %s", len(m), m)
	}
	if _, err := frames.WriteTo(conn); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return fmt.Errorf("it did not close the connection after it had everything: %w", err)
	}
	return nil
}

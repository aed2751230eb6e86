package export

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// syslogTimeout bounds one batch.
const syslogTimeout = 30 * time.Second

// syslogReceiver gets RFC 5424 messages over TCP, framed by octet counting (RFC 6587,
// 3.4.1). Syslog has no acknowledgement: each batch has a connection of its own, and the
// receiver has it when it has read to the end and closed the connection.
type syslogReceiver struct {
	address string // HOST:PORT
	host    string // where entries were seen that name no host
}

func (s syslogReceiver) send(ctx context.Context, records []record) error {
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	if err := s.exchange(ctx, records); err != nil {
		return postern.Errorf(postern.Unavailable, "the syslog receiver %s: %w", s.address, err)
	}
	return nil
}

func (s syslogReceiver) exchange(ctx context.Context, records []record) error {
	conn, err := dial(ctx, s.address)
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

// authpriv is the facility: what is about who may do what (RFC 5424, 6.2.1).
const authpriv = 10

// message returns an entry as an RFC 5424 message: APP-NAME is postern, MSGID the kind, and
// MSG the entry's JSON, without a byte order mark.
func message(r record, host string) []byte {
	e := r.event
	return fmt.Appendf(nil, "<%d>1 %s %s postern - %s - %s", authpriv*8+severity(e.Outcome),
		e.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), printable(cmp.Or(e.Host, host), 255),
		printable(e.Kind, 32), r.text)
}

func severity(o postern.Outcome) int {
	switch o {
	case postern.OK:
		return 6 // informational
	case postern.Refused:
		return 4 // warning
	case postern.Failed:
		return 3 // error
	}
	return 5 // notice
}

// printable returns a header field: PRINTUSASCII, at most so long, "-" for none.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return cmp.Or(s[:min(len(s), most)], "-")
}

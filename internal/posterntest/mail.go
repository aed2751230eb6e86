package posterntest

import (
	"bufio"
	"fmt"
	"io"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mailbox is an SMTP server (RFC 5321) that takes every message and keeps it.
type Mailbox struct {
	URL string // smtp://127.0.0.1:PORT

	mu    sync.Mutex
	mails []Mail
	more  chan struct{} // closed and replaced when a message comes
}

// Mail is one message that a Mailbox took.
type Mail struct {
	From    string   // of the envelope
	To      []string // of the envelope
	Header  mail.Header
	Subject string
	Text    string // decoded
	Raw     string // as it came, header and body
}

// NewMailbox starts a mailbox on loopback, which ends with the test.
func NewMailbox(t testing.TB) *Mailbox {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &Mailbox{URL: "smtp://" + l.Addr().String(), more: make(chan struct{})}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				if err := m.serve(c); err != nil {
					t.Log("mailbox:", err)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return m
}

// serve speaks SMTP on one connection.
func (m *Mailbox) serve(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	say := func(line string) { fmt.Fprintf(c, "%s\r\n", line) }
	var msg Mail
	say("220 sink ESMTP")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil // the client has gone
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "EHLO", "HELO":
			say("250 sink")
		case "MAIL":
			msg = Mail{From: angle(rest)}
			say("250 ok")
		case "RCPT":
			msg.To = append(msg.To, angle(rest))
			say("250 ok")
		case "DATA":
			say("354 go on")
			if err := readData(r, &msg); err != nil {
				return err
			}
			m.keep(msg)
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return nil
		default:
			say("250 ok")
		}
	}
}

func angle(s string) string {
	_, s, _ = strings.Cut(s, "<")
	s, _, _ = strings.Cut(s, ">")
	return s
}

func readData(r *bufio.Reader, msg *Mail) error {
	var raw strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if line == ".\r\n" {
			break
		}
		raw.WriteString(strings.TrimPrefix(line, "."))
	}
	msg.Raw = raw.String()
	parsed, err := mail.ReadMessage(strings.NewReader(msg.Raw))
	if err != nil {
		return err
	}
	msg.Header, msg.Subject = parsed.Header, parsed.Header.Get("Subject")
	body := parsed.Body
	if strings.EqualFold(parsed.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	msg.Text = strings.ReplaceAll(string(text), "\r\n", "\n")
	return err
}

func (m *Mailbox) keep(msg Mail) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, msg)
	close(m.more)
	m.more = make(chan struct{})
}

// Mails returns what has come so far.
func (m *Mailbox) Mails() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Mail{}, m.mails...)
}

// Take waits for a message to an address, removes it and returns it.
func (m *Mailbox) Take(t testing.TB, to string) Mail {
	t.Helper()
	return m.TakeAbout(t, to, "")
}

// TakeAbout is Take for a message with those words in its subject or text.
func (m *Mailbox) TakeAbout(t testing.TB, to, words string) Mail {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		m.mu.Lock()
		more := m.more
		for i, msg := range m.mails {
			if len(msg.To) == 1 && msg.To[0] == to && strings.Contains(msg.Subject+"\n"+msg.Text, words) {
				m.mails = append(m.mails[:i:i], m.mails[i+1:]...)
				m.mu.Unlock()
				return msg
			}
		}
		m.mu.Unlock()
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("no message to %s about %q came within a minute", to, words)
		}
	}
}

package portal

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/wneessen/go-mail"
)

// Message is one plain-text message. It may have a link's token in it, so it is
// stored encrypted.
type Message struct {
	ID      string    `json:"id"`
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	Queued  time.Time `json:"queued"`
	Expires time.Time `json:"expires"` // it is not sent later
	Tries   int       `json:"-"`
}

// Mailer sends a message. It is safe for concurrent use.
type Mailer interface {
	Send(ctx context.Context, m Message) error
}

// Outbox stores messages until they are sent.
//
// DueMessages leases up to n messages that are due: no other caller gets them
// before the lease ends. DropMessage deletes one. RetryMessage sets when it is due
// again and adds one to its Tries.
type Outbox interface {
	PutMessage(ctx context.Context, m Message) error
	DueMessages(ctx context.Context, now time.Time, n int, lease time.Duration) ([]Message, error)
	DropMessage(ctx context.Context, id string) error
	RetryMessage(ctx context.Context, id string, due time.Time) error
	// Unsent returns how many messages were tried and could not be sent.
	Unsent(ctx context.Context) (int64, error)
}

// SMTP sends through a mail server.
type SMTP struct {
	host string
	from string
	name string
	opts []mail.Option
}

// NewSMTP returns a Mailer for an address of the form
// smtp[s]://[user:password@]host[:port][?from=address]. Port 25 (465 for
// smtps) is the default; STARTTLS is used when offered, and required, with the
// server's certificate verified, as soon as there is a password. Without from,
// messages come from postern@ the host name given.
func NewSMTP(address, hostname string) (*SMTP, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" {
		return nil, postern.Errorf(postern.Invalid, "mail server address is not like smtp://user:password@host:25")
	}
	from := u.Query().Get("from")
	if from == "" {
		from = "postern@" + hostname
	}
	if from, err = postern.CleanEmail(from); err != nil {
		return nil, err
	}
	s := &SMTP{host: u.Hostname(), from: from, name: hostname}
	s.opts = []mail.Option{mail.WithTimeout(30 * time.Second), mail.WithHELO(heloName(hostname))}
	port := u.Port()
	switch _, password := u.User.Password(); {
	case u.Scheme == "smtps":
		s.opts = append(s.opts, mail.WithSSL())
		port = orDefault(port, "465")
	case password:
		s.opts = append(s.opts, mail.WithTLSPolicy(mail.TLSMandatory))
	default:
		// Without a password there is no secret to keep from an active
		// attacker, who could strip STARTTLS anyway.
		s.opts = append(s.opts, mail.WithTLSPolicy(mail.TLSOpportunistic),
			mail.WithTLSConfig(&tls.Config{InsecureSkipVerify: true}))
	}
	n, err := strconv.Atoi(orDefault(port, "25"))
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "mail server port is not a number")
	}
	s.opts = append(s.opts, mail.WithPort(n))
	if password, ok := u.User.Password(); ok {
		s.opts = append(s.opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(u.User.Username()),
			mail.WithPassword(password))
	}
	return s, nil
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// heloName returns the name to greet with: an address needs brackets (RFC
// 5321, 4.1.3).
func heloName(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return "[" + host + "]"
	}
	return host
}

// Send hands the message to the mail server.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	to, err := postern.CleanEmail(m.To)
	if err != nil {
		return err
	}
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.EnvelopeFrom(s.from); err != nil {
		return err
	}
	if err := msg.FromFormat("Postern "+s.name, s.from); err != nil {
		return err
	}
	if err := msg.To(to); err != nil {
		return err
	}
	msg.Subject(oneLine(m.Subject))
	msg.SetDate()
	msg.SetMessageIDWithValue(m.ID + "@" + s.name)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	c, err := mail.NewClient(s.host, s.opts...)
	if err != nil {
		return err
	}
	return c.DialAndSendWithContext(ctx, msg)
}

// oneLine returns s without anything that could end a header line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}

func message(to, subject string, expires time.Time, paragraphs ...string) Message {
	return Message{
		ID: newToken(), To: to, Subject: oneLine(subject), Text: strings.Join(paragraphs, "\n\n") + "\n",
		Expires: expires,
	}
}

func when(t time.Time) string { return t.UTC().Format("Monday 2 January 2006, 15:04 UTC") }

func linkLines(m Made) string {
	return fmt.Sprintf(
		"    %s\n\nIf the page asks for a code, it is\n\n    %s\n\nThe link can be used once, until %s.",
		m.URL, m.Code, when(m.Expires))
}

func inviteMessage(c Config, k Link, m Made) Message {
	return message(k.Email, "Your certificate for "+c.Name, m.Expires,
		fmt.Sprintf("You are invited to get a certificate for %s, with the name %s. The certificate and its key are "+
			"in your browser "+
			"and replace a password. It takes two minutes. Open this page in the browser that you will use:", c.Name,
			k.Person),
		linkLines(m),
		"Opening the page changes nothing. The link is used up when you press the button on it. "+
			"If you did not expect this message, ignore it.")
}

func signUpMessage(c Config, k Link, m Made) Message {
	return message(k.Email, "Confirm your address for "+c.Name, m.Expires,
		fmt.Sprintf("A certificate of %s was requested for this address. If you requested it, open:", c.Name),
		linkLines(m),
		"If you did not, ignore this message: nothing happens.")
}

func recoverMessage(c Config, k Link, m Made) Message {
	return message(k.Email, "Recover your access to "+c.Name, m.Expires,
		fmt.Sprintf("With this link, %s gets a new certificate for %s. When it is used, your certificates are "+
			"revoked, your keys are "+
			"disabled, and your unused links and recovery codes become void:", k.Person, c.Name),
		linkLines(m),
		"If you did not request it, do not use it, and tell your administrator.")
}

// againMessage has the link of a recovery that was done by an administrator.
func againMessage(c Config, k Link, m Made) Message {
	return message(k.Email, "Recover your access to "+c.Name, m.Expires,
		fmt.Sprintf("An administrator of %s has recovered the access of %s. With this link you get a new certificate:",
			c.Name, k.Person),
		linkLines(m),
		"If you did not request it, do not use it, and tell your administrator.")
}

func proveMessage(c Config, k Link, m Made) Message {
	return message(k.Email, "May "+k.Person+" have a certificate for "+k.Detail+"?", m.Expires,
		fmt.Sprintf("%s requests a server certificate of %s with the name\n\n    %s\n\n"+
			"You get this message because this address is "+
			"responsible for that domain. To approve the request, open this page:", k.Person, c.Name, k.Detail),
		linkLines(m),
		"To refuse it, open the page and refuse, or ignore this message.")
}

func recoveredMessage(c Config, who postern.Person, how string, off Off, now time.Time) Message {
	list := "There was nothing to revoke or disable."
	if words := off.Words(); len(words) > 0 {
		list = "This was revoked or disabled:\n\n    " + strings.Join(words, "\n    ")
	}
	return message(who.Email, "Your access to "+c.Name+" was recovered", now.Add(48*time.Hour),
		fmt.Sprintf("On %s the access of %s to %s was recovered, by %s.", when(now), who.Name, c.Name, how),
		list,
		"Revoked certificates stay revoked. You can enable your own keys again, after you have signed in, at",
		"    "+c.URL+"/keys",
		"The certificates of your servers are unchanged. Revoke those that you do not know, at",
		"    "+c.URL+"/servers",
		"What was done in your name is listed at",
		"    "+c.URL+"/events",
		"If you did not do this, tell your administrator at once.")
}

// changedMessage is sent to the address that a person had before the change.
func changedMessage(c Config, old postern.Person, what, by string, now time.Time) Message {
	return message(old.Email, "Your address at "+c.Name+" was changed", now.Add(48*time.Hour),
		fmt.Sprintf("On %s %s changed the account of %s at %s: %s.", when(now), by, old.Name, c.Name, what),
		"Messages are not sent to this address any more. If you did not expect this, tell your administrator at once.")
}

func revokedMessage(c Config, who postern.Person, what, by string, now time.Time) Message {
	return message(who.Email, "A certificate of yours for "+c.Name+" was revoked", now.Add(48*time.Hour),
		fmt.Sprintf("On %s %s was revoked by %s.", when(now), what, by),
		"If you did not expect this, look at your events at "+c.URL+"/events or tell your administrator.")
}

func reminderMessage(c Config, who postern.Person, cert Certificate) Message {
	what := "your certificate for the device \"" + cert.Label + "\""
	page := "/certificates"
	if cert.Server {
		what = "the server certificate for " + strings.Join(cert.Names, ", ")
		page = "/servers"
	}
	return message(who.Email, "A certificate for "+c.Name+" expires soon", cert.NotAfter,
		fmt.Sprintf("On %s %s expires. While it is valid, you can renew it with one click:", when(cert.NotAfter),
			what),
		"    "+c.URL+page)
}

func alreadyMessage(c Config, who postern.Person, now time.Time) Message {
	return message(who.Email, "You have a certificate for "+c.Name+" already", now.Add(48*time.Hour),
		fmt.Sprintf("A certificate of %s was requested for this address. You have one already, with the name %s. "+
			"With it you sign in, and can add another device, at", c.Name, who.Name),
		"    "+c.URL+"/",
		"If you have lost it, recover your access at",
		"    "+c.URL+"/recover",
		"If you did not request a certificate, ignore this message: nothing happens.")
}

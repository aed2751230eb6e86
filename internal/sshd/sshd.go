// Package sshd is what Postern's parts around sshd share: an attempt to log in,
// who decides about it, and where pam_postern asks. The parts do not know each other:
//
//   - socket answers pam_postern's questions
//   - audit says what is wrong on a host
//   - setup writes and applies the right configuration
//   - shell is the ForceCommand for hosts that can use nothing better
//   - sshlog records who logs in, from sshd's log
//   - sign issues SSH certificates
//   - attest checks that a key is in a FIDO2 key
//
// Two more serve them: hostconf reads a host's files, process its processes.
package sshd

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
)

// ConfigUnreadable identifies that what sshd leaves open beside a ForceCommand
// cannot be found out.
const ConfigUnreadable = "gate-unreadable"

// Where pam_postern, and the ForceCommand shell, look for the daemon.
const (
	DefaultSocket = "/run/postern/pam.sock"
	ShellSocket   = "/run/postern/shell.sock"
)

// Attempt is a request for access with a code.
type Attempt struct {
	User    string // local account name, as claimed
	Service string // PAM service
	Address string // remote host or address, as the service reports it; may be empty
	Code    string // as typed
	// Password says that a password may precede the code in Code, and Digits that
	// it may precede six digits, too.
	Password, Digits bool
	// Event is what the timeline is to say of an acceptance, but for whom the
	// code proved. Without a kind: nothing.
	Event postern.Event
}

// Proof says who a code proved, and by which credential.
type Proof struct {
	Person     string
	Credential postern.Link
	// Password is how many bytes of Attempt.Code precede the accepted code.
	Password int
}

// Checker knows the people and their factors. It is safe for concurrent use.
type Checker interface {
	// CheckCode checks that the code proves the person of the account a.User, and uses it
	// up. A code is accepted at most once on all servers together, and a.Event is
	// appended to the timeline in the same durable step. It fails with postern.NotFound
	// for an account whose person has no factor, with postern.Denied or Invalid for a
	// code that proves nothing, and with any other code if it cannot decide. A Proof that
	// is returned with an error is what is known of the attempt, for the timeline.
	CheckCode(ctx context.Context, a Attempt) (Proof, error)

	// CheckAccount checks that the person of a local account is active. It fails with
	// postern.Denied for a suspended or removed person, and with postern.NotFound for an
	// account that belongs to no person.
	CheckAccount(ctx context.Context, user string) (person string, err error)
}

// Recorder is the timeline.
type Recorder interface {
	Append(ctx context.Context, events ...postern.Event) error
}

// Refusals writes refused and failed attempts to log in to the timeline: those that are
// alike, as when a password is guessed, as one entry with a count.
func Refusals(record Recorder, log *slog.Logger) *coalesce.Writer {
	return coalesce.Start(coalesce.Config{
		Append: record.Append,
		Also: func(e postern.Event) string {
			return strings.Join([]string{e.Details["service"], e.Details["method"], e.Details["source"]}, "\x00")
		},
		Failed: func(err error) {
			log.Error("refused logins are not on the timeline yet", slog.Any(postern.LogError, err))
		},
	})
}

// Printable returns s with whatever could upset a terminal or a log replaced.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// OnThisHost reports whether a host name or address is this host's own loopback.
func OnThisHost(name string) bool {
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

package manual

import (
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/manpage"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// exitCodes are how a command ends.
var exitCodes = []manpage.Item{
	{Term: "0", Text: "The command did what it was told."},
	{Term: "1", Text: "Something failed on this host, or is in conflict with what is there already; " +
		"a check such as postern doctor or postern log verify found a problem."},
	{Term: "2", Text: "The command line, or a file that it names, is wrong."},
	{Term: "3", Text: "Refused: a code, a certificate or a rule does not permit it."},
	{Term: "4", Text: "There is no such thing: state directory, person, certificate, file."},
	{
		Term: "5",
		Text: "Something is unavailable that is needed: a server, the database, a key store. Trying again may help.",
	},
}

// stateFiles are the files of the state directory, which comes first.
var stateFiles = []manpage.Item{
	{
		Term: "/var/lib/postern, $XDG_STATE_HOME/postern, ~/.local/state/postern",
		Text: "The state directory: of root, or of any other user. " +
			"Its files are described in postern-files(7).",
	},
	{Term: "Caddyfile", Text: "The server's configuration."},
	{Term: "postern.db", Text: "The SQLite database, unless the file database names another."},
	{Term: "database", Text: "The URL of a PostgreSQL database, mode 0600."},
	{Term: "kek", Text: "The key-encrypting key, mode 0600. Without it nothing secret in the database can be read."},
	{Term: "kek.argon2id", Text: "How the key-encrypting key is derived from a passphrase, where there is one."},
	{Term: "log.vkey", Text: "The public key of the timeline: what postern log verify --key takes."},
	{Term: "log.checkpoint", Text: "The checkpoint of the last postern log verify that found no problem."},
	{Term: "ssh-rules.json", Text: "What SSH certificates may do; see postern-ssh-sign(1)."},
	{Term: "piv-roots.pem", Text: "CAs of makers, beyond Yubico's, that vouch for YubiKeys; see postern-ca-issue(1)."},
	{Term: "fido-roots.pem", Text: "CAs of makers of FIDO2 keys, beyond those known; see postern-ssh-enrol(1)."},
	{Term: "fido-metadata.jwt", Text: "What the FIDO Alliance says of models of FIDO2 keys; see postern-ssh-enrol(1)."},
	{Term: "agent.sock", Text: "Where postern agent sends what it sees on this host."},
	{Term: "run.pid", Text: "The process of the running server."},
	{
		Term: "/var/lib/postern-seen/mark, STATE-seen/mark",
		Text: "The furthest position of the database that was seen: beside the state directory, so that a restore of " +
			"that does not bring it back. POSTERN_SEEN names other directories.",
	},
	{
		Term: "/etc/postern/log-export-NAME.env, /var/lib/postern-export/NAME.cursor",
		Text: "The flags of the export that the unit postern-log-export@NAME runs, and how far its receiver is; see " +
			"postern-log-export(1).",
	},
	{Term: "/run/postern/pam.sock", Text: "Where pam_postern(8) asks."},
}

// variable is a variable of the environment.
type variable struct {
	manpage.Item
	only string // the command that reads it; "" for all
}

var variables = []variable{
	{Item: manpage.Item{Term: "POSTERN_STATE", Text: "The state directory, unless --state names one."}},
	{Item: manpage.Item{
		Term: "POSTERN_DATABASE",
		Text: "The URL of the database, instead of the one that the state directory names.",
	}},
	{Item: manpage.Item{
		Term: "POSTERN_SEEN",
		Text: "The directories, separated by colons, that have the mark of how far the database was seen to be, " +
			"instead of the one beside the state directory. All must have it; the furthest is valid. One on another " +
			"machine's disk shows that this whole machine was put back.",
	}},
	{Item: manpage.Item{
		Term: "POSTERN_PASSPHRASE_FILE",
		Text: "A file of mode 0600 with the passphrase of the key-encrypting key.",
	}},
	{Item: manpage.Item{
		Term: "CREDENTIALS_DIRECTORY",
		Text: "Where systemd passes credentials: the key-encrypting key, a PIN.",
	}},
	{Item: manpage.Item{Term: "XDG_STATE_HOME", Text: "Where the state directory of a user other than root is."}},
	{Item: manpage.Item{Term: "NO_COLOR", Text: "Print no colours, if it is not empty."}},
	{
		Item: manpage.Item{Term: "POSTERN_OTP", Text: "The one-time password of a login that cannot ask for it."},
		only: "ssh",
	},
	{Item: manpage.Item{Term: "SSH_AUTH_SOCK", Text: "The SSH agent that the certificate is added to."}, only: "ssh"},
	{Item: manpage.Item{
		Term: "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES",
		Text: "The sockets that systemd opened for the server: of sshd's questions by their names, of HTTPS by " +
			"their addresses.",
	}, only: "run"},
	{Item: manpage.Item{
		Term: "NOTIFY_SOCKET, WATCHDOG_USEC",
		Text: "Where systemd is told that the server is ready, stops, and is not stuck.",
	}, only: "run"},
	{
		Item: manpage.Item{Term: "HTTPS_PROXY, NO_PROXY", Text: "The proxy by which the server is reached."},
		only: "agent",
	},
}

// topics are the pages of the help that are no commands.
var topics = map[string][]manpage.Item{"exit-codes": exitCodes, "environment": variableItems(), "files": stateFiles}

// Topics returns the help topics, as commands that only have a help.
func Topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "exit-codes", Short: "What the exit codes mean", Long: itemsText(exitCodes)},
		{Use: "environment", Short: "The environment variables that are read", Long: itemsText(variableItems())},
		{Use: "files", Short: "The files of the state directory", Long: itemsText(stateFiles)},
	}
}

func variableItems() []manpage.Item {
	items := make([]manpage.Item, len(variables))
	for i, v := range variables {
		items[i] = v.Item
	}
	return items
}

// itemsText returns terms and their meaning as a help text.
func itemsText(items []manpage.Item) string {
	var b strings.Builder
	for _, i := range items {
		fmt.Fprintf(&b, "%s\n    %s\n", i.Term, terminal.Wrap(i.Text, 80, 4))
	}
	return b.String()
}

var pamSeeAlso = []string{
	"postern-ssh-config(1)", "postern-ssh-check(1)", "postern-run(1)", "pam.conf(5)",
	"sshd_config(5)",
}

// pamPage is the page of the PAM module.
func pamPage() *manpage.Page {
	return &manpage.Page{
		Name: "pam_postern", Section: 8, Title: "PAM module that asks Postern for a second factor",
		Synopsis: []string{"pam_postern.so [socket=PATH] [prompt=TEXT] [timeout=N] [users=A,B] [combined] [nullok]"},
		Sections: []manpage.Section{
			{
				Heading: "DESCRIPTION",
				Text: `The module asks the Postern server, over a Unix socket that root owns, whether a
one-time password proves a person. It decides nothing and keeps nothing: every
error, and every late answer, is a refusal.`,
			},
			{Heading: "OPTIONS", Items: []manpage.Item{
				{Term: "socket=PATH", Text: "The server's socket (default /run/postern/pam.sock)."},
				{Term: "prompt=TEXT", Text: "What to ask (default \"YubiKey OTP: \"); write [prompt=two words]."},
				{Term: "timeout=N", Text: "How many seconds the server has to answer, 1 to 60 (default 10)."},
				{Term: "users=A,B", Text: "Only these users are asked; for all others the module returns PAM_IGNORE."},
				{Term: "combined", Text: "A code of six digits may be typed behind the password, too."},
				{
					Term: "nullok",
					Text: "Return PAM_IGNORE, rather than refuse, for a person who has no second factor at all.",
				},
			}},
			{Heading: "MODULE TYPES PROVIDED", Items: []manpage.Item{
				{Term: "auth", Text: "Asks for the one-time password and has the server check it."},
				{
					Term: "account",
					Text: `Asks the server whether the person's account is active. While it does not answer,
"required" refuses. Where sshd accepts only SSH certificates, and has a revocation list that is renewed,
authinfo_unavail=ignore in the control lets them go on, as postern-ssh-config(1) writes it
for that mode. Where keys alone are accepted, a suspended person would get in by it.`,
				},
				{Term: "session", Text: "Records on the timeline that a session opens or closes."},
			}},
			{Heading: "RETURN VALUES", Items: []manpage.Item{
				{Term: "PAM_SUCCESS", Text: "The server accepted the code."},
				{Term: "PAM_AUTH_ERR, PAM_PERM_DENIED", Text: "The server refused it."},
				{Term: "PAM_SERVICE_ERR", Text: "An option is wrong."},
				{Term: "PAM_AUTHINFO_UNAVAIL", Text: "The server did not answer."},
				{
					Term: "PAM_IGNORE",
					Text: "The user is not among users=, or nullok is set and there is no second factor.",
				},
			}},
			{Heading: "FILES", Items: []manpage.Item{
				{Term: "/run/postern/pam.sock", Text: "The socket of the server."},
				{Term: "/etc/pam.d/sshd", Text: "Where it is used for SSH; postern-ssh-config(1) writes the lines."},
			}},
			{
				Heading: "EXAMPLES",
				Text: "  auth     required  pam_postern.so combined\n  account  required  pam_postern.so\n" +
					"  session  optional  pam_postern.so\n",
			},
			{Heading: "SEE ALSO", Text: strings.Join(pamSeeAlso, ",\n")},
		},
	}
}

// eventsPage is the page of the kinds of events.
func eventsPage() *manpage.Page {
	var kinds []manpage.Item
	for _, k := range postern.EventKinds {
		kinds = append(kinds, manpage.Item{Term: k.Name, Text: kindText(k)})
	}
	return &manpage.Page{
		Name: "postern-events", Section: 7, Title: "The kinds of entries of the timeline",
		Sections: []manpage.Section{
			{
				Heading: "DESCRIPTION",
				Text: `Each entry of the timeline is an event of one of these kinds. postern log list
--kind takes the whole name, or its first words: cert for all of certificates.
An entry has the outcome ok, refused, failed or unknown; as JSON it is described by
the schema docs/output.schema.json, under "log list".`,
			},
			{
				Heading: "WHAT HOSTS REPORT",
				Text: `The server adds two details to what a host reports. clock says by how much that
host's clock was wrong; the entry's time is corrected by it. known says how well it
was known which person did it: exact, where the server checked a code of the person
for the login; strong, where the host reports a login of the person, or a client of
libvirt that showed the person's certificate or password; guess, where the account's
name alone says so.`,
			},
			{Heading: "KINDS", Items: kinds},
			{Heading: "SEE ALSO", Text: "postern-log-list(1),\npostern-log-verify(1)"},
		},
	}
}

// kindText says what an event of a kind tells.
func kindText(k postern.EventKind) string {
	text := k.Title + "."
	if len(k.Details) > 0 {
		text += " Details: " + strings.Join(k.Details, ", ") + "."
	}
	if k.FromHost {
		text += " Sent by the agent of a host."
	}
	if k.Grants {
		text += " May grant access, so its person is notified."
	}
	return text
}

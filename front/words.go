package front

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/postern-project/postern/gate"
)

// Block describes a block that Postern adds to the Caddyfile, as the parser reads it.
type Block struct {
	Name  string // "require"
	Usage string // how it begins: "require [PATH…]"
	Doc   string
	Words []Word
}

// Word is one subdirective of a block.
type Word struct {
	Name string
	Args string // as in a synopsis; "" if it takes none
	Doc  string
}

// Blocks returns the blocks that Postern adds to the Caddyfile with all their
// words: what the reference and the manual page are made from.
func Blocks() []Block {
	return []Block{
		{
			"require", "require [PATH…]",
			"Is at the top of a site and puts a guard on its paths. A path is a prefix that does not stop " +
				"at a segment, or ~ and a regular expression; without one the whole site is guarded.",
			described(requireWords),
		},
		{
			"or", "or [anyone]",
			"Is in a require block and is another way to pass it, with a certificate, or without one if the word " +
				"anyone " +
				"follows. A valid certificate is tried first, and its person is named to the application; a client " +
				"that passes without one is not. " +
				"The block may not be empty.", described(wayWords),
		},
		{"postern", "postern", "Is in the block of global options.", described(optionWords)},
		{
			"directory", "directory URL",
			"Is in the postern block. People and their groups are taken from this LDAP directory, ldaps://HOST, " +
				"or ldap://HOST with StartTLS, which is only read.", described(directoryWords),
		},
		{
			"portal", "portal ADDRESS…",
			"Is in the postern block. The addresses are those of the portal's site; the first is the one that " +
				"people are shown.", described(portalWords),
		},
		{
			"alert", "alert NAME",
			"Is in the postern block and reports entries of the timeline. The alerts new-address, " +
				"refusal-flood, machine-destroyed-at-night, audit-finding, ca-ending, agent-silent, host-problem, " +
				"timeline-damaged, timeline-forked, disk-filling and codes-refused are ready-made: they need no " +
				"expression.",
			described(alertWords),
		},
		{
			"timeline", "timeline",
			"Is in the postern block. It serves the timeline to clients that verify it (C2SP tlog-tiles) and has " +
				"witnesses " +
				"cosign its checkpoints (C2SP tlog-witness).", described(timelineWords),
		},
		{
			"ca", "ca",
			"Is in the postern block: a profile for each kind of certificate. What the server loaded last holds for " +
				"all " +
				"servers of the state, and for its commands.", described(caWords),
		},
		{
			"profile", "server|client|ssh-user|ssh-host|profile NAME",
			"Is in the ca block and says what the certificates of a profile are " +
				"like. What it leaves out stays as it is without it.", described(profileWords),
		},
		{
			"acme", "acme",
			"Is in the postern block. Without it each ACME account needs a key that binds it to a person. An account " +
				"without one must prove each name, as others do.", described(acmeWords),
		},
	}
}

// word is a subdirective with what reads its arguments into a T.
type word[T any] struct {
	Word
	parse func(*T, *caddyfile.Dispenser) error
}

func described[T any](words []word[T]) []Word {
	list := make([]Word, len(words))
	for i, w := range words {
		list[i] = w.Word
	}
	return list
}

// parseWord reads the subdirective that the dispenser stands at.
func parseWord[T any](block string, words []word[T], to *T, d *caddyfile.Dispenser) error {
	names := make([]string, len(words))
	for i, w := range words {
		if w.Name == d.Val() {
			return w.parse(to, d)
		}
		names[i] = w.Name
	}
	last := len(names) - 1
	known := strings.Join(names[:last], ", ") + " and " + names[last]
	return d.Err(fmt.Sprintf("%s knows %s, but not %q", block, known, d.Val()))
}

// wayWords are those of a way to pass: of require and of or.
var wayWords = []word[gate.Way]{
	{
		Word{"person", "NAME|E-MAIL…", "Any of these people may pass, named as in the state or by an e-mail address."},
		func(w *gate.Way, d *caddyfile.Dispenser) error { return some(d, &w.Persons) },
	},
	{
		Word{"group", "NAME…", "Any person in one of these groups may pass, too."},
		func(w *gate.Way, d *caddyfile.Dispenser) error { return some(d, &w.Groups) },
	},
	{
		Word{
			"address", "NETWORK…|private_ranges",
			"Only from any of these networks or addresses; private_ranges stands for the private networks.",
		},
		func(w *gate.Way, d *caddyfile.Dispenser) error { return parseAddresses(d, w) },
	},
	{
		Word{"method", "METHOD…", "Only by any of these methods. GET does not include HEAD."},
		func(w *gate.Way, d *caddyfile.Dispenser) error { return some(d, &w.Methods) },
	},
	{
		Word{"rule", "`CEL`", "This rule must hold as well; see postern-rules(7). It may be repeated: all must hold."},
		func(w *gate.Way, d *caddyfile.Dispenser) error { return parseRule(d, w) },
	},
}

// inRequire makes the words of a way those of a require directive.
func inRequire(words []word[gate.Way]) (list []word[Require]) {
	for _, w := range words {
		list = append(list, word[Require]{w.Word, func(r *Require, d *caddyfile.Dispenser) error {
			return w.parse(&r.Way, d)
		}})
	}
	return list
}

var requireWords = append(inRequire(wayWords), []word[Require]{
	{
		Word{"anyone", "", "No certificate is needed; only the addresses, the methods and the rules must hold."},
		func(r *Require, d *caddyfile.Dispenser) error { return flag(d, &r.Anyone) },
	},
	{
		Word{"or", "[anyone] { … }", "Another way to pass; see below. It may be repeated: any one is enough."},
		func(r *Require, d *caddyfile.Dispenser) error { return r.parseOr(d) },
	},
	{
		Word{
			"header_up", "NAME `CEL`",
			"Sets a header for the application about the person who passed by a certificate: an expression over " +
				"cert, issuer, chain " +
				"or person, or a constant. The header is removed from clients' requests, on every site. It is not " +
				"set if the expression cannot be evaluated. It may be repeated.",
		},
		func(r *Require, d *caddyfile.Dispenser) error { return r.parseHeaderUp(d) },
	},
	{
		Word{
			"audit", "required",
			"Requests pass only while the timeline can be written, and a person's sign-in is on it before their " +
				"first request passes. Otherwise they are answered with 503. Without this word a location stays " +
				"open, and what could not be written is written later.",
		},
		func(r *Require, d *caddyfile.Dispenser) error { return r.parseAudit(d) },
	},
	{
		Word{
			"status", "N",
			"Where no certificate is asked for: the status of a refusal, 400 to 599, in place of 403.",
		},
		func(r *Require, d *caddyfile.Dispenser) error { return r.parseStatus(d) },
	},
	{
		Word{
			"trust", "FILE…|postern",
			"The client CAs that are trusted, PEM files, in place of Postern's own; the word postern means " +
				"Postern's own.",
		},
		func(r *Require, d *caddyfile.Dispenser) error { return some(d, &r.Trust) },
	},
	{
		Word{"crl", "FILE…", "Revocation lists of those CAs. They are read again when they change."},
		func(r *Require, d *caddyfile.Dispenser) error { return some(d, &r.CRLs) },
	},
	{
		Word{"depth", "N", "The most CA certificates above the client's, 3 unless it is given."},
		func(r *Require, d *caddyfile.Dispenser) error { return r.parseDepth(d) },
	},
}...)

var optionWords = []word[App]{
	{
		Word{"mail", "URL", "The mail server: smtp://localhost, or smtps:// with a user."},
		func(a *App, d *caddyfile.Dispenser) error { return one(d, &a.Mail) },
	},
	{
		Word{"portal", "ADDRESS…", "The portal; see below."},
		func(a *App, d *caddyfile.Dispenser) error { return a.parsePortal(d) },
	},
	{
		Word{"alert", "NAME", "What is reported from the timeline, and to whom; see below. It may be repeated."},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseAlert(d) },
	},
	{
		Word{
			"metrics", "[ADDRESS]",
			"Serves /metrics, /livez and /readyz over plain HTTP on a listener of their own, " + DefaultMetrics +
				" unless an address is given. They need no certificate.",
		},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseMetrics(d) },
	},
	{
		Word{"ca", "", "What certificates of Postern's CA are like; see below."},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseCA(d) },
	},
	{
		Word{
			"keep", "TIME", "How long the server knows certificates of X.509 and SSH that have expired: 365d, " +
				"unless it is said, and at least 30d. The timeline keeps what was done with them.",
		},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseKeep(d) },
	},
	{
		Word{"acme", "", "Which ACME accounts need no key from the portal; see below."},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseACME(d) },
	},
	{
		Word{"timeline", "", "Who may read the timeline, and which witnesses vouch for it; see below."},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseTimeline(d) },
	},
	{
		Word{"directory", "URL", "An LDAP directory that people and groups are taken from; see below."},
		func(a *App, d *caddyfile.Dispenser) error { return a.parseDirectory(d) },
	},
}

var portalWords = []word[Portal]{
	{
		Word{"name", "TEXT", "The portal's name on its pages and in mails."},
		func(p *Portal, d *caddyfile.Dispenser) error { return one(d, &p.Name) },
	},
	{
		Word{"sign_up", "DOMAIN…", "People with a mail address in these domains may enrol without an invitation."},
		func(p *Portal, d *caddyfile.Dispenser) error { return some(d, &p.SignUp) },
	},
	{
		Word{"recover_by_mail", "", "A message to a person's address is enough to recover."},
		func(p *Portal, d *caddyfile.Dispenser) error { return flag(d, &p.RecoverByMail) },
	},
	{
		Word{"names", "PATTERN…", "Names of servers that any person may have certificates for."},
		func(p *Portal, d *caddyfile.Dispenser) error { return some(d, &p.Names) },
	},
	{
		Word{
			"private_proofs", "NETWORK…",
			"Private networks in which the proofs that a person controls a name may be fetched.",
		},
		func(p *Portal, d *caddyfile.Dispenser) error { return some(d, &p.PrivateProofs) },
	},
	{
		Word{
			"tls", "… [{ … }]",
			"How the portal's site gets its certificate: Caddy's directive of that name, as in tls { issuer postern }.",
		},
		func(p *Portal, d *caddyfile.Dispenser) error { return p.parseTLS(d) },
	},
	{
		Word{"admins", "GROUP…", "Groups whose members see the administrators' pages; admin unless it is given."},
		func(p *Portal, d *caddyfile.Dispenser) error { return some(d, &p.Admins) },
	},
}

// one reads the one argument of a word.
func one(d *caddyfile.Dispenser, to *string) error {
	if !d.AllArgs(to) {
		return d.ArgErr()
	}
	return nil
}

// flag reads a word without arguments.
func flag(d *caddyfile.Dispenser, to *bool) error {
	*to = true
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

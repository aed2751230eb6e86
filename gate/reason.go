package gate

// Reason says why a certificate, or its holder, does not pass. The zero Reason
// is no refusal.
type Reason int

// The reasons, from the certificate to the rule.
const (
	OK          Reason = iota
	NoneShown          // the client showed no certificate
	Unreadable         // the client showed one that the TLS handshake cannot read
	AnotherCA          // issued by a CA that is not trusted here
	Expired            // it has expired
	NotYetValid        // it is not valid yet
	WrongUsage         // not a certificate for clients
	TooDeep            // more CAs between it and the trusted one than allowed
	Weak               // key or signature algorithm no longer trusted
	Constrained        // has a name that the name constraints of a CA above it do not permit
	Unusable           // malformed, or has more than can be verified
	Unknown            // of Postern's own CA, but not in the store
	Revoked            // revoked
	Disabled           // disabled
	Suspended          // its holder is suspended
	NotPerson          // valid, but of another person
	RuleFailed         // valid, but the rule does not hold
	Closed             // no certificate is asked for, and the rule does not hold
	Unavailable        // whether it is still valid is not known at the moment
	Unrecorded         // access is granted only while it is recorded, which fails at the moment
	numReasons
)

var reasons = [...]struct{ key, words string }{
	OK:          {"ok", "The certificate is accepted."},
	NoneShown:   {"none-shown", "Your browser showed no certificate."},
	Unreadable:  {"unreadable", "Your browser showed a certificate of a kind that this server cannot read."},
	AnotherCA:   {"another-ca", "Your certificate was issued by an authority that this site does not accept."},
	Expired:     {"expired", "Your certificate has expired."},
	NotYetValid: {"not-yet-valid", "Your certificate is not valid yet. Check the clock of your computer."},
	WrongUsage:  {"wrong-usage", "Your certificate is not meant for signing in."},
	TooDeep:     {"too-deep", "Your certificate was issued through more authorities than this site accepts."},
	Weak:        {"weak", "Your certificate uses a key or a signature that is no longer safe."},
	Constrained: {"constrained", "Your certificate has a name that its issuer may not issue."},
	Unusable:    {"unusable", "Your certificate could not be understood."},
	Unknown:     {"unknown", "Your certificate is not known here."},
	Revoked:     {"revoked", "Your certificate has been revoked."},
	Disabled:    {"disabled", "Your certificate is disabled."},
	Suspended:   {"suspended", "Your account is suspended."},
	NotPerson:   {"not-the-person", "Your certificate is valid, but this page is for other people."},
	RuleFailed:  {"rule-failed", "Your certificate is valid, but it does not grant access to this page."},
	Closed:      {"closed", "This page is not open to you."},
	Unavailable: {
		"unavailable",
		"Whether your certificate is still valid could not be checked. Try again in a moment.",
	},
	Unrecorded: {
		"unrecorded",
		"This page is open only while access to it is recorded, which fails at the moment. Try again in a moment.",
	},
}

// NumReasons is how many reasons there are: each is less.
const NumReasons = int(numReasons)

// String returns the reason's short name, as in the log: "revoked".
func (r Reason) String() string { return reasons[r].key }

// Words returns a sentence for the person who is refused. It does not reveal the rule.
func (r Reason) Words() string { return reasons[r].words }

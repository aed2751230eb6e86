package gate

// Reason says why a certificate, or its holder, does not pass. The zero Reason
// is no refusal.
type Reason int

// The reasons, from the certificate to the rule.
const (
	OK          Reason = iota
	NoneShown          // the client showed no certificate
	AnotherCA          // issued by a CA that does not count here
	Expired            // its time is over
	NotYetValid        // its time has not begun
	WrongUsage         // not a certificate for clients
	TooDeep            // more CAs between it and the trusted one than allowed
	Weak               // key or signature algorithm no longer trusted
	Constrained        // carries a name that a CA above it may not issue
	Unusable           // malformed, or more in it than can be judged
	Unknown            // of Postern's own CA, yet the store does not know it
	Revoked            // taken back
	Disabled           // switched off for the time being
	Suspended          // its holder may not come in
	NotPerson          // valid, but of somebody else
	RuleFailed         // valid, but the rule does not hold
	Closed             // no certificate is asked for, and the rule does not hold
	Unavailable        // whether it still counts cannot be asked right now
)

var reasons = [...]struct{ key, words string }{
	OK:          {"ok", "The certificate is accepted."},
	NoneShown:   {"none-shown", "Your browser showed no certificate."},
	AnotherCA:   {"another-ca", "Your certificate was issued by an authority that this site does not accept."},
	Expired:     {"expired", "Your certificate has expired."},
	NotYetValid: {"not-yet-valid", "Your certificate is not valid yet. Check the clock of your computer."},
	WrongUsage:  {"wrong-usage", "Your certificate is not meant for signing in."},
	TooDeep:     {"too-deep", "Your certificate was issued through more authorities than this site accepts."},
	Weak:        {"weak", "Your certificate uses a key or a signature that is no longer safe."},
	Constrained: {"constrained", "Your certificate carries a name that its issuer has no right to give."},
	Unusable:    {"unusable", "Your certificate could not be understood."},
	Unknown:     {"unknown", "Your certificate is not known here."},
	Revoked:     {"revoked", "Your certificate has been revoked."},
	Disabled:    {"disabled", "Your certificate is switched off at the moment."},
	Suspended:   {"suspended", "Your account is suspended."},
	NotPerson:   {"not-the-person", "Your certificate is valid, but this page is for somebody else."},
	RuleFailed:  {"rule-failed", "Your certificate is valid, but it does not open this page."},
	Closed:      {"closed", "This page is not open to you."},
	Unavailable: {"unavailable", "Whether your certificate is still valid could not be checked. Try again in a moment."},
}

// String returns the reason's short name, as in the log: "revoked".
func (r Reason) String() string { return reasons[r].key }

// Words returns a sentence for the person who is refused. It tells nothing of
// the rule.
func (r Reason) Words() string { return reasons[r].words }

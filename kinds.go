package postern

// EventKind describes a kind of event for lists, sentences, mails and the relay.
type EventKind struct {
	Name  string // as in Event.Kind
	Title string // in a list of events: "Certificate issued"
	// OK and NotOK are the rest of a sentence that begins with who did it: OK when it
	// succeeded, NotOK when it was refused or failed; "" if that never happens. %s
	// stands for Event.Object, # for Event.Count where that is a number of things and
	// not of repetitions, {KEY} for the value of a detail.
	OK, NotOK string
	// Doer is who did it where the event names no person; "" where that is unknown.
	Doer string
	// Details are the keys that Event.Details may have besides "by", the name of
	// another person who did it.
	Details []string
	// FromHost says that the agent of a watched host may send it. All others are
	// written by a server alone.
	FromHost bool
	// Grants says that it may give its person something that grants access, so that
	// they are notified.
	Grants bool
}

// The doers of events without a person.
const (
	doerServer = "the server"
	doerAgent  = "the agent"
	doerAdmin  = "an administrator" // with the command line
)

// EventKinds are all kinds of event, in the order of the constants. It is not to
// be changed.
var EventKinds = []EventKind{
	{Name: EventLogCreated, Title: "Timeline begun", OK: "began the log %s", Doer: doerServer},
	{Name: EventLogKeyAdded, Title: "Key of the timeline made", OK: "made the timeline's key %s", Doer: doerAdmin},
	{
		Name: EventLogKeyRetired, Title: "Key of the timeline retired", OK: "retired the timeline's key %s",
		Doer: doerAdmin,
	},
	{
		Name: EventLogArchived, Title: "Timeline archived", OK: "moved the first # entries of the timeline to %s",
		Doer: doerAdmin,
	},
	{
		Name: EventConfigLoaded, Title: "Configuration loaded", Doer: doerServer,
		OK: "loaded the configuration %s", NotOK: "could not load the configuration %s",
	},

	{Name: EventPersonAdded, Title: "Added", OK: "was added"},
	{Name: EventPersonChanged, Title: "Changed", OK: "was changed"},
	{Name: EventPersonSuspended, Title: "Suspended", OK: "was suspended"},
	{Name: EventPersonResumed, Title: "Resumed", OK: "was resumed"},
	{Name: EventPersonRemoved, Title: "Removed", OK: "was removed"},
	{Name: EventPersonRecovered, Title: "Recovery", OK: "was recovered", NotOK: "was refused a recovery"},
	{
		Name: EventDirectory, Title: "Directory", Doer: doerServer,
		OK: "read the directory %s again", NotOK: "could not read the directory %s",
	},

	{Name: EventHostAdded, Title: "Host added", OK: "added the host %s", Doer: doerAdmin},
	{Name: EventHostChanged, Title: "Host changed", OK: "changed the host %s", Doer: doerAdmin},
	{
		Name: EventHostJoined, Title: "Host joined", Doer: doerServer, Details: []string{"certificate"},
		OK: "admitted the host %s", NotOK: "did not admit the host %s",
	},
	{Name: EventHostSuspended, Title: "Host suspended", OK: "suspended the host %s", Doer: doerAdmin},
	{Name: EventHostResumed, Title: "Host resumed", OK: "resumed the host %s", Doer: doerAdmin},
	{Name: EventHostRemoved, Title: "Host removed", OK: "removed the host %s", Doer: doerAdmin},
	{Name: EventHostRescue, Title: "Rescue codes made", OK: "made # rescue codes for the host %s", Doer: doerAdmin},

	{
		Name: EventCACreated, Title: "CA made", OK: "made the certificate authority %s", Doer: doerServer,
		Details: []string{"role"},
	},
	{
		Name: EventCARetired, Title: "CA retired", OK: "retired the certificate authority %s", Doer: doerAdmin,
		Details: []string{"role", "certificates"},
	},
	{
		Name: EventCAKeyRemoved, Title: "Key of a CA removed from the host",
		OK: "removed the key of the CA %s from the host", Doer: doerAdmin,
	},
	{
		Name: EventCAKeyRestored, Title: "Key of a CA restored", OK: "restored the key of the CA %s on the host",
		Doer: doerAdmin,
	},
	{Name: EventCAKeyExported, Title: "Key of a CA exported", OK: "exported the key of the CA %s", Doer: doerAdmin},
	{
		Name: EventAPIToken, Title: "API token changed", OK: "changed the API token %s", Doer: doerAdmin,
		Details: []string{"action", "domains"},
	},
	{
		Name: EventCertIssued, Title: "Certificate issued", Grants: true,
		OK: "was issued the certificate %s", NotOK: "was not issued the certificate %s",
		Details: []string{"profile", "issuer", "not_after", "names", "token", "attested"},
	},
	{
		Name: EventCertRenewed, Title: "Certificate renewed", Grants: true,
		OK: "renewed the certificate %s", NotOK: "could not renew the certificate %s",
		Details: []string{"profile", "issuer", "not_after", "names", "token", "attested", "renews"},
	},
	{
		Name: EventCertRevoked, Title: "Certificate revoked", OK: "had the certificate %s revoked",
		Details: []string{"certificates"},
	},
	{
		Name: EventSSHCertIssued, Title: "SSH certificate issued", Grants: true,
		OK: "was issued the SSH certificate %s", NotOK: "was not issued the SSH certificate %s",
		Details: []string{
			"issuer", "key_id", "principals", "not_after", "source-address", "force-command",
			"verify-required",
		},
	},
	{
		Name: EventSSHKeyAdded, Title: "SSH key added", Grants: true,
		OK: "was given the SSH key %s", NotOK: "was refused the SSH key %s",
		Details: []string{"key_type", "maker", "model", "user_verified"},
	},
	{Name: EventSSHRevoked, Title: "SSH certificate revoked", OK: "had the SSH certificate %s revoked"},

	{Name: EventPasskeyAdded, Title: "Passkey added", Grants: true, OK: "added the passkey %s"},
	{
		Name: EventPasskeyChanged, Title: "Passkey changed", Grants: true, OK: "had the passkey %s changed",
		Details: []string{"status"},
	},

	{Name: EventSignedIn, Title: "Signed in", OK: "signed in to %s"},
	{Name: EventAccessRefused, Title: "Refused", NotOK: "was refused %s"},

	{
		Name: EventPortalEnrolled, Title: "Certificate enrolled", OK: "enrolled at the portal",
		NotOK:   "could not enrol at the portal",
		Details: []string{"purpose"},
	},
	{
		Name: EventPortalLink, Title: "One-time link made", OK: "was given a link to the portal",
		NotOK:   "was refused a link to the portal",
		Details: []string{"purpose", "sent"},
	},
	{Name: EventPortalCodes, Title: "Recovery codes made", OK: "made # recovery codes", Grants: true},
	{
		Name: EventPortalName, Title: "Proof of a name", OK: "proved the name %s", NotOK: "did not prove the name %s",
		Details: []string{"method", "mailbox"},
	},
	{
		Name: EventPortalAllowed, Title: "List of names changed", Details: []string{"for"},
		OK: "changed who may have certificates for %s", NotOK: "could not change who may have certificates for %s",
	},

	{
		Name: EventACMEAccount, Title: "ACME account", OK: "changed the ACME account %s",
		NotOK:   "was refused an ACME account",
		Details: []string{"did", "label"}, Grants: true,
	},
	{
		Name: EventACMEOrder, Title: "ACME order", Details: []string{"account", "challenge"},
		OK: "ordered a certificate for %s by ACME", NotOK: "was refused a certificate for %s by ACME",
	},

	{
		Name: EventOTP, Title: "One-time password checked",
		OK: "gave a valid one-time code", NotOK: "gave a one-time code that is not valid",
		Details: []string{"service", "account", "client"},
	},
	{Name: EventOTPKeyAdded, Title: "Key added", OK: "was given the key %s", Grants: true},
	{
		Name: EventOTPKeyChanged, Title: "Key changed", OK: "had the key %s changed", Details: []string{"status"},
		Grants: true,
	},
	{
		Name: EventOTPClient, Title: "API client of the validation server changed", Doer: doerAdmin,
		OK: "changed the API client %s of the validation server",
	},
	{
		Name: EventOTPUpstream, Title: "Upstream validation service changed", Doer: doerAdmin,
		OK: "changed the upstream validation service: %s",
	},
	{
		Name: EventOTPSync, Title: "Synchronized validation servers changed", Doer: doerAdmin,
		OK: "changed the synchronized validation servers: %s",
	},
	{
		Name: EventOTPRestored, Title: "Restored from a backup", Doer: doerServer,
		OK: "was restored from a backup, and # keys were disabled",
	},
	{
		Name: EventOTPImported, Title: "Keys imported", Doer: doerAdmin,
		OK: "imported # keys, counters and clients of a validation server",
	},
	{Name: EventOTPExported, Title: "Keys exported", OK: "exported # keys and their secrets", Doer: doerAdmin},
	{Name: EventOTPRecovery, Title: "Backup codes made", OK: "was given # backup codes", Grants: true},

	{
		Name: EventSSHAuth, Title: "SSH sign-in", OK: "was accepted by sshd as %s", NotOK: "was refused by sshd as %s",
		Details:  []string{"service", "method", "tty", "source", "port", "step", "key_id", "key_type", "ca", "rescue"},
		FromHost: true,
	},
	{
		Name: EventSSHOpened, Title: "SSH session opened", OK: "opened an SSH session as %s",
		Details: []string{"service", "method", "tty", "source"}, FromHost: true,
	},
	{
		Name: EventSSHClosed, Title: "SSH session closed", OK: "closed an SSH session as %s",
		Details: []string{"service", "method", "tty", "source"}, FromHost: true,
	},
	{
		Name: EventSSHLog, Title: "Following sshd's log", Doer: doerServer,
		OK: "followed sshd's log again", NotOK: "could not follow sshd's log", FromHost: true,
	},

	{
		Name: EventPAMAuth, Title: "Sign-in on a host", OK: "was accepted by {service} as %s",
		NotOK:   "was refused by {service} as %s",
		Details: []string{"service", "method", "tty", "user", "rescue"}, FromHost: true,
	},
	{
		Name: EventPAMOpened, Title: "Session on a host opened", OK: "opened a session of {service} as %s",
		Details: []string{"service", "method", "tty", "user"}, FromHost: true,
	},
	{
		Name: EventPAMClosed, Title: "Session on a host closed", OK: "closed a session of {service} as %s",
		Details: []string{"service", "method", "tty", "user"}, FromHost: true,
	},

	{
		Name: EventLibvirtCall, Title: "Call to libvirt", OK: "ran {procedure} on %s",
		NotOK:   "was refused {procedure} on %s",
		Details: []string{"procedure", "user", "sasl", "tls", "unit", "unknown"}, FromHost: true,
	},

	{
		Name: EventCheckCA, Title: "Check of a CA", OK: "found the CA %s in order again",
		NotOK: "found that the CA %s ends soon", Doer: doerServer,
	},
	{
		Name: EventCheckAgent, Title: "Check of an agent", OK: "received from the agent %s again",
		NotOK: "has not received from the agent %s for a while", Doer: doerServer,
	},
	{
		Name: EventCheckHost, Title: "Check of a host", OK: "found the host %s in order again",
		NotOK: "found something wrong with the host %s", Doer: doerServer,
	},
	{
		Name: EventCheckTimeline, Title: "Check of the timeline", OK: "found the timeline in order again",
		NotOK: "found the timeline changed", Doer: doerServer, FromHost: true,
	},
	{
		Name: EventCheckDisk, Title: "Check of the disk", OK: "found enough space on the disk again",
		NotOK: "found little space on the disk", Doer: doerServer,
	},
	{
		Name: EventCheckSSH, Title: "Check of two-factor SSH", OK: "found two-factor SSH in order again",
		NotOK: "found what weakens two-factor SSH", Doer: doerServer, FromHost: true,
	},
	{
		Name: EventCheckCodes, Title: "Check of one-time passwords", OK: "accepts one-time passwords again",
		NotOK: "accepts no one-time passwords", Doer: doerServer,
	},
	{
		Name: EventCheckWitness, Title: "Check of a witness", OK: "had the timeline cosigned by the witness %s again",
		NotOK: "has not had the timeline cosigned by the witness %s", Doer: doerServer,
	},

	{Name: EventAlertTest, Title: "Test of an alert", OK: "tested the alert %s", Doer: doerAdmin},
	{
		Name: EventAlertSent, Title: "Alert delivered", OK: "delivered the alert %s",
		NotOK: "could not deliver the alert %s", Doer: doerServer, Details: []string{"to", "receivers"},
	},

	{
		Name: EventAgentStarted, Title: "Host watched", OK: "began to watch libvirt on %s", Doer: doerAgent,
		Details: []string{"version"}, FromHost: true,
	},
	{
		Name: EventAgentStopped, Title: "Host not watched any more", OK: "stopped watching libvirt on %s",
		Doer:    doerAgent,
		Details: []string{"version"}, FromHost: true,
	},
	{
		Name: EventAgentLost, Title: "Events of a host lost", NotOK: "lost # of what happened on %s", Doer: doerAgent,
		Details: []string{"probe"}, FromHost: true,
	},
	{
		Name: EventAgentRecorded, Title: "Libvirt recorded", OK: "recorded what libvirt did in %s",
		NotOK: "could not record what libvirt did in %s", Doer: doerAgent, FromHost: true,
	},
}

var eventKinds = func() map[string]EventKind {
	byName := make(map[string]EventKind, len(EventKinds))
	for _, k := range EventKinds {
		byName[k.Name] = k
	}
	return byName
}()

// EventKindOf returns the kind of that name, and whether there is one.
func EventKindOf(name string) (EventKind, bool) {
	k, ok := eventKinds[name]
	return k, ok
}

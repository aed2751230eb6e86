package postern

import "time"

// Outcome says how what an event reports ended.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused" // a request was denied
	Failed  Outcome = "failed"  // something broke
	Unknown Outcome = "unknown" // it was begun, and how it ended was not seen
)

// Event is one entry of the timeline: who, with what, from where, did what to
// what, and how it ended. An event never carries a secret, a one-time code or
// a key.
type Event struct {
	Index   int64             `json:"index"` // position in the log, from 0; assigned when appended
	Time    time.Time         `json:"time"`  // UTC, microseconds
	Kind    string            `json:"kind"`  // dotted, from the list in this file
	Outcome Outcome           `json:"outcome"`
	Host    string            `json:"host,omitempty"`    // host that saw it, when not the server itself
	Person  string            `json:"person,omitempty"`  // Person.Name
	Address string            `json:"address,omitempty"` // peer IP address, without port
	Object  string            `json:"object,omitempty"`  // what it was done to: a path, a domain, a serial
	Reason  string            `json:"reason,omitempty"`  // why it was refused or failed, in words
	Count   int64             `json:"count,omitempty"`   // how many were coalesced into this entry; 0 means 1
	Took    time.Duration     `json:"took,omitempty"`    // nanoseconds
	Links   []Link            `json:"links,omitempty"`
	Details map[string]string `json:"details,omitempty"`
}

// Link is what two events have in common: a credential, a connection, a login
// session, a process. Events that share a link belong together.
type Link struct {
	Kind string `json:"kind"` // a CredentialKind, or one of the Link kinds below
	ID   string `json:"id"`
}

// Link kinds besides the credential kinds. Identifiers that a host reuses are
// made unique by the host's name and boot.
const (
	LinkSession    = "session"    // audit session: HOST/BOOTID/SESSIONID
	LinkProcess    = "process"    // HOST/BOOTID/PID/STARTTIME
	LinkConnection = "connection" // one transport connection: HOST/…
	LinkLogin      = "login"      // one question whether a code is right, and the session it leads to: HOST/NONCE
	LinkDomain     = "domain"     // a virtual machine's UUID
)

// DetailClock is the detail of an event from a host whose clock was wrong: by how much, as
// "2h0m0s ahead". The event's time is corrected by it.
const DetailClock = "clock"

// The kinds of event.
const (
	EventLogCreated    = "log.created"
	EventLogKeyAdded   = "log.key.added"
	EventLogKeyRetired = "log.key.retired"
	EventLogArchived   = "log.archived" // its first entries were moved into files

	EventConfigLoaded = "config.loaded"

	EventPersonAdded     = "person.added"
	EventPersonChanged   = "person.changed"
	EventPersonSuspended = "person.suspended"
	EventPersonResumed   = "person.resumed"
	EventPersonRemoved   = "person.removed"
	EventPersonRecovered = "person.recovered"

	EventDirectory = "directory"

	EventHostAdded     = "host.added"
	EventHostChanged   = "host.changed"
	EventHostJoined    = "host.joined" // it has a client certificate now, or was refused one
	EventHostSuspended = "host.suspended"
	EventHostResumed   = "host.resumed"
	EventHostRemoved   = "host.removed"
	EventHostRescue    = "host.rescue" // rescue codes were made for it

	EventCACreated     = "ca.created"
	EventCARetired     = "ca.retired"
	EventCAKeyRemoved  = "ca.key.removed"
	EventCAKeyRestored = "ca.key.restored"
	EventCAKeyExported = "ca.key.exported"
	EventAPIToken      = "ca.token"
	EventCertIssued    = "cert.issued"
	EventCertRenewed   = "cert.renewed"
	EventCertRevoked   = "cert.revoked"
	EventSSHCertIssued = "ssh.cert.issued"
	EventSSHRevoked    = "ssh.cert.revoked"
	EventSSHKeyAdded   = "ssh.key.added"

	EventPasskeyAdded   = "passkey.added"
	EventPasskeyChanged = "passkey.changed"

	EventSignedIn      = "gate.passed"  // the first request that a guard authorized with a certificate on a connection
	EventAccessRefused = "gate.refused" // a request that a guard refused

	EventPortalEnrolled = "portal.enrolled"
	EventPortalLink     = "portal.link"
	EventPortalCodes    = "portal.codes"   // recovery codes were made
	EventPortalName     = "portal.name"    // a name for a server was proved, or not
	EventPortalAllowed  = "portal.allowed" // an administrator changed the list of names

	EventACMEAccount = "acme.account" // its detail "did" says what was done
	EventACMEOrder   = "acme.order"

	EventOTP           = "otp.checked"
	EventOTPKeyAdded   = "otp.key.added"
	EventOTPKeyChanged = "otp.key.changed"
	EventOTPClient     = "otp.client.changed"
	EventOTPUpstream   = "otp.outside.changed"
	EventOTPSync       = "otp.sync.changed"
	EventOTPRestored   = "otp.restored"
	EventOTPImported   = "otp.imported"
	EventOTPExported   = "otp.exported"
	EventOTPRecovery   = "otp.recovery.made"

	EventSSHAuth   = "ssh.auth"
	EventSSHOpened = "ssh.session.opened"
	EventSSHClosed = "ssh.session.closed"
	EventSSHLog    = "ssh.log" // whether sshd's own log is read

	EventPAMAuth   = "pam.auth" // sudo, su, login: whatever asks PAM and is not sshd
	EventPAMOpened = "pam.session.opened"
	EventPAMClosed = "pam.session.closed"

	EventLibvirtCall = "libvirt.call"

	EventCheckCA       = "check.ca" // whether a CA ends soon
	EventCheckAgent    = "check.agent"
	EventCheckHost     = "check.host" // whether a joined host reports, and what it finds wrong
	EventCheckTimeline = "check.timeline"
	EventCheckDisk     = "check.disk"
	EventCheckSSH      = "check.ssh"
	EventCheckCodes    = "check.codes"   // whether one-time passwords are accepted
	EventCheckWitness  = "check.witness" // whether a witness cosigns the timeline

	EventAlertTest = "alert.test"
	EventAlertSent = "alert.sent" // a test was delivered or not, or a message was given up

	EventAgentStarted = "agent.started" // a host begins to be watched
	EventAgentStopped = "agent.stopped"
	EventAgentLost    = "agent.lost" // Count things that happened there are not on the timeline
	// EventAgentRecorded says that the host keeps a recording, the file Object.
	EventAgentRecorded = "agent.recorded"
)

// What is done to an ACME account, or to a key that binds one to a person.
const (
	ACMECreated     = "created"
	ACMEChanged     = "changed" // its contacts
	ACMEDeactivated = "deactivated"
	ACMERolledOver  = "rolled over to a new key"

	ACMEKeyMade      = "key made"
	ACMEKeyEnabled   = "key enabled"
	ACMEKeyDisabled  = "key disabled"
	ACMEKeyRecovered = "key disabled by recovery"
)

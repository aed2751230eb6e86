package portal

import (
	"strings"

	"github.com/postern-project/postern"
)

// eventWords says in words what an event tells of.
func eventWords(e postern.Event) string {
	did, sent := e.Details["did"], e.Details["sent"]
	switch {
	case e.Kind == postern.EventACMEAccount && strings.HasPrefix(did, "key "):
		return "ACME " + did
	case e.Kind == postern.EventACMEAccount && did != "":
		return "ACME account " + did
	case e.Kind == postern.EventPortalLink && sent != "":
		return "One-time link sent to " + sent
	}
	if w, ok := eventSentences[e.Kind]; ok {
		return w
	}
	return e.Kind
}

var eventSentences = map[string]string{
	postern.EventLogCreated:      "Timeline begun",
	postern.EventConfigLoaded:    "Configuration loaded",
	postern.EventPersonAdded:     "Added",
	postern.EventPersonChanged:   "Changed",
	postern.EventPersonSuspended: "Suspended",
	postern.EventPersonResumed:   "Let in again",
	postern.EventPersonRemoved:   "Removed",
	postern.EventPersonRecovered: "Recovery",
	postern.EventCACreated:       "CA made",
	postern.EventCAKeyRemoved:    "Key of a CA taken off the host",
	postern.EventCAKeyRestored:   "Key of a CA brought back",
	postern.EventCAKeyExported:   "Key of a CA exported",
	postern.EventAPIToken:        "Token for programs changed",
	postern.EventCertIssued:      "Certificate issued",
	postern.EventCertRenewed:     "Certificate renewed",
	postern.EventCertRevoked:     "Certificate revoked",
	postern.EventSSHCertIssued:   "SSH certificate issued",
	postern.EventSSHRevoked:      "SSH certificate revoked",
	postern.EventGatePassed:      "Came in",
	postern.EventGate:            "Turned away",
	postern.EventPortalEnrolled:  "Device enrolled",
	postern.EventPortalLink:      "One-time link made",
	postern.EventPortalCodes:     "Recovery codes made",
	postern.EventPortalName:      "Proof of a name",
	postern.EventPortalAllowed:   "List of names changed",
	postern.EventACMEAccount:     "ACME account",
	postern.EventACMEOrder:       "ACME order",
	postern.EventOTP:             "One-time password checked",
	postern.EventOTPKeyAdded:     "Key added",
	postern.EventOTPKeyChanged:   "Key changed",
	postern.EventOTPClient:       "Client of the validation server changed",
	postern.EventOTPOutside:      "Outside validation service changed",
	postern.EventOTPSync:         "Other validation servers changed",
	postern.EventOTPRestored:     "Taken over from a back-up",
	postern.EventOTPImported:     "Keys imported",
	postern.EventOTPExported:     "Keys exported",
	postern.EventOTPRecovery:     "Codes in place of one-time passwords made",
	postern.EventSSHAuth:         "SSH sign-in",
	postern.EventSSHOpened:       "SSH session opened",
	postern.EventSSHClosed:       "SSH session closed",
	postern.EventSSHLog:          "Following of sshd's log",
	postern.EventPAMAuth:         "Sign-in on a host",
	postern.EventPAMOpened:       "Session on a host opened",
	postern.EventPAMClosed:       "Session on a host closed",
	postern.EventLibvirtCall:     "Call to libvirt",
	postern.EventAgentStarted:    "Host watched",
	postern.EventAgentStopped:    "Host not watched any more",
	postern.EventAgentLost:       "Events of a host lost",
}

package export

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/postern-project/postern"
)

// schema says what a kind of event is in the Elastic Common Schema and in the Open
// Cybersecurity Schema Framework.
type schema struct {
	category string // ECS event.category: words
	types    string // ECS event.type: words
	class    int    // OCSF class_uid
	activity int    // OCSF activity_id
}

// OCSF's classes. In findings, the outcome says whether one begins or ends.
const (
	classBase           = 0
	classFinding        = 2004
	classAccountChange  = 3001
	classAuthentication = 3002
	classEntity         = 3004
	classLifecycle      = 6002
	classAPI            = 6003
)

const activityOther = 99

// schemas has every kind of event.
var schemas = map[string]schema{
	postern.EventLogCreated:    {"configuration", "creation", classEntity, 1},
	postern.EventLogKeyAdded:   {"configuration", "creation", classEntity, 1},
	postern.EventLogKeyRetired: {"configuration", "deletion", classEntity, 4},
	postern.EventLogArchived:   {"configuration", "change", classEntity, 5},
	postern.EventConfigLoaded:  {"configuration", "change", classEntity, 3},

	postern.EventPersonAdded:     {"iam", "user creation", classAccountChange, 1},
	postern.EventPersonChanged:   {"iam", "user change", classAccountChange, activityOther},
	postern.EventPersonSuspended: {"iam", "user change", classAccountChange, 5},
	postern.EventPersonResumed:   {"iam", "user change", classAccountChange, 2},
	postern.EventPersonRemoved:   {"iam", "user deletion", classAccountChange, 6},
	postern.EventPersonRecovered: {"iam", "user change", classAccountChange, 4},
	postern.EventDirectory:       {"iam", "info", classEntity, 2},

	postern.EventHostAdded:     {"configuration", "creation", classEntity, 1},
	postern.EventHostChanged:   {"configuration", "change", classEntity, 3},
	postern.EventHostJoined:    {"configuration", "change", classEntity, 6},
	postern.EventHostSuspended: {"configuration", "change", classEntity, 12},
	postern.EventHostResumed:   {"configuration", "change", classEntity, 13},
	postern.EventHostRemoved:   {"configuration", "deletion", classEntity, 4},
	postern.EventHostRescue:    {"iam", "creation", classEntity, 1},

	postern.EventCACreated:     {"configuration", "creation", classEntity, 1},
	postern.EventCARetired:     {"configuration", "deletion", classEntity, 11},
	postern.EventCAKeyRemoved:  {"configuration", "deletion", classEntity, 4},
	postern.EventCAKeyRestored: {"configuration", "creation", classEntity, 1},
	postern.EventCAKeyExported: {"configuration", "access", classEntity, 2},
	postern.EventAPIToken:      {"iam", "change", classEntity, 3},
	postern.EventCertIssued:    {"iam", "creation", classEntity, 1},
	postern.EventCertRenewed:   {"iam", "change", classEntity, 3},
	postern.EventCertRevoked:   {"iam", "deletion", classEntity, 9},
	postern.EventSSHCertIssued: {"iam", "creation", classEntity, 1},
	postern.EventSSHRevoked:    {"iam", "deletion", classEntity, 9},
	postern.EventSSHKeyAdded:   {"iam", "creation", classEntity, 1},

	postern.EventPasskeyAdded:   {"iam", "user creation", classAccountChange, 10},
	postern.EventPasskeyChanged: {"iam", "change", classEntity, 3},

	postern.EventSignedIn:      {"authentication", "start", classAuthentication, 1},
	postern.EventAccessRefused: {"authentication", "start", classAuthentication, 1},

	postern.EventPortalEnrolled: {"iam", "creation", classEntity, 6},
	postern.EventPortalLink:     {"iam", "creation", classEntity, 1},
	postern.EventPortalCodes:    {"iam", "creation", classEntity, 1},
	postern.EventPortalName:     {"iam", "info", classEntity, 3},
	postern.EventPortalAllowed:  {"configuration", "change", classEntity, 3},

	postern.EventACMEAccount: {"iam", "change", classEntity, 3},
	postern.EventACMEOrder:   {"api", "creation", classAPI, 1},

	postern.EventOTP:           {"authentication", "info", classAuthentication, 6},
	postern.EventOTPKeyAdded:   {"iam", "user creation", classAccountChange, 10},
	postern.EventOTPKeyChanged: {"iam", "change", classEntity, 3},
	postern.EventOTPClient:     {"configuration", "change", classEntity, 3},
	postern.EventOTPUpstream:   {"configuration", "change", classEntity, 3},
	postern.EventOTPSync:       {"configuration", "change", classEntity, 3},
	postern.EventOTPRestored:   {"configuration", "change", classEntity, 3},
	postern.EventOTPImported:   {"iam", "creation", classEntity, 1},
	postern.EventOTPExported:   {"configuration", "access", classEntity, 2},
	postern.EventOTPRecovery:   {"iam", "user creation", classAccountChange, 10},

	postern.EventSSHAuth:   {"authentication", "start", classAuthentication, 1},
	postern.EventSSHOpened: {"session", "start", classAuthentication, activityOther},
	postern.EventSSHClosed: {"session", "end", classAuthentication, 2},
	postern.EventSSHLog:    {"host", "info", classFinding, 0},

	postern.EventPAMAuth:   {"authentication", "start", classAuthentication, 1},
	postern.EventPAMOpened: {"session", "start", classAuthentication, activityOther},
	postern.EventPAMClosed: {"session", "end", classAuthentication, 2},

	postern.EventLibvirtCall: {"api", "access", classAPI, activityOther},

	postern.EventCheckCA:       {"configuration", "info", classFinding, 0},
	postern.EventCheckAgent:    {"host", "info", classFinding, 0},
	postern.EventCheckHost:     {"host", "info", classFinding, 0},
	postern.EventCheckTimeline: {"intrusion_detection", "info", classFinding, 0},
	postern.EventCheckDisk:     {"host", "info", classFinding, 0},
	postern.EventCheckSSH:      {"configuration", "info", classFinding, 0},
	postern.EventCheckCodes:    {"host", "info", classFinding, 0},
	postern.EventCheckWitness:  {"intrusion_detection", "info", classFinding, 0},

	postern.EventAlertTest: {"configuration", "info", classBase, activityOther},
	postern.EventAlertSent: {"configuration", "info", classBase, activityOther},

	postern.EventAgentStarted:  {"process", "start", classLifecycle, 3},
	postern.EventAgentStopped:  {"process", "end", classLifecycle, 4},
	postern.EventAgentLost:     {"host", "info", classFinding, 0},
	postern.EventAgentRecorded: {"file", "creation", classBase, activityOther},
}

// object is a JSON object.
type object = map[string]any

// own returns what of an entry has no field in a schema.
func own(e postern.Event) object {
	o := object{}
	if e.Object != "" {
		o["object"] = e.Object
	}
	if len(e.Links) > 0 {
		o["links"] = e.Links
	}
	if len(e.Details) > 0 {
		o["details"] = e.Details
	}
	return o
}

// userOf returns who an entry is about: a person, or else the name of an account on a host; ""
// if neither is known.
func userOf(e postern.Event) string {
	account := e.Details["user"]
	if schemas[e.Kind].class == classAuthentication && strings.HasPrefix(e.Kind, "ssh.") {
		account = e.Object
	}
	return cmp.Or(e.Person, account)
}

// ipOf returns an address, "" if it is none.
func ipOf(address string) string {
	if ip, err := netip.ParseAddr(address); err == nil {
		return ip.WithZone("").String()
	}
	return ""
}

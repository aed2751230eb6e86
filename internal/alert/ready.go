package alert

import (
	"cmp"
	"time"
)

// Ready are the ready-made alerts: an alert of one of these names needs no expression.
var Ready = []Alert{
	{
		Name: "new-address",
		When: `event.kind in ["gate.passed", "ssh.auth"] && event.outcome == "ok" && new_address`,
	},
	{
		Name:  "refusal-flood",
		When:  `event.outcome == "refused" && event.kind in ["gate.refused", "otp.checked", "ssh.auth", "pam.auth"]`,
		Count: 100, Within: time.Minute, Every: 15 * time.Minute,
	},
	{
		Name: "machine-destroyed-at-night",
		When: `event.kind == "libvirt.call" && event.outcome == "ok" && (hour >= 22 || hour < 6) &&
	event.details.procedure in ["domainDestroy", "domainDestroyFlags", "domainUndefine", "domainUndefineFlags"]`,
	},
	{Name: "audit-finding", When: `event.kind == "check.ssh" && event.outcome == "failed"`},
	{Name: "ca-ending", When: `event.kind == "check.ca" && event.outcome == "failed"`},
	{Name: "agent-silent", When: `event.kind == "check.agent" && event.outcome == "failed"`},
	{Name: "host-problem", When: `event.kind == "check.host" && event.outcome == "failed"`},
	{Name: "timeline-damaged", When: `event.kind == "check.timeline" && event.outcome == "failed"`},
	{Name: "timeline-forked", When: `event.kind == "check.witness" && event.outcome == "failed"`},
	{Name: "disk-filling", When: `event.kind == "check.disk" && event.outcome == "failed"`},
	{Name: "codes-refused", When: `event.kind == "check.codes" && event.outcome == "failed"`},
}

// complete returns the alert with what it leaves to the ready-made one of its name.
func (a Alert) complete() Alert {
	for _, r := range Ready {
		if r.Name != a.Name || a.When != "" {
			continue
		}
		a.When = r.When
		a.Every = cmp.Or(a.Every, r.Every)
		if a.Count == 0 {
			a.Count, a.Within = r.Count, r.Within
		}
	}
	a.Every = cmp.Or(a.Every, DefaultEvery)
	return a
}

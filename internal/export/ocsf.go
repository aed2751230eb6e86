package export

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/timeline"
)

// ocsfVersion is the version of the Open Cybersecurity Schema Framework that is used.
const ocsfVersion = "1.8.0"

// ocsf returns the format of the Open Cybersecurity Schema Framework
// (https://schema.ocsf.io/1.8.0). What it has no attribute for is in "unmapped". Entries that
// name no host were seen on the host given.
func ocsf(_ timeline.Source, host string) format {
	return func(_ context.Context, e postern.Event) ([]byte, error) {
		return json.Marshal(ocsfEvent(e, cmp.Or(e.Host, host)))
	}
}

// Captions of OCSF.
var (
	ocsfCategories = map[int]string{
		0: "Uncategorized", 2: "Findings", 3: "Identity & Access Management", 6: "Application Activity",
	}
	ocsfClasses = map[int]string{
		classBase: "Base Event", classFinding: "Detection Finding", classAccountChange: "Account Change",
		classAuthentication: "Authentication", classEntity: "Entity Management",
		classLifecycle: "Application Lifecycle", classAPI: "API Activity",
	}
)

func ocsfEvent(e postern.Event, host string) object {
	s := schemas[e.Kind]
	more := own(e)
	more["host"] = host
	event := object{
		"metadata": object{
			"version": ocsfVersion, "uid": strconv.FormatInt(e.Index, 10), "event_code": e.Kind,
			"log_name": "timeline",
			"product":  object{"name": "Postern", "vendor_name": "Postern", "version": system.Version()},
		},
		"time": e.Time.UnixMilli(), "message": oneLine(timeline.Sentence(e, nil)),
		"category_uid": s.class / 1000, "category_name": ocsfCategories[s.class/1000],
		"class_uid": s.class, "class_name": ocsfClasses[s.class],
		"activity_id": s.activity, "severity_id": ocsfSeverity(e.Outcome), "status_id": ocsfStatus(e.Outcome),
		"unmapped": more,
	}
	title := titleOf(e)
	if s.activity == activityOther {
		event["activity_name"] = title
	}
	if e.Reason != "" {
		event["status_detail"] = e.Reason
	}
	if e.Count > 0 {
		event["count"] = e.Count
	}
	if e.Took > 0 {
		event["duration"] = e.Took.Milliseconds()
	}
	ocsfClass(event, e, s.class, host)
	event["type_uid"] = s.class*100 + event["activity_id"].(int)
	return event
}

// titleOf returns what a kind of event is called.
func titleOf(e postern.Event) string {
	kind, _ := postern.EventKindOf(e.Kind)
	return cmp.Or(kind.Title, e.Kind)
}

// ocsfClass adds the attributes of a class.
func ocsfClass(event object, e postern.Event, class int, host string) {
	switch class {
	case classAuthentication:
		event["dst_endpoint"] = object{"hostname": host}
		if service := e.Details["service"]; service != "" {
			event["service"] = object{"name": service}
		}
		fallthrough
	case classAccountChange:
		event["user"] = ocsfUser(userOf(e))
		ocsfActor(event, e)
	case classEntity:
		event["entity"] = object{"name": cmp.Or(e.Object, e.Person, titleOf(e)), "type": titleOf(e)}
		ocsfActor(event, e)
	case classAPI:
		event["api"] = object{"operation": cmp.Or(e.Details[timeline.Procedure], e.Kind)}
		event["actor"] = object{"user": ocsfUser(userOf(e))}
		event["src_endpoint"] = object{"hostname": host}
		if e.Object != "" {
			event["resources"] = []object{{"name": e.Object}}
		}
		ocsfActor(event, e)
	case classLifecycle:
		event["app"] = object{"name": "postern agent", "version": cmp.Or(e.Details["version"], "unknown")}
	case classFinding:
		event["finding_info"] = object{"uid": e.Kind + "/" + e.Object, "title": titleOf(e)}
		event["activity_id"], event["status_id"] = 1, 1 // begins, new
		if e.Outcome == postern.OK {
			event["activity_id"], event["status_id"] = 3, 4 // closed, resolved
		}
	}
}

// ocsfActor adds who did it and from where, as far as that is known.
func ocsfActor(event object, e postern.Event) {
	if by := cmp.Or(e.Details["by"], e.Person); by != "" {
		event["actor"] = object{"user": ocsfUser(by)}
	}
	if ip := ipOf(e.Address); ip != "" {
		event["src_endpoint"] = object{"ip": ip}
	}
}

// ocsfUser returns a user of that name, or an unknown one.
func ocsfUser(name string) object {
	if name == "" {
		return object{"name": "unknown", "type_id": 0}
	}
	return object{"name": name, "type_id": 1}
}

func ocsfSeverity(o postern.Outcome) int {
	switch o {
	case postern.Refused:
		return 2 // low
	case postern.Failed:
		return 3 // medium
	}
	return 1 // informational
}

func ocsfStatus(o postern.Outcome) int {
	switch o {
	case postern.OK:
		return 1 // success
	case postern.Refused, postern.Failed:
		return 2 // failure
	}
	return 0 // unknown
}

package export

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// ecsVersion is the version of the Elastic Common Schema whose fields are used.
const ecsVersion = "8.17.0"

// ecs returns the format of the Elastic Common Schema
// (https://www.elastic.co/docs/reference/ecs). What it has no field for is below "postern".
// Entries that name no host were seen on the host given.
func ecs(_ timeline.Source, host string) format {
	return func(_ context.Context, e postern.Event) ([]byte, error) {
		seen := cmp.Or(e.Host, host)
		doc := object{
			"@timestamp": e.Time.UTC().Format(microseconds),
			"ecs":        object{"version": ecsVersion},
			"message":    oneLine(timeline.Sentence(e, nil)),
			"event":      ecsEvent(e),
			"host":       object{"name": seen},
			"related":    ecsRelated(e, seen),
		}
		if user := userOf(e); user != "" {
			doc["user"] = object{"name": user}
		}
		if ip := ipOf(e.Address); ip != "" {
			doc["source"] = object{"address": ip, "ip": ip}
		}
		more := own(e)
		if e.Count > 1 {
			more["count"] = e.Count
		}
		if len(more) > 0 {
			doc["postern"] = more
		}
		return json.Marshal(doc)
	}
}

var ecsOutcomes = map[postern.Outcome]string{
	postern.OK: "success", postern.Refused: "failure", postern.Failed: "failure",
}

func ecsEvent(e postern.Event) object {
	s := schemas[e.Kind]
	event := object{
		"kind": "event", "category": strings.Fields(s.category), "type": strings.Fields(s.types),
		"outcome": cmp.Or(ecsOutcomes[e.Outcome], "unknown"), "action": e.Kind,
		"id": strconv.FormatInt(e.Index, 10), "sequence": e.Index,
		"module": "postern", "dataset": "postern.timeline",
	}
	if s.class == classFinding && e.Outcome != postern.OK {
		event["kind"] = "alert"
	}
	if e.Reason != "" {
		event["reason"] = e.Reason
	}
	if e.Took > 0 {
		event["duration"] = e.Took.Nanoseconds()
	}
	return event
}

// ecsRelated returns the values by which entries are found whatever their role is.
func ecsRelated(e postern.Event, host string) object {
	related := object{"hosts": []string{host}}
	users := slices.DeleteFunc([]string{e.Person, e.Details["by"], e.Details["user"]},
		func(name string) bool { return name == "" })
	slices.Sort(users)
	if users = slices.Compact(users); len(users) > 0 {
		related["user"] = users
	}
	if ip := ipOf(e.Address); ip != "" {
		related["ip"] = []string{ip}
	}
	return related
}

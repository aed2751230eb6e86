package export

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// samples are entries of every kind with every outcome, with all that an entry may have and
// with nothing more than it must.
func samples() (all []postern.Event) {
	for _, kind := range postern.EventKinds {
		for _, outcome := range []postern.Outcome{postern.OK, postern.Refused, postern.Failed, postern.Unknown} {
			bare := postern.Event{
				Index: int64(len(all)), Time: time.UnixMicro(1_790_000_000_123_456).UTC(), Kind: kind.Name,
				Outcome: outcome,
			}
			full := bare
			full.Index, full.Host, full.Person, full.Address = bare.Index+1, "hv1.example.com", "ann", "2001:db8::7"
			full.Object, full.Reason, full.Count, full.Took = "a\nb\u2028", "a reason", 3, 1500*time.Microsecond
			full.Links = []postern.Link{{Kind: "yubikey", ID: "vvccccbdefgh"}}
			full.Details = map[string]string{"by": "bob"}
			for _, key := range kind.Details {
				full.Details[key] = "some " + key
			}
			all = append(all, bare, full)
		}
	}
	return all
}

// written returns an entry in a format, as JSON.
func written(t *testing.T, name string, e postern.Event) map[string]any {
	t.Helper()
	f, err := formatOf(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := f(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return doc
}

func readJSON(t *testing.T, file string, v any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryKindHasASchema(t *testing.T) {
	for _, kind := range postern.EventKinds {
		if _, ok := schemas[kind.Name]; !ok {
			t.Errorf("%s has none", kind.Name)
		}
	}
	if len(schemas) != len(postern.EventKinds) {
		t.Errorf("there are %d schemas and %d kinds", len(schemas), len(postern.EventKinds))
	}
}

// ecsField is a field of the Elastic Common Schema.
type ecsField struct {
	Type   string
	Array  bool
	Values map[string][]string // that are allowed: of a category, with the types expected of it
}

func TestECSHasEveryFieldThatIsWritten(t *testing.T) {
	var facts struct {
		Version string
		Fields  map[string]ecsField
	}
	readJSON(t, "testdata/ecs-"+ecsVersion+".json", &facts)
	if facts.Version != ecsVersion {
		t.Fatalf("the facts are of %s", facts.Version)
	}
	for _, e := range samples() {
		doc := written(t, "ecs", e)
		delete(doc, "postern") // a name of our own
		for _, problem := range ecsProblems(facts.Fields, "", doc) {
			t.Errorf("%s %s: %s", e.Kind, e.Outcome, problem)
		}
		event := doc["event"].(map[string]any)
		if want := map[postern.Outcome]string{"ok": "success", "unknown": "unknown"}[e.Outcome]; want != "" &&
			event["outcome"] != want || want == "" && event["outcome"] != "failure" {
			t.Errorf("%s: the outcome %s is %v", e.Kind, e.Outcome, event["outcome"])
		}
		for _, typ := range event["type"].([]any) {
			if category := event["category"].([]any)[0].(string); !slices.Contains(
				facts.Fields["event.category"].Values[category], typ.(string)) {
				t.Errorf("%s: %s is not a type of %s", e.Kind, typ, category)
			}
		}
	}
}

// ecsProblems compares the fields of an object with the schema.
func ecsProblems(fields map[string]ecsField, prefix string, doc map[string]any) (problems []string) {
	for name, value := range doc {
		f, known := fields[prefix+name]
		if inner, ok := value.(map[string]any); ok && !known {
			problems = append(problems, ecsProblems(fields, prefix+name+".", inner)...)
			continue
		}
		values, array := value.([]any)
		if !array {
			values = []any{value}
		}
		if !known || array != f.Array {
			problems = append(problems, fmt.Sprintf("%s is not a field, or not of such values: %v", prefix+name,
				value))
		}
		for _, v := range values {
			if !ecsValid(f, v) {
				problems = append(problems, fmt.Sprintf("%s is %v", prefix+name, v))
			}
		}
	}
	return problems
}

func ecsValid(f ecsField, v any) bool {
	if text, ok := v.(string); ok {
		if _, allowed := f.Values[text]; f.Values != nil && !allowed {
			return false
		}
		switch f.Type {
		case "date":
			_, err := time.Parse(time.RFC3339Nano, text)
			return err == nil
		case "ip":
			_, err := netip.ParseAddr(text)
			return err == nil
		}
		return f.Type == "keyword" || f.Type == "match_only_text"
	}
	_, number := v.(float64)
	return number && f.Type == "long"
}

// ocsfFacts are what the Open Cybersecurity Schema Framework says.
type ocsfFacts struct {
	Version string
	Classes map[string]struct {
		ocsfObject
		Caption     string
		Category    string
		CategoryUID int `json:"category_uid"`
	}
	Objects map[string]ocsfObject
	Types   map[string]struct {
		Type, Regex string
	}
}

type ocsfObject struct {
	Attributes map[string]struct {
		Type            string
		Array, Required bool
		Enum            []string
	}
	AtLeastOne []string `json:"at_least_one"`
}

func TestOCSFHasEveryAttributeThatIsWritten(t *testing.T) {
	var facts ocsfFacts
	readJSON(t, "testdata/ocsf-"+ocsfVersion+".json", &facts)
	if facts.Version != ocsfVersion {
		t.Fatalf("the facts are of %s", facts.Version)
	}
	for _, e := range samples() {
		doc := written(t, "ocsf", e)
		number := func(name string) int { return int(doc[name].(float64)) }
		class, ok := facts.Classes[strconv.Itoa(number("class_uid"))]
		if !ok || doc["class_name"] != class.Caption || doc["category_name"] != class.Category ||
			number("category_uid") != class.CategoryUID ||
			number("type_uid") != number("class_uid")*100+number("activity_id") {
			t.Errorf("%s: class and type do not agree: %v", e.Kind, doc)
		}
		for _, name := range []string{"class_uid", "category_uid"} { // of which the enums are those of the base event
			delete(doc, name)
			a := class.Attributes[name]
			a.Required = false
			class.Attributes[name] = a
		}
		for _, problem := range facts.problems(class.ocsfObject, "", doc) {
			t.Errorf("%s %s: %s", e.Kind, e.Outcome, problem)
		}
	}
}

// problems compares an object with what the schema says of it.
func (f ocsfFacts) problems(o ocsfObject, prefix string, doc map[string]any) (problems []string) {
	for name, a := range o.Attributes {
		value, ok := doc[name]
		if !ok {
			if a.Required {
				problems = append(problems, prefix+name+" is missing")
			}
			continue
		}
		values, array := value.([]any)
		if !array {
			values = []any{value}
		}
		if array != a.Array {
			problems = append(problems, fmt.Sprintf("%s is %v", prefix+name, value))
		}
		for _, v := range values {
			if a.Enum != nil && !slices.Contains(a.Enum, fmt.Sprint(v)) {
				problems = append(problems, fmt.Sprintf("%s is %v, not one of %v", prefix+name, v, a.Enum))
			}
			problems = append(problems, f.value(a.Type, prefix+name, v)...)
		}
	}
	one := len(o.AtLeastOne) == 0
	for name := range doc {
		one = one || slices.Contains(o.AtLeastOne, name)
		if _, ok := o.Attributes[name]; !ok {
			problems = append(problems, prefix+name+" is not an attribute")
		}
	}
	if !one {
		problems = append(problems, fmt.Sprintf("%s has none of %v", prefix, o.AtLeastOne))
	}
	return problems
}

// value compares a value with its type.
func (f ocsfFacts) value(name, at string, v any) []string {
	if inner, ok := v.(map[string]any); ok {
		if name == "object" { // may have anything
			return nil
		}
		o, ok := f.Objects[name]
		if !ok {
			return []string{at + " is an object"}
		}
		return f.problems(o, at+".", inner)
	}
	typ, ok := f.Types[name]
	if !ok {
		return []string{fmt.Sprintf("%s is %v, not a %s", at, v, name)}
	}
	text, isText := v.(string)
	_, isNumber := v.(float64)
	wantsNumber := slices.Contains([]string{"integer_t", "long_t", "timestamp_t"}, name)
	if isText == wantsNumber || isNumber != wantsNumber ||
		typ.Regex != "" && isText && !regexp.MustCompile(typ.Regex).MatchString(text) {
		return []string{fmt.Sprintf("%s is %v, not a %s", at, v, name)}
	}
	return nil
}

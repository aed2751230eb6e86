package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/jsonschema"
	"github.com/spf13/cobra"
)

// events are the commands whose objects are described by the schema of traces.
var events = []string{"trace events", "trace qemu", "trace replay", "trace rpc"}

func TestTheSchemaOfOutputIsWhole(t *testing.T) {
	text, err := json.MarshalIndent(outputSchema(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if committed, err := os.ReadFile("../../docs/output.schema.json"); err != nil ||
		!bytes.Equal(committed, append(text, '\n')) {
		t.Errorf("docs/output.schema.json is not current (make generate): %v", err)
	}
	leaves(t, func(t *testing.T, path []string, c *cobra.Command) {
		name := strings.Join(path, " ")
		_, described := outputs[name]
		if c.Flags().Lookup("json") != nil && !described && !slices.Contains(events, name) {
			t.Errorf("what %s --json prints is not described", name)
		}
	})
}

func TestFieldsAreWrittenInSnakeCase(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	var check func(where string, s *jsonschema.Schema)
	check = func(where string, s *jsonschema.Schema) {
		for name, p := range s.Properties {
			if !snake.MatchString(name) {
				t.Errorf("%s has the field %s", where, name)
			}
			check(where, p)
		}
		for _, below := range []*jsonschema.Schema{s.Items, s.Values} {
			if below != nil {
				check(where, below)
			}
		}
	}
	for name, s := range outputSchema().Defs {
		check(name, s)
	}
}

// TestOutputIsAsDescribed runs commands on a state that has one of each.
func TestOutputIsAsDescribed(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("POSTERN_STATE", filepath.Join(dir, "state"))
	postern := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, strings.NewReader("EHmo8FMxuhumBlTinC4uYL0Mgwg=\n"), &out,
			&errs); code != 0 && args[0] != "doctor" {
			t.Fatalf("postern %v: %d\n%s", args, code, errs.String())
		}
		return out.String()
	}
	postern("init")
	postern("user", "add", "alice", "--email", "alice@example.com", "--group", "ops")
	postern("ca", "issue", "--server", "a.example.com", "--out", dir)
	postern("ca", "token", "add", "deploy", "--domain", "example.com")
	postern("ca", "acme", "add", "alice")
	postern("otp", "totp", "--person", "alice", "--no-check", "--out", filepath.Join(dir, "totp"))
	postern("otp", "client", "add", "--out", filepath.Join(dir, "client"))
	postern("otp", "upstream", "set", "--id", "12", "--key-file", "-")
	for _, words := range []string{
		"ca acme list alice", "ca list", "ca root show", "ca token list", "ca url", "doctor", "log list", "log show 1",
		"log verify",
		"otp client list", "otp list", "otp upstream show", "otp sync show", "user list", "user show alice", "version",
	} {
		args := append(strings.Fields(words), "--json")
		name := words
		for name != "" && outputs[name] == nil {
			name = name[:max(strings.LastIndexByte(name, ' '), 0)]
		}
		out := postern(args...)
		if out == "" {
			t.Errorf("%s prints nothing", words)
		}
		for line := range strings.Lines(out) {
			matches(t, name, line, jsonschema.Of(outputs[name]))
		}
	}
}

// matches fails if a line is no object with the fields of a schema.
func matches(t *testing.T, name, line string, s *jsonschema.Schema) {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(line), &object); err != nil {
		t.Errorf("%s prints no object a line: %v: %s", name, err, line)
		return
	}
	for key := range object {
		if s.Properties[key] == nil {
			t.Errorf("%s: the field %s is not described", name, key)
		}
	}
	for _, key := range s.Required {
		if _, ok := object[key]; !ok {
			t.Errorf("%s: the field %s is missing", name, key)
		}
	}
}

//go:build !noserver

package cli

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/apache"
	"github.com/postern-project/postern/internal/backup"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/doctor"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/join"
	"github.com/postern-project/postern/internal/jsonschema"
	"github.com/postern-project/postern/internal/manpage"
	"github.com/postern-project/postern/internal/manual"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/reference"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/inflight"
	"github.com/postern-project/postern/internal/trace/top"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
)

// outputs are what commands print with --json: the type of each object. What the
// trace commands print of events is described in internal/trace/format/schema.md.
var outputs = map[string]any{
	"agent --print":      postern.Event{},
	"backup":             backup.Made{},
	"ca acme list":       acme.ExternalKey{},
	"ca list":            ca.CertificateInfo{},
	"ca profile list":    ca.PolicyInfo{},
	"ca root list":       ca.Anchor{},
	"ca root show":       ca.RootInfo{},
	"ca root status":     ca.Holder{},
	"ca show":            ca.CertificateInfo{},
	"ca token list":      ca.APIToken{},
	"ca url":             urlJSON{},
	"doctor":             doctor.Report{},
	"host add":           server.HostInvitation{},
	"host list":          host.Info{},
	"host show":          host.Info{},
	"import apache":      apache.Result{},
	"join":               join.Result{},
	"log follow":         postern.Event{},
	"log list":           postern.Event{},
	"log prove":          timeline.Proof{},
	"log show":           postern.Event{},
	"log verify":         timeline.Report{},
	"log verify --proof": postern.Event{},
	"otp client list":    otp.ClientInfo{},
	"otp list":           otp.Credential{},
	"otp show":           otp.Credential{},
	"otp sync show":      otp.SyncInfo{},
	"otp upstream show":  otp.ClientConfig{},
	"otp verify":         otpVerdict{},
	"restore":            backup.Restored{},
	"ssh check":          audit.Report{},
	"trace now":          inflight.Daemon{},
	"trace probes":       format.Library{},
	"trace top":          top.Table{},
	"user account list":  postern.Account{},
	"user list":          postern.Person{},
	"user show":          people.Holder{},
	"version":            system.Build{},
	"who":                server.Session{},
}

// outputSchema describes what commands print with --json, by their names.
func outputSchema() *jsonschema.Schema {
	return jsonschema.Document("What the commands of Postern print with --json",
		"Each definition is named after its command and describes one line of its output. "+
			"Fields may be added; none changes or goes without a note in CHANGELOG.md.", outputs)
}

// newSchema returns the command that writes the schema. It is for those who build
// Postern, and in no list.
func newSchema(a *app) *cobra.Command {
	return hidden(fileCommand(a, "schema", "Write the JSON Schema of what commands print", withNothing,
		func(context.Context, struct{}, []string) ([]byte, error) { return indented(outputSchema(), nil) }))
}

// newMan returns the command that writes the manual pages. It is for those who
// build Postern, and in no list.
func newMan(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			rules, err := reference.Rules()
			if err != nil {
				return err
			}
			pages := append(manual.Pages(cmd.Root()), reference.Caddyfile(), rules)
			return manpage.WriteAll(args[0], "Postern", manual.Released, pages)
		},
	}
}

//go:build !noserver

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/backup"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newBackup(a *app) *cobra.Command {
	var to []string
	o := backup.Options{Program: system.Version()}
	cmd := &cobra.Command{Use: "backup", Short: "Write the whole state to one file, while the server runs"}
	asJSON, f := jsonFlag(cmd), cmd.Flags()
	f.StringVar(&o.To, "to", "", "the `FILE` to write, or the directory for one with a name of its own (default .)")
	f.StringSliceVar(&to, "encrypt-to", nil, "an age `RECIPIENT`, or a file with some; can be repeated")
	f.IntVar(&o.Keep, "keep", 0, "in a directory, keep the newest `N` backups of this state (default: all)")
	cmd.RunE = on(a.withState, func(ctx context.Context, st *state.State, _ []string) (err error) {
		if o.Encrypt, err = backup.Recipients(to); err != nil {
			return err
		}
		made, err := backup.Make(ctx, st, o)
		if err != nil {
			return err
		}
		return a.printer().Fields(made, *asJSON, append(backupFields(made.Manifest), terminal.Field{"file", made.Path},
			terminal.Field{"size", fmt.Sprint(made.Size)}, terminal.Field{"note", made.Note()})...)
	})
	return cmd
}

// backupFields are what is shown of a backup.
func backupFields(m backup.Manifest) []terminal.Field {
	return []terminal.Field{
		{"made", terminal.Time(m.Made)},
		{"database", m.Database},
		{"people", fmt.Sprint(m.Holds.People)},
		{"keys", fmt.Sprint(m.Holds.Keys)},
		{"timeline", terminal.Counted(m.Holds.Entries, "entry") + ", the newest of " + terminal.Time(m.Holds.Newest)},
		{"links left out", strings.Join(m.LeftOut, ", ")},
	}
}

func newRestore(a *app) *cobra.Command {
	var identity string
	var check bool
	cmd := &cobra.Command{Use: "restore FILE", Short: "Put a backup's state into an empty state directory"}
	asJSON := jsonFlag(cmd)
	cmd.Flags().StringVar(&identity, "identity", "", "the `FILE` with the age identity, if the backup is encrypted")
	cmd.Flags().BoolVar(&check, "check", false, "check the backup, and put nothing in place")
	cmd.RunE = on(a.withDir, func(ctx context.Context, dir string, args []string) error {
		r, err := restore(ctx, args[0], dir, identity, check)
		if err != nil {
			return err
		}
		fields := append(backupFields(r.Manifest), terminal.Field{"age", r.Age()})
		if !check {
			fields = append(fields, terminal.Field{"after it", r.Disabled.String()})
		}
		return a.printer().Fields(r, *asJSON, fields...)
	})
	return cmd
}

// restore puts a backup into a state directory, or only checks it.
func restore(ctx context.Context, file, dir, identity string, check bool) (r backup.Restored, err error) {
	ids, err := backup.Identities(identity)
	if err != nil {
		return r, err
	}
	if check {
		r.Manifest, err = backup.Check(ctx, file, ids)
		return r, err
	}
	return backup.Restore(ctx, file, dir, ids, people.ByHand(postern.Event{Kind: postern.EventOTPRestored}))
}

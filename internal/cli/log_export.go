//go:build !noserver

package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern/internal/export"
	"github.com/postern-project/postern/internal/store"
	"github.com/spf13/cobra"
)

func newLogExport(a *app) *cobra.Command {
	o := export.Options{Report: func(err error) {
		if err == nil {
			fmt.Fprintln(a.err, "postern: the export goes on")
			return
		}
		fmt.Fprintf(a.err, "postern: %v; waiting for it\n", err)
	}}
	cmd := &cobra.Command{Use: "export", Short: "Send the timeline's entries to another system"}
	f := cmd.Flags()
	f.StringVar(&o.To, "to", "", "the receiver's `ADDRESS`: https://…, syslog+tcp://127.0.0.1:PORT")
	f.StringVar(&o.Secret, "secret", "", "sign what is sent by HTTP with the key in `FILE`")
	f.StringVar(&o.Cursor, "cursor", "", "keep in `FILE` how far the receiver is")
	f.Int64Var(&o.From, "from", 0, "begin with the entry `INDEX`, where there is no cursor yet")
	f.BoolVar(&o.Follow, "follow", false, "send new entries as they are written, until interrupted")
	required(cmd, "to", "cursor")
	cmd.RunE = on(a.withLog, func(ctx context.Context, log store.Timeline, _ []string) error {
		return export.Run(ctx, log, o)
	})
	return cmd
}

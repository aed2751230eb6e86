package cli

import (
	"context"
	"path/filepath"

	"github.com/postern-project/postern/internal/trace/report"
	"github.com/spf13/cobra"
)

func newTraceReport(a *app) *cobra.Command {
	o := newTraceOptions(0)
	c := &cobra.Command{
		Use:   "report FILE",
		Short: "Make a page of a recorded trace",
		RunE:  func(cmd *cobra.Command, args []string) error { return o.report(cmd.Context(), a, args[0]) },
	}
	o.choose(c)
	o.rpc(c)
	o.names(c)
	c.Flags().StringVarP(&o.output, "out", "o", "", "the `FILE` to write; - is standard output")
	required(c, "out")
	return c
}

func (o *traceOptions) report(ctx context.Context, a *app, file string) error {
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	r := report.Report{Filter: cfg.Filter, Name: filepath.Base(file), Version: version(), Namer: o.namer(ctx, a)}
	return a.convert(file, o.output, r.Write)
}

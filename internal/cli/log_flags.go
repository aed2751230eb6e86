package cli

import (
	"log/slog"

	"github.com/spf13/cobra"
)

// logFlags say what is logged, and how.
type logFlags struct {
	level         slog.Level
	verbose, json bool
}

// logFlagsOf adds the flags of what is logged to a command.
func logFlagsOf(cmd *cobra.Command) *logFlags {
	o, f := new(logFlags), cmd.Flags()
	f.TextVar(&o.level, "log-level", slog.LevelWarn, "log lines of this `LEVEL` and above: debug, info, warn or error")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what goes well, too: --log-level info")
	f.BoolVar(&o.json, "log-json", false, "log JSON, one object a line")
	return o
}

// log returns a logger on standard error.
func (a *app) log(o logFlags) *slog.Logger {
	if o.verbose {
		o.level = min(o.level, slog.LevelInfo)
	}
	with := &slog.HandlerOptions{Level: o.level}
	if o.json {
		return slog.New(slog.NewJSONHandler(a.err, with))
	}
	return slog.New(slog.NewTextHandler(a.err, with))
}

//go:build !noserver

package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/apache"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newImport(a *app) *cobra.Command {
	return group("import", "Carry over another server's configuration", newImportApache(a))
}

type importApache struct {
	cfg    apache.Config
	output string
	json   bool
	strict bool
}

func newImportApache(a *app) *cobra.Command {
	o := importApache{cfg: apache.Config{Defines: apache.DebianDefines()}}
	cmd := plain("apache FILE", "Write an Apache configuration with SSLVerifyClient and SSLRequire as a Caddyfile",
		func(_ context.Context, args []string) error { return o.run(a, args[0]) })
	f := cmd.Flags()
	f.StringVarP(&o.output, "out", "o", "",
		"write Caddyfile and joined certificate chains into this `DIRECTORY`; never overwrites")
	f.StringVar(&o.cfg.PHP, "php", "",
		"`ADDRESS` of a FastCGI server for PHP, as Caddy writes it, where the configuration names none")
	f.StringVar(&o.cfg.ServerRoot, "server-root", "", "`DIRECTORY` where relative names begin (default: the file's)")
	f.StringVar(&o.cfg.TimeZone, "time-zone", "UTC", "IANA `ZONE` in which conditions on the time are meant")
	f.FuncP("define", "D", "take `NAME[=VALUE]` as set by Define; can be repeated", o.cfg.Define)
	f.BoolVar(&o.json, "json", false, "print Caddyfile, notes and files to be made as JSON")
	f.BoolVar(&o.strict, "strict", false,
		"fail if a guard had to be closed or asks for more or less, or a line was lost")
	return cmd
}

func (o *importApache) run(a *app, file string) error {
	r, err := apache.Convert(o.cfg, file)
	if err != nil {
		return err
	}
	if o.output != "" {
		if err := r.Write(o.output); err != nil {
			return err
		}
	}
	switch {
	case o.json:
		err = terminal.JSON(a.out, r)
	case o.output == "":
		_, err = io.WriteString(a.out, r.Caddyfile)
	default:
		_, err = fmt.Fprintf(a.out, "wrote %s\n", filepath.Join(o.output, apache.CaddyfileName))
	}
	if err != nil {
		return err
	}
	if !o.json {
		for _, n := range r.Notes {
			fmt.Fprintln(a.err, n)
		}
	}
	if grave := r.Grave(); o.strict && grave > 0 {
		return postern.Errorf(postern.Denied, "%s could not be carried over as they are",
			terminal.Counted(grave, "line")).
			WithHint("read the notes marked closed, lost, widened and narrowed")
	}
	return nil
}

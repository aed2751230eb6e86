package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/apache"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newImport(a *app) *cobra.Command {
	return group("import", "Carry over another server's configuration", newImportApache(a))
}

type importApache struct {
	cfg     apache.Config
	defines []string
	output  string
	json    bool
	strict  bool
}

func newImportApache(a *app) *cobra.Command {
	var o importApache
	cmd := &cobra.Command{
		Use:   "apache FILE",
		Short: "Write an Apache configuration with SSLVerifyClient and SSLRequire as a Caddyfile",
		Long: `Reads an Apache configuration, with all that it includes, and writes a Caddyfile that guards the same places.

What keeps people out counts, however Apache does it: access directives, conditions, what a rewrite forbids or sends
elsewhere, .htaccess files as they are now. What has no match is listed with file and line on standard error:
"closed" keeps people out in a way that could not be carried over, so that its place is closed; "lost" is left out,
and guards nothing as far as Postern knows; "widened" asks for less than Apache does, so that somebody whom Apache
refuses may pass; "narrowed" asks for more, so that somebody whom Apache lets pass is refused; "changed" answers differently in some case; "info" is worth knowing.`,
		Example: `  postern import apache /etc/apache2/sites-enabled/example.conf > Caddyfile
  postern import apache --php unix//run/php/php-fpm.sock -o /etc/postern /etc/apache2/apache2.conf`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(a, args[0]) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "out", "o", "", "write Caddyfile and joined certificate chains into this `DIRECTORY`; never overwrites")
	f.StringVar(&o.cfg.PHP, "php", "", "`ADDRESS` of a FastCGI server for PHP, as Caddy writes it, where the configuration names none")
	f.StringVar(&o.cfg.ServerRoot, "server-root", "", "`DIRECTORY` where relative names begin (default: the file's)")
	f.StringVar(&o.cfg.TimeZone, "time-zone", "UTC", "IANA `ZONE` in which conditions on the time are meant")
	f.StringArrayVarP(&o.defines, "define", "D", nil, "take `NAME[=VALUE]` as set by Define; can be repeated")
	f.BoolVar(&o.json, "json", false, "print Caddyfile, notes and files to be made as JSON")
	f.BoolVar(&o.strict, "strict", false, "fail if a guard had to be closed or asks for more or less, or a line was lost")
	return cmd
}

func (o *importApache) run(a *app, file string) error {
	o.cfg.Defines = map[string]string{"APACHE_LOG_DIR": "/var/log/apache2", "APACHE_RUN_DIR": "/var/run/apache2"}
	for _, d := range o.defines {
		name, value, _ := strings.Cut(d, "=")
		o.cfg.Defines[name] = value
	}
	r, err := apache.Convert(o.cfg, file)
	if err != nil {
		return err
	}
	if o.output != "" {
		if err := writeImport(o.output, r); err != nil {
			return err
		}
	}
	switch {
	case o.json:
		err = terminal.JSON(a.out, r)
	case o.output == "":
		_, err = io.WriteString(a.out, r.Caddyfile)
	default:
		_, err = fmt.Fprintf(a.out, "wrote %s\n", filepath.Join(o.output, "Caddyfile"))
	}
	if err != nil {
		return err
	}
	grave := 0
	for _, n := range r.Notes {
		if n.Severity.Grave() {
			grave++
		}
		if !o.json {
			fmt.Fprintln(a.err, n)
		}
	}
	if o.strict && grave > 0 {
		return postern.Errorf(postern.Denied, "%d lines could not be carried over as they are", grave).WithHint("read the notes marked closed, lost, widened and narrowed")
	}
	return nil
}

// writeImport writes the Caddyfile and the certificates with their chains. It
// does not overwrite anything, and joins only certificates, never keys.
func writeImport(dir string, r *apache.Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text := r.Caddyfile
	for _, b := range r.Bundles {
		var pem []byte
		for _, part := range b.Parts {
			p, err := os.ReadFile(part)
			if err != nil {
				return postern.Errorf(postern.NotFound, "a certificate that the configuration names: %w", err)
			}
			pem = append(append(pem, p...), '\n')
		}
		name, err := filepath.Abs(filepath.Join(dir, filepath.Base(b.Name)))
		if err != nil {
			return err
		}
		if err := createNew(name, pem); err != nil {
			return err
		}
		text = strings.ReplaceAll(text, b.Name, name)
		for i := range r.Notes {
			r.Notes[i].Text = strings.ReplaceAll(r.Notes[i].Text, b.Name, name)
		}
	}
	return createNew(filepath.Join(dir, "Caddyfile"), []byte(text))
}

// createNew writes a file that must not exist yet.
func createNew(name string, data []byte) error {
	err := durable.Create(name, data, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return postern.Errorf(postern.Conflict, "%s exists already", name).WithHint("name another folder with -o, or move the file away")
	}
	return err
}

// Package apache reads an Apache configuration and writes what it guards as a
// Caddyfile for Postern. What has no match is noted with file and line; a guard
// that cannot be carried over closes its place instead of opening it.
package apache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
)

// Config says how an Apache configuration is read. The zero value reads the
// host's own files.
type Config struct {
	// FS holds the files, rooted at /. Nil is the host's own.
	FS fs.FS
	// ServerRoot is where relative names begin; "" is the folder of the file
	// that is converted, until a ServerRoot line says otherwise.
	ServerRoot string
	// Defines are names taken as set by Define or on Apache's command line.
	Defines map[string]string
	// PHP is the address of a FastCGI server for PHP where the configuration
	// names none, as Caddy writes it: unix//run/php/php-fpm.sock.
	PHP string
	// TimeZone is the IANA name of the zone in which conditions on the time
	// are meant; "" is UTC.
	TimeZone string
}

// Validate reports what is wrong with the Config.
func (c Config) Validate() error {
	if c.ServerRoot != "" && !path.IsAbs(c.ServerRoot) {
		return postern.Errorf(postern.Invalid, "server root %q is not an absolute path", c.ServerRoot)
	}
	if strings.ContainsAny(c.PHP, " \t\r\n{}`\"") {
		return postern.Errorf(postern.Invalid, "%q is no address of a FastCGI server", c.PHP)
	}
	return nil
}

func (c Config) php() string {
	if c.PHP != "" {
		return c.PHP
	}
	return "unix//run/php/php-fpm.sock"
}

// DebianDefines returns what Debian's /etc/apache2/envvars sets, for Config.Defines.
func DebianDefines() map[string]string {
	return map[string]string{"APACHE_LOG_DIR": "/var/log/apache2", "APACHE_RUN_DIR": "/var/run/apache2"}
}

// Define takes NAME=VALUE, or a name without a value, as set by Define.
func (c *Config) Define(text string) error {
	if c.Defines == nil {
		c.Defines = map[string]string{}
	}
	name, value, _ := strings.Cut(text, "=")
	c.Defines[name] = value
	return nil
}

// Result is what an Apache configuration turned into.
type Result struct {
	Caddyfile string   `json:"caddyfile"`
	Notes     []Note   `json:"notes"`             // by file and line
	Bundles   []Bundle `json:"bundles,omitempty"` // files that the Caddyfile names and that have to be made
}

// Bundle is a file that is others put one behind the other.
type Bundle struct {
	Name  string   `json:"name"`
	Parts []string `json:"parts"`
}

type converter struct {
	cfg      Config
	fsys     fs.FS
	name     string // of the file that is converted
	root     string
	notes    notes
	out      strings.Builder
	site     *site
	matchers int
	bundles  []Bundle
	inherits bool         // hosts take the main server's RewriteRules
	env      []*Directive // the SetEnvIf lines of the place that is looked at
}

// Convert reads the configuration in the named file, with all that it
// includes. The name is absolute, or relative to the working directory when FS
// is nil. A file that cannot be read or parsed is an error; what has no match
// is a note.
func Convert(cfg Config, name string) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &converter{cfg: cfg, fsys: cfg.FS}
	if c.fsys == nil {
		abs, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		c.fsys, name = rootFS{}, filepath.ToSlash(abs)
	}
	c.name, c.root = name, cfg.ServerRoot
	if c.root == "" {
		c.root = path.Dir(name)
	}
	p := &parser{fsys: c.fsys, root: c.root, defines: map[string]string{}, notes: &c.notes}
	for k, v := range cfg.Defines {
		p.defines[k] = v
	}
	all, err := p.parseFile(name, 0)
	if err != nil {
		code := postern.Invalid
		if errors.Is(err, fs.ErrNotExist) {
			code = postern.NotFound
		}
		return nil, postern.Errorf(code, "%w", err)
	}
	c.root = p.root
	sites := c.sites(all)
	for _, s := range sites {
		c.site = s
		c.htaccess(s, p)
		s.guards = c.guards(s)
	}
	c.guardPlain(sites)
	for i, s := range sites {
		if i > 0 {
			c.out.WriteString("\n")
		}
		c.emit(s)
	}
	return &Result{Caddyfile: c.out.String(), Notes: c.notes.sorted(), Bundles: c.bundles}, nil
}

// rootFS is the host's own file system. It follows links, which os.DirFS does
// too; unlike it, it is rooted at / on every host.
type rootFS struct{}

func (rootFS) Open(name string) (fs.File, error) { return os.Open("/" + name) }

// readFile reads a small file that a condition names with file().
func (c *converter) readFile(name string) (string, error) {
	info, err := fs.Stat(c.fsys, fsName(c.path(name)))
	if err != nil {
		return "", err
	}
	if info.Size() > maxPattern {
		return "", fmt.Errorf("larger than %d KiB", maxPattern>>10)
	}
	text, err := fs.ReadFile(c.fsys, fsName(c.path(name)))
	return string(text), err
}

// Package hostconf reads a host's files as sshd, libpam and the ForceCommand
// script read them: sshd_config(5), pam.conf(5) and /etc/yubikey_shell. It judges
// nothing and changes nothing.
package hostconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// ConfigError says that sshd's configuration cannot be read.
func ConfigError(err error) error {
	code := postern.Internal
	switch {
	case errors.Is(err, fs.ErrNotExist):
		code = postern.NotFound
	case errors.Is(err, fs.ErrPermission):
		code = postern.Denied
	}
	return postern.Errorf(code, "sshd's configuration: %w", err)
}

// Line is where something is written.
type Line struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0 means the file as a whole
	Text string `json:"text,omitempty"`
}

func (l Line) String() string {
	switch {
	case l.Line == 0 && l.Text == "":
		return l.File
	case l.Line == 0:
		return l.File + ": " + l.Text
	case l.Text == "":
		return fmt.Sprintf("%s:%d", l.File, l.Line)
	}
	return fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Text)
}

// Bounds on what a configuration may make us read.
const (
	includeDepth  = 16   // sshd's SERVCONF_MAX_DEPTH, libpam's PAM_SUBSTACK_MAX_LEVEL
	includesMax   = 1000 // files that sshd's configuration includes, each time counted
	directivesMax = 10000
	fileMax       = 1 << 20
)

// Files reads a host's files: this one's, or, below another root than /, those of an
// image or of a test. There every name, and every symbolic link, is resolved below
// Root.
type Files struct{ Root string }

// Path returns where a file of the host is, if no symbolic link leads elsewhere.
func (h Files) Path(file string) string { return filepath.Join(h.Root, file) }

// Open opens a file of the host for reading.
func (h Files) Open(file string) (*os.File, error) {
	if h.Root == "" {
		return os.Open(file)
	}
	return system.OpenInRoot(h.Root, file)
}

// Stat says what a file of the host is.
func (h Files) Stat(file string) (os.FileInfo, error) {
	if h.Root == "" {
		return os.Stat(file)
	}
	return system.StatInRoot(h.Root, file)
}

// Read returns the content of an ordinary file of at most 1 MB.
func (h Files) Read(file string) ([]byte, error) {
	st, err := h.Stat(file) // before it is opened, which a device may answer to
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > fileMax {
		return nil, fmt.Errorf("%s is no ordinary file of at most %d bytes", file, fileMax)
	}
	f, err := h.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err == nil && len(b) > fileMax {
		err = fmt.Errorf("%s has more than %d bytes", file, fileMax)
	}
	return b, err
}

// Glob returns the names that a pattern matches, as glob(3) finds them.
func (h Files) Glob(pattern string) []string {
	pattern = strings.ReplaceAll(pattern, "[!", "[^")
	found, _ := fs.Glob(below{h}, strings.TrimLeft(pattern, "/"))
	found = slices.DeleteFunc(found, func(f string) bool { return hidden(f) && !hidden(pattern) })
	for i := range found {
		found[i] = "/" + found[i]
	}
	return found
}

func hidden(file string) bool { return strings.HasPrefix(filepath.Base(file), ".") }

// below is the host's files as a file system.
type below struct{ Files }

func (b below) Open(name string) (fs.File, error) { return b.Files.Open("/" + name) }

func (b below) Stat(name string) (fs.FileInfo, error) { return b.Files.Stat("/" + name) }

// sshd, its configuration, and the part of it that is ours.
const (
	Program    = "/usr/sbin/sshd"
	ConfigFile = "/etc/ssh/sshd_config"
	DropIn     = "/etc/ssh/sshd_config.d/00-postern.conf"
)

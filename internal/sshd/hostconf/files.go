// Package hostconf reads a host's files as sshd, libpam and the ForceCommand
// script read them: sshd_config(5), pam.conf(5) and /etc/yubikey_shell. It judges
// nothing and changes nothing.
package hostconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
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
	}
	return fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Text)
}

// Bounds on what a configuration may make us read.
const (
	includeDepth  = 16
	directivesMax = 10000
	fileMax       = 1 << 20
)

// Files reads a host's files, below another root than / in tests and
// images.
type Files struct{ Root string }

// Path returns where a file of the host is.
func (h Files) Path(file string) string {
	if h.Root == "" || strings.HasPrefix(file, h.Root+"/") {
		return file
	}
	return filepath.Join(h.Root, file)
}

// Shown is the file's name on the host.
func (h Files) Shown(file string) string {
	if h.Root == "" {
		return file
	}
	return strings.TrimPrefix(file, h.Root)
}

func (h Files) Read(file string) ([]byte, error) {
	path := h.Path(file)
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > fileMax {
		return nil, fmt.Errorf("%s is no ordinary file of at most %d bytes", file, fileMax)
	}
	return os.ReadFile(path)
}

// sshd, its configuration, and the part of it that is ours.
const (
	Program    = "/usr/sbin/sshd"
	ConfigFile = "/etc/ssh/sshd_config"
	DropIn     = "/etc/ssh/sshd_config.d/00-postern.conf"
)

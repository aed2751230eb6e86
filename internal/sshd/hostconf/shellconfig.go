package hostconf

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
)

// ShellConfig is what /etc/yubikey_shell says: the assignments that the
// ForceCommand script of old read with "source". The zero value is the file's
// absence.
type ShellConfig struct {
	APIID       int64  // YUBICO_API_ID; 0: not set
	Debug       bool   // DEBUG=1
	TrustedKeys string // TRUSTED_KEYS_FILE; empty means /etc/yubikey_mappings
	URL         string // YUBICO_API_URL; ours: the validation service, https, or http on this host
	APIKey      string // YUBICO_API_KEY; ours: base64, to check the service's answers with
}

// ReadShellConfig reads the file, or returns the zero value if there is none. Only root
// may be able to write it.
func ReadShellConfig(path string) (ShellConfig, error) {
	b, err := ReadTrusted(path)
	if errors.Is(err, os.ErrNotExist) {
		return ShellConfig{}, nil
	}
	if err != nil {
		return ShellConfig{}, err
	}
	return ParseShellConfig(b)
}

// ParseShellConfig reads the assignments. Nothing is executed: a line that is
// no plain assignment is an error.
func ParseShellConfig(b []byte) (ShellConfig, error) {
	var c ShellConfig
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		value, plain := unquote(value)
		if !ok || !plain {
			return c, postern.Errorf(postern.Invalid, "%s: %q is no plain assignment", ShellConfigFile, name)
		}
		var err error
		switch name {
		case "YUBICO_API_ID":
			c.APIID, err = strconv.ParseInt(value, 10, 64)
		case "DEBUG":
			c.Debug = value == "1"
		case "TRUSTED_KEYS_FILE":
			c.TrustedKeys = value
		case "YUBICO_API_URL":
			c.URL = value
		case "YUBICO_API_KEY":
			c.APIKey = value
		}
		if err != nil || c.APIID < 0 {
			return c, postern.Errorf(postern.Invalid, "%s: %s is not a number", ShellConfigFile, name)
		}
	}
	return c, nil
}

// unquote undoes the shell's quotes around a whole word, and reports whether it
// was one without expansions.
func unquote(s string) (string, bool) {
	s, comment, _ := strings.Cut(s, " #")
	_ = comment
	s = strings.TrimSpace(s)
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	return s, !strings.ContainsAny(s, "\"'`$\\;&|<> \t")
}

// ReadTrusted reads a file that only root can change.
func ReadTrusted(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner, _, ok := system.Owner(st)
	if !ok || owner != 0 || !st.Mode().IsRegular() || st.Mode().Perm()&0o022 != 0 || st.Size() > fileMax {
		return nil, postern.Errorf(postern.Denied, "%s is not a file that only root can change", path).
			WithHint("chown root %s; chmod go-w %s", path, path)
	}
	return io.ReadAll(io.LimitReader(f, fileMax))
}

// The write-up's files.
const (
	ShellConfigFile = "/etc/yubikey_shell"
	MappingsFile    = "/etc/yubikey_mappings"
)

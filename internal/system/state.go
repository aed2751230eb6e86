package system

import (
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
)

// StateDir returns the state directory: the one that is named, else $POSTERN_STATE,
// else /var/lib/postern for root, else $XDG_STATE_HOME/postern, else
// ~/.local/state/postern.
func StateDir(named string) (string, error) {
	for _, dir := range []string{named, os.Getenv("POSTERN_STATE")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	if os.Geteuid() == 0 {
		return "/var/lib/postern", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "postern"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", postern.Errorf(postern.Invalid, "no state directory: %w", err).WithHint("name one")
	}
	return filepath.Join(home, ".local", "state", "postern"), nil
}

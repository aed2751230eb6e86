package main

import (
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
)

// stateDir returns the state directory: --state, else $POSTERN_STATE, else
// /var/lib/postern for root, else $XDG_STATE_HOME/postern, else
// ~/.local/state/postern.
func (a *app) stateDir() (string, error) {
	for _, dir := range []string{a.state, os.Getenv("POSTERN_STATE")} {
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
		return "", postern.Errorf(postern.Invalid, "no state directory: %w", err).WithHint("give one with --state")
	}
	return filepath.Join(home, ".local", "state", "postern"), nil
}

//go:build noserver

package cli

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/spf13/cobra"
)

// This is the command for hosts and computers that run no server: it has no commands
// that work on a server's state, and what others could do there fails.

func serverCommands(*app) []*cobra.Command { return nil }
func otpCommands(*app) []*cobra.Command    { return nil }
func sshCommands(*app) []*cobra.Command    { return nil }
func logCommands(*app) []*cobra.Command    { return nil }

var hints []errorHint

func (a *app) whereToLook(context.Context, error) string { return "" }

// onServer is the error of what needs a server's state.
func onServer(what string) error {
	return postern.Errorf(postern.Unavailable, "this program cannot %s, since it is the one without a server", what).
		WithHint("do it on the server, or install the package postern")
}

func (a *app) otpVerify(context.Context, otpVerifyOptions, string) error {
	return postern.Errorf(postern.Invalid, "this program checks a code by a validation service alone").
		WithHint("name the service with --url and --key-file")
}

func (a *app) logVerify(context.Context, *logVerifyOptions) error {
	return postern.Errorf(postern.Invalid, "this program checks a proof alone, no timeline").
		WithHint("give --proof and --key, or verify the timeline on the server")
}

func (a *app) auditState(*audit.Auditor) {}

func (a *app) recordAudit(context.Context, *audit.Report) error {
	return onServer("record on the timeline")
}

func (a *app) userCAFiles(context.Context, *setup.Setup) error {
	return postern.Errorf(postern.Invalid, "which CA certificates are trusted is not known on this host").
		WithHint("give --user-ca FILE, and --krl FILE")
}

func (a *app) hasFactor(context.Context, string) (bool, error) {
	return false, onServer("tell who has a second factor")
}

// Package login is what postern ssh config and postern ssh shell do on a host whose
// logins need a code: it puts the configuration of sshd and PAM in place, and it asks
// for the code as a ForceCommand.
package login

import (
	"context"
	"errors"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/sshd/socket"
)

// Config puts a setup of sshd and PAM in place on this host, unless it would lock
// out who does so or leave a way in with one factor.
type Config struct {
	Setup  setup.Setup
	User   string        // who does this, and must be able to log in afterwards
	Within time.Duration // that a new login may take to confirm
	Force  bool          // whatever the warnings say

	Locked func(error)         // gets each reason why User might not be able to log in any more
	Open   func(audit.Finding) // gets each way in that still needs one factor
	// HasFactor reports whether an account's person has anything to make a code with;
	// nil, and an error, mean that this is not known here.
	HasFactor func(ctx context.Context, account string) (bool, error)
	// Wait leaves a process behind that puts back what the backup directory dir
	// holds, unless a new login confirms in time.
	Wait func(dir string) error
}

// Apply puts the files in place and returns the directory with what they replaced.
// When it returns, sshd serves the new configuration. Denied, with everything as it
// was, after a warning without Force.
func (c Config) Apply(ctx context.Context, files []setup.File) (dir string, err error) {
	reasons := c.lockOut(ctx)
	for _, reason := range reasons {
		c.Locked(reason)
	}
	if len(reasons) > 0 && !c.Force {
		return "", refusedSetup("this may lock you out; nothing was changed")
	}
	if !(setup.Service{}).Runs(ctx) {
		return "", postern.Errorf(postern.Unavailable, "sshd does not run").WithHint("start sshd first")
	}
	applier := setup.ThisHost()
	applier.Check = c.check
	if dir, err = applier.Apply(ctx, files, c.Within); err != nil {
		return "", err
	}
	if err := c.Wait(dir); err != nil {
		return "", errors.Join(err, applier.RollBack(ctx, dir))
	}
	return dir, nil
}

func refusedSetup(why string) error {
	return postern.Errorf(postern.Denied, "%s", why).WithHint("fix what the warnings say, or apply it by force")
}

// check asks sshd about the files that are in place, and looks for ways in that they
// leave open with fewer than two factors.
func (c Config) check(ctx context.Context) error {
	if err := (setup.Service{}).Test(ctx); err != nil {
		return postern.Errorf(postern.Invalid, "the new configuration was not put in place: %w", err).WithHint("%s",
			postern.HintOf(err))
	}
	report, err := audit.Auditor{}.Audit(ctx)
	if err != nil {
		return err
	}
	open := report.Open()
	for _, f := range open {
		c.Open(f)
	}
	if len(open) > 0 && !c.Force {
		return refusedSetup("people could still log in with one factor; nothing was changed")
	}
	return nil
}

// lockOut returns why the user might not be able to log in again.
func (c Config) lockOut(ctx context.Context) []error {
	reasons, asked := c.Setup.LockOut(c.User)
	if !asked {
		return reasons
	}
	if module, ok := c.Setup.ModuleInstalled(); !ok {
		reasons = append(reasons, postern.Errorf(postern.NotFound, "%s is not installed",
			module).WithHint("install the package libpam-postern"))
	}
	if err := c.refusesCodes(ctx); err != nil {
		reasons = append(reasons, err)
	}
	return reasons
}

// refusesCodes returns why no code of the user's would be accepted, nil if one may be.
func (c Config) refusesCodes(ctx context.Context) error {
	path := c.Setup.Socket
	if path == "" {
		path = sshd.DefaultSocket
	}
	v, err := socket.AskDaemon(ctx, path, socket.Question{
		Ask: socket.AskAccount, User: c.User,
		Service: "postern-config",
	})
	switch {
	case err != nil:
		return err
	case v == socket.NoFactor:
		return postern.Errorf(postern.NotFound, "Postern knows no person for the account %s",
			c.User).WithHint("add the person")
	case v != socket.Yes:
		return postern.Errorf(postern.Denied, "Postern refuses %s", c.User)
	}
	if c.HasFactor == nil {
		return nil
	}
	if has, err := c.HasFactor(ctx, c.User); err == nil && !has {
		return postern.Errorf(postern.NotFound, "%s has nothing to make a code with",
			c.User).WithHint("give the person a key or an authenticator")
	}
	return nil
}

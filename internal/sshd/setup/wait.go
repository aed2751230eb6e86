package setup

import (
	"context"
	"time"

	"github.com/postern-project/postern"
)

// BackupDir is where this host keeps what a setup replaced.
const BackupDir = "/var/lib/postern/ssh-backup"

// retryAfter is how long after a failed roll-back the next is tried.
const retryAfter = 30 * time.Second

// ThisHost puts setups in place on this host.
func ThisHost() Applier {
	var sshd Service
	return Applier{Dir: BackupDir, Test: sshd.Test, Reload: sshd.Reload}
}

// RollBackAfter puts back what the backup directory dir holds, once the time is over
// or ctx ends, unless it was confirmed. A roll-back that fails is reported and tried
// again until ctx ends; with a time of 0 its error is returned at once.
func (a Applier) RollBackAfter(ctx context.Context, dir string, within time.Duration,
	report func(error, time.Duration),
) error {
	select {
	case <-ctx.Done():
	case <-time.After(within):
	}
	if a.Confirmed(dir) {
		return nil
	}
	for {
		err := a.RollBack(context.WithoutCancel(ctx), dir)
		if err == nil || within == 0 || postern.CodeOf(err) == postern.Conflict {
			return err
		}
		report(err, retryAfter)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryAfter):
		}
	}
}

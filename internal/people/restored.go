package people

import (
	"context"
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
)

// Restored says how to go on with a database that was restored from a backup.
type Restored struct {
	Trust bool // nothing is disabled: no code was used since the backup
	Force bool // although nothing shows that it was restored, as when the whole state directory was
}

// Accept goes on with the database. Unless it is trusted, it disables what may have
// been used since the backup (store.OTP.DisableAll), and returns how much. Conflict
// if the database does not look restored.
func (r Restored) Accept(ctx context.Context, st *state.State) (disabled int, err error) {
	switch _, err := st.CheckRestored(ctx); {
	case err == nil && !r.Force:
		return 0, postern.Errorf(postern.Conflict, "the database is not older than what was seen of it")
	case err != nil && !errors.Is(err, state.ErrRestored):
		return 0, err
	}
	if !r.Trust {
		if disabled, err = st.Store.OTP().DisableAll(ctx); err != nil {
			return 0, err
		}
	}
	entry := ByHand(postern.Event{Kind: postern.EventOTPRestored, Count: int64(disabled)})
	if err := st.Store.Append(ctx, entry); err != nil {
		return disabled, err
	}
	return disabled, st.AcceptRestored()
}

package people

import (
	"context"
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
)

// Restored says how to go on with a database that was restored from a backup.
type Restored struct {
	Trust bool // nothing is disabled: no code was used since the backup
	Force bool // although nothing shows that it was restored, as when the whole machine was
}

// Accept goes on with the database. Unless it is trusted, it disables what may have
// been used since the backup, and returns how much. Conflict if the database does not
// look restored.
func (r Restored) Accept(ctx context.Context, st *state.State) (off store.Disabled, err error) {
	switch err := st.CheckRestored(ctx); {
	case err == nil && !r.Force:
		return off, postern.Errorf(postern.Conflict, "the database is not older than what was seen of it")
	case err != nil && !errors.Is(err, state.ErrRestored):
		return off, err
	}
	return st.AcceptRestored(ctx, r.Trust, ByHand(postern.Event{Kind: postern.EventOTPRestored}))
}

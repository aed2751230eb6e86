package people_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
)

func TestRestored(t *testing.T) {
	for name, c := range map[string]struct {
		older    bool // the database
		restored people.Restored
		code     postern.Code
		disabled int
	}{
		"not restored":      {code: postern.Conflict},
		"restored":          {older: true, disabled: 1},
		"trusted":           {older: true, restored: people.Restored{Trust: true}},
		"the whole machine": {restored: people.Restored{Force: true}, disabled: 1},
	} {
		t.Run(name, func(t *testing.T) {
			st, key := stateWithKey(t)
			if c.older {
				st = putBack(t, st)
			}
			must(t, os.WriteFile(st.Path(state.CheckpointFile), []byte("of before"), 0o600))
			disabled, err := c.restored.Accept(t.Context(), st)
			if disabled.Keys != c.disabled || (err == nil) != (c.code == 0) ||
				err != nil && postern.CodeOf(err) != c.code {
				t.Fatalf("%+v, %v", disabled, err)
			}
			got, kerr := st.Store.OTP().Key(t.Context(), key)
			must(t, kerr)
			if (got.Status == postern.CredentialDisabled) != (c.disabled > 0) {
				t.Errorf("the key is %s", got.Status)
			}
			accepted(t, st, err == nil)
		})
	}
}

// stateWithKey makes a state with one YubiKey.
func stateWithKey(t *testing.T) (st *state.State, publicID string) {
	t.Helper()
	st, err := state.Create(t.Context(), t.TempDir())
	must(t, err)
	t.Cleanup(func() { st.Close() })
	key, err := otp.NewKey("")
	must(t, err)
	must(t, st.Store.OTP().AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false))
	must(t, st.Store.Append(t.Context(), postern.Event{Kind: "test"}))
	return st, key.PublicID
}

// putBack uses the state, and puts the whole state directory back as it was before.
func putBack(t *testing.T, st *state.State) *state.State {
	t.Helper()
	must(t, st.Close())
	before := filepath.Join(t.TempDir(), "before")
	must(t, os.CopyFS(before, os.DirFS(st.Dir)))
	st, err := state.Open(t.Context(), st.Dir)
	must(t, err)
	must(t, st.Store.Append(t.Context(), postern.Event{Kind: "test"}))
	must(t, st.Close())
	must(t, os.RemoveAll(st.Dir))
	must(t, os.CopyFS(st.Dir, os.DirFS(before)))
	must(t, os.Chmod(st.Path("kek"), 0o600))
	st, err = state.Open(t.Context(), st.Dir)
	must(t, err)
	t.Cleanup(func() { st.Close() })
	return st
}

// accepted checks what is left of the time before the restore.
func accepted(t *testing.T, st *state.State, yes bool) {
	t.Helper()
	events, err := st.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventOTPRestored, Limit: 10})
	must(t, err)
	if (len(events) == 1) != yes {
		t.Errorf("the timeline says %+v", events)
	}
	if _, err := os.Stat(st.Path(state.CheckpointFile)); errors.Is(err, fs.ErrNotExist) != yes {
		t.Errorf("the checkpoint of before: %v", err)
	}
	if err := st.CheckRestored(t.Context()); err != nil {
		t.Error(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

package state

import (
	"context"

	"github.com/postern-project/postern/internal/durable"
)

// NewLogKey makes the next signing key of the timeline, as [store.Timeline.NewLogKey] does,
// and writes the file of its public keys.
func (s *State) NewLogKey(ctx context.Context) (public string, err error) {
	if public, err = s.Store.Timeline().NewLogKey(ctx); err != nil {
		return "", err
	}
	return public, s.writeLogKeys()
}

// RetireLogKey ends the use of the older of two signing keys of the timeline.
func (s *State) RetireLogKey(ctx context.Context) error {
	if err := s.Store.Timeline().RetireLogKey(ctx); err != nil {
		return err
	}
	return s.writeLogKeys()
}

func (s *State) writeLogKeys() error {
	return durable.Replace(s.Path(verifierFile), []byte(s.Store.Timeline().LogVerifier()+"\n"), 0o644)
}

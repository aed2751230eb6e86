package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// VerifyLog verifies the timeline as [timeline.Verify] does, also against the
// checkpoint that the last verification kept. If there is no problem it keeps this
// one's, where the state directory can be written.
func (s *State) VerifyLog(ctx context.Context, earlier ...string) (timeline.Report, error) {
	kept, err := s.verified()
	if err != nil {
		return timeline.Report{}, err
	}
	if kept != "" {
		earlier = append(earlier, kept)
	}
	report, err := s.Store.Timeline().VerifyLog(ctx, earlier...)
	if err != nil {
		return report, err
	}
	return report, s.keepVerified(report)
}

// VerifyRecent verifies what has come to the timeline since VerifyLog did, as
// [timeline.VerifySince] does; all of it if there was no verification. It keeps nothing.
func (s *State) VerifyRecent(ctx context.Context) (timeline.Report, error) {
	kept, err := s.verified()
	if err != nil {
		return timeline.Report{}, err
	}
	if kept == "" {
		return s.Store.Timeline().VerifyLog(ctx)
	}
	return s.Store.Timeline().VerifyLogSince(ctx, kept)
}

// Verified returns when VerifyLog found no problem last; zero if it never did.
func (s *State) Verified() time.Time {
	info, err := os.Stat(s.Path(CheckpointFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// verified returns the checkpoint that the last verification kept, "" if there was none.
func (s *State) verified() (string, error) {
	kept, err := os.ReadFile(s.Path(CheckpointFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", postern.Errorf(postern.Unavailable, "read the checkpoint of the last verification: %w", err)
	}
	return string(kept), nil
}

// keepVerified keeps the checkpoint of a verification that found no problem.
func (s *State) keepVerified(report timeline.Report) error {
	if len(report.Problems) > 0 {
		return nil
	}
	err := s.Replace(CheckpointFile, []byte(report.Checkpoint), 0o644)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return postern.Errorf(postern.Unavailable, "keep the checkpoint: %w", err)
	}
	return nil
}

package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// VerifyLog verifies the timeline as [timeline.Verify] does, also against the
// checkpoint that the last verification kept. If there is no problem it keeps this
// one's, where the state directory can be written.
func (s *State) VerifyLog(ctx context.Context, earlier ...string) (timeline.Report, error) {
	kept, err := os.ReadFile(s.Path(CheckpointFile))
	switch {
	case err == nil:
		earlier = append(earlier, string(kept))
	case !errors.Is(err, fs.ErrNotExist):
		return timeline.Report{}, postern.Errorf(postern.Unavailable,
			"read the checkpoint of the last verification: %w", err)
	}
	report, err := s.Store.Timeline().VerifyLog(ctx, earlier...)
	if err != nil || len(report.Problems) > 0 {
		return report, err
	}
	err = s.Replace(CheckpointFile, []byte(report.Checkpoint), 0o644)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return report, postern.Errorf(postern.Unavailable, "keep the checkpoint: %w", err)
	}
	return report, nil
}

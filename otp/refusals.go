package otp

import (
	"log/slog"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/coalesce"
)

// refusals returns a writer that coalesces refusals on the timeline, separately for each
// API client.
func refusals(log Log, logger *slog.Logger) *coalesce.Writer {
	return coalesce.Start(coalesce.Config{
		Append: log.Append,
		Also:   func(e postern.Event) string { return e.Details["client"] },
		Failed: func(err error) {
			logger.Error("refused one-time passwords are not on the timeline yet", slog.Any(postern.LogError, err))
		},
	})
}

package terminal

import (
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Moment is a flag's point in time, a pflag.Value: 2026-01-02, 2026-01-02T03:04:05Z, or
// how long ago it was: 90m, 12h, 7d.
type Moment time.Time

var momentLayouts = []string{
	time.RFC3339, TimeLayout, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly,
}

// Set implements pflag.Value. A time without a zone is of this host's.
func (m *Moment) Set(text string) error {
	t, ok := parseMoment(text, time.Now())
	if !ok {
		return postern.Errorf(postern.Invalid, "%q is not a time", text).
			WithHint("for example: 2026-01-02, 2026-01-02T03:04:05Z, 90m, 12h, 7d")
	}
	*m = Moment(t)
	return nil
}

func parseMoment(text string, now time.Time) (t time.Time, ok bool) {
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100000 {
			return now.AddDate(0, 0, -n), true
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), true
	}
	for _, layout := range momentLayouts {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, true
		}
	}
	return t, false
}

// String implements pflag.Value; "" is no time.
func (m *Moment) String() string { return Time(time.Time(*m)) }

// Type implements pflag.Value.
func (*Moment) Type() string { return "time" }

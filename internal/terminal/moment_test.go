package terminal

import (
	"testing"
	"time"

	"github.com/postern-project/postern"
)

func TestMoments(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"2026-01-02":                time.Date(2026, 1, 2, 0, 0, 0, 0, time.Local),
		"2026-01-02T03:04:05Z":      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05+02:00": time.Date(2026, 1, 2, 1, 4, 5, 0, time.UTC),
		"2026-01-02 03:04:05Z":      time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02 03:04:05":       time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local),
		"2026-01-02 03:04":          time.Date(2026, 1, 2, 3, 4, 0, 0, time.Local),
		"90m":                       now.Add(-90 * time.Minute),
		"12h":                       now.Add(-12 * time.Hour),
		"7d":                        now.AddDate(0, 0, -7),
		"0s":                        now,
	} {
		t.Run(text, func(t *testing.T) {
			got, ok := parseMoment(text, now)
			if !ok || !got.Equal(want) {
				t.Errorf("got %v, want %v", got, want)
			}
			m := Moment(got)
			if again, ok := parseMoment(m.String(), now); !ok || !again.Equal(got) {
				t.Errorf("it is shown as %q, which is %v", m.String(), again)
			}
		})
	}
}

func TestWhatIsNoMoment(t *testing.T) {
	for _, text := range []string{"", "yesterday", "-1d", "-1h", "1e9d", "2026-13-01", "12", "2026-01-02T03:04:05X"} {
		t.Run(text, func(t *testing.T) {
			var m Moment
			if err := m.Set(text); postern.CodeOf(err) != postern.Invalid || postern.HintOf(err) == "" {
				t.Errorf("%v", err)
			}
			if m.String() != "" {
				t.Errorf("it became %s", m.String())
			}
		})
	}
}

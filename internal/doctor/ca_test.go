package doctor

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
)

// TestWhatEndsIsNamed looks at an authority at moments of its life.
func TestWhatEndsIsNamed(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start
	st, err := state.Create(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	cfg := ca.Config{Now: func() time.Time { return now }}
	authority, err := ca.Init(t.Context(), cfg, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	problems := func(years float64) string {
		t.Helper()
		now = start.Add(time.Duration(years * 365 * 24 * float64(time.Hour)))
		d := &examiner{Host: Host{CA: cfg}, now: now}
		d.authority(t.Context(), st)
		var list []string
		for _, f := range d.Findings {
			if !f.Advice {
				list = append(list, f.Problem)
			}
		}
		return strings.Join(list, "; ")
	}
	if got := problems(5); got != "" {
		t.Errorf("in the middle: %s", got)
	}
	if got := problems(9.9); !strings.Contains(got, "the server CA ends on 2035-12-30") ||
		strings.Contains(got, "root") {
		t.Errorf("before the intermediates end: %s", got)
	}
	if _, err := authority.RenewIntermediates(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := problems(9.9); got != "" {
		t.Errorf("after they are renewed: %s", got)
	}
	now = start.AddDate(18, 0, 0)
	if _, err := authority.RenewIntermediates(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := problems(19.9); !strings.Contains(got, "the root ends on 2045-12-27") ||
		strings.Contains(got, "server CA") || strings.Contains(got, "client CA") {
		t.Errorf("before the root ends: %s", got)
	}
	if _, err := authority.NewRoot(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := problems(19.9); got != "" {
		t.Errorf("after a root has followed: %s", got)
	}
}

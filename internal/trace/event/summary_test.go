package event

import "testing"

func TestSummariesCount(t *testing.T) {
	loss := []Loss{{PID: 815, Probe: "a", Lost: 2}, {PID: 815, Probe: "b", Lost: 1}}
	for want, s := range map[string]Summary{
		"0 events seen, none lost": {}, "1 event seen, none lost": {Seen: 1},
		"2 events seen, 3 lost": {Seen: 2, Losses: loss},
	} {
		t.Run(want, func(t *testing.T) {
			if got := s.String(); got != want {
				t.Errorf("got %q", got)
			}
		})
	}
}

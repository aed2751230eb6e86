package agent

import (
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/capture"
)

// fly adds the flight recorder to a session and to its sink, and returns what ends it.
func (c Config) fly(cfg *capture.Config, seen *calls) (closeFlight func() error, err error) {
	if c.Flight == nil {
		return func() error { return nil }, nil
	}
	f := *c.Flight
	f.Kept = func(file, reason string) { seen.emit(recorded(c.Host, file, reason, postern.OK)) }
	f.Failed = func(file string, err error) { seen.emit(recorded(c.Host, file, err.Error(), postern.Failed)) }
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	cfg.What |= capture.Monitor
	cfg.Record, cfg.Queue, seen.idle = r, true, r.Idle
	return r.Close, nil
}

// recorded reports a recording.
func recorded(host, file, reason string, outcome postern.Outcome) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: postern.EventAgentRecorded, Outcome: outcome, Host: host, Object: file,
		Reason: reason[:min(len(reason), maxReason)],
	}
}

package inflight

import (
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/qmp"
)

func clientOf(p *event.Peer) *Client {
	c := &Client{
		PID: p.PID, User: p.User, Start: p.Start, Session: p.Session, Command: format.MaskCommand(p.Command),
		TLSName: p.TLSName, SASLName: p.SASLName, SELinux: p.SELinux, Via: p.Via,
	}
	if p.PID != 0 && p.UID >= 0 {
		c.UID = &p.UID
	}
	if p.PID == 0 {
		c.Remote = p.Remote
	}
	return c
}

// String names the client as the lines of traces do.
func (c *Client) String() string {
	if c == nil {
		return "-"
	}
	p := event.Peer{
		PID: c.PID, UID: -1, User: c.User, Command: c.Command, Remote: c.Remote, TLSName: c.TLSName,
		SASLName: c.SASLName,
	}
	if c.UID != nil {
		p.UID = *c.UID
	}
	return string(format.Client(nil, &p))
}

// set takes a monitor's command.
func (w *Wait) set(text string) {
	m := qmp.Parse([]byte(text))
	w.ID = string(m.ID[:min(len(m.ID), 256)])
	if w.ID == "" {
		w.ID = string(qmp.TailID([]byte(text)))
	}
	w.Command = string(m.Name[:min(len(m.Name), 256)])
}

package server

import (
	"context"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/rescue"
)

// RescueCodes makes n codes with which people log in to a host while no server answers, in
// the place of those that it has, and returns them: once.
func (d HostDirectory) RescueCodes(ctx context.Context, name string, n int) ([]string, error) {
	if n < 1 || n > rescue.MaxCodes {
		return nil, postern.Errorf(postern.Invalid, "a host has 1 to %d rescue codes", rescue.MaxCodes)
	}
	h, err := d.DB.Hosts().Host(ctx, name)
	if err != nil {
		return nil, err
	}
	if h.Status == postern.HostRemoved {
		return nil, postern.Errorf(postern.Conflict, "the host %s was removed", name).WithHint("add it again")
	}
	codes, set := rescue.New(n, time.Now())
	return codes, d.DB.Rescue().Replace(ctx, d.By, name, set, d.Event)
}

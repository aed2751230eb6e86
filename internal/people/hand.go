package people

import (
	"os/user"

	"github.com/postern-project/postern"
)

// ByHand adds to an event the user of this host who ran the command.
func ByHand(e postern.Event) postern.Event {
	if u, err := user.Current(); err == nil {
		e.Details = map[string]string{"by": u.Username}
	}
	return e
}

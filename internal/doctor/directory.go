package doctor

import (
	"context"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/directory"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
)

// directory reads the LDAP directory that the server takes people from, if there is one.
func (d *examiner) directory(ctx context.Context, st *state.State) {
	s, err := st.Store.Directory().State(ctx)
	if postern.CodeOf(err) == postern.NotFound {
		return
	}
	if err != nil {
		d.failed("directory", err, "")
		return
	}
	found, err := directory.Read(ctx, s.Config)
	switch {
	case err != nil && s.Synced.IsZero():
		d.failed("directory", err, "check that the directory can be reached")
		return
	case err != nil:
		d.failed("directory", err, "check that the directory can be reached; its people are suspended after "+
			s.Synced.Add(s.Config.Keep).Format(time.DateTime))
		return
	}
	d.ok("the directory %s has %s", s.Config.Name, terminal.Counted(len(found.People), "person"))
	if n := len(found.Skipped); n > 0 {
		d.advise("directory", "change the entries, or leave them out by a filter", "%s cannot be taken, as %s",
			terminal.Counted(n, "entry"), found.Skipped[0])
	}
	if s.Failed != "" {
		d.wrong("directory", "see the server's log", "the server cannot read the directory %s: %s", s.Config.Name,
			s.Failed)
	}
}

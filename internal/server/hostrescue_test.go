package server

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/rescue"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/timeline"
)

// TestRescueCodesOfAHost logs in to a host by its rescue codes: while its server answers
// none is accepted, while that is stopped each is once, and the timeline says so after.
func TestRescueCodesOfAHost(t *testing.T) {
	posterntest.NeedRoot(t)
	r := startForAgents(t)
	st := r.open()
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	r.awaitSite(r.opts.HTTPSPort, "localhost", authority.Root())
	giveToken(t, st, "alice")
	directory := NewHostDirectory(people.Directory{DB: st.Store, Authority: authority})
	_, to := joinHost(t, directory)
	codes, err := directory.RescueCodes(t.Context(), "hv1", 2)
	if err != nil {
		t.Fatal(err)
	}
	pam, spool := runAgent(t, "hv1", to)
	ask := func(kind socket.Ask, code string) socket.Verdict {
		v, err := socket.AskDaemon(t.Context(), pam, socket.Question{
			Ask: kind, User: "alice", Service: "sshd", Host: "192.0.2.7", Code: code,
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	kept := &rescue.File{Path: filepath.Join(spool, "rescue.json")}
	r.await(func() bool { return kept.ID() != "" })
	if got := ask(socket.AskCode, codes[0]); got != socket.No {
		t.Errorf("a rescue code with a server: verdict %d", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		code string
		want socket.Verdict
	}{
		{codes[0], socket.Yes},
		{codes[0], socket.No},
		{codes[0], socket.No},
		{codes[1], socket.Yes},
		{codes[1], socket.No},
	} {
		if got := ask(socket.AskCode, c.code); got != c.want {
			t.Errorf("question %d without a server: verdict %d, want %d", i, got, c.want)
		}
	}
	if got := ask(socket.AskAccount, ""); got != socket.Yes {
		t.Errorf("the account behind a rescue code: verdict %d", got)
	}
	r.start()
	var reported []postern.Event
	r.await(func() bool {
		events, err := st.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventSSHAuth})
		if err != nil {
			t.Fatal(err)
		}
		reported = slices.DeleteFunc(events, func(e postern.Event) bool { return e.Details["method"] != rescue.Method })
		return len(reported) == 2
	})
	for i, left := range []string{", 1 left", ", 0 left"} {
		e := reported[i]
		if e.Host != "hv1" || e.Object != "alice" || e.Outcome != postern.OK ||
			!strings.HasSuffix(e.Details["rescue"], left) {
			t.Errorf("the timeline has %+v", e)
		}
	}
}

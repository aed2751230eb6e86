package server

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
)

// meanwhile is a store that calls a function, once, before it answers.
type meanwhile struct {
	portal.Store
	what atomic.Pointer[func()]
}

func (m *meanwhile) f() {
	if what := m.what.Swap(nil); what != nil {
		(*what)()
	}
}

func (m *meanwhile) Count(ctx context.Context, key string, most int64, window time.Duration, now time.Time) (int64,
	error,
) {
	m.f()
	return m.Store.Count(ctx, key, most, window, now)
}

func (m *meanwhile) PutRecoveryCodes(ctx context.Context, by postern.Actor, person string, codes []portal.RecoveryCode,
	now time.Time, e postern.Event,
) error {
	m.f()
	return m.Store.PutRecoveryCodes(ctx, by, person, codes, now, e)
}

// meanwhileIssuing is an authority that does the same.
type meanwhileIssuing struct {
	portal.Authority
	*meanwhile
}

func (m meanwhileIssuing) IssueClient(ctx context.Context, by postern.Actor, person, label string, r portal.Request,
	e portal.Enrolment,
) (portal.Certificate, portal.Enrolled, error) {
	m.f()
	return m.Authority.IssueClient(ctx, by, person, label, r, e)
}

// TestARecoveryDuringARequest recovers a person between their identification and the
// write, in each form that grants access.
func TestARecoveryDuringARequest(t *testing.T) {
	rig := newPortalRig(t, nil)
	between := &meanwhile{Store: rig.Store}
	deps := rig.Deps
	deps.Store, deps.Authority = between, meanwhileIssuing{rig.Authority, between}
	p, err := portal.New(t.Context(), rig.Config, deps)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rig = &portalRig{
		Portal: p, db: rig.db, ca: rig.ca, mail: rig.mail,
		url: strings.Replace(l.Addr().String(), "127.0.0.1", "https://localhost", 1),
	}
	rig.serve(t, l)
	_, line, err := freshKey()
	if err != nil {
		t.Fatal(err)
	}
	_, csr := clientCSR(t)
	for i, form := range [][]string{
		{"/certificates/new", "label", "attacker's", "csr", string(csr)},
		{"/certificates/link"},
		{"/keys/ssh", "public_key", string(line)},
		{"/keys/acme", "label", "attacker's"},
		{"/recovery"},
	} {
		name := fmt.Sprintf("dan%d", i)
		dan := rig.enrolled(t, name)
		token := csrfRE.FindStringSubmatch(dan.get("/certificates/new").body)[1]
		who, _ := rig.db.People().Person(t.Context(), name)
		recovers := func() {
			if _, _, err := rig.Links.RecoverNow(t.Context(), postern.Actor{}, who,
				postern.Event{Kind: postern.EventPersonRecovered, Person: name}, false); err != nil {
				t.Error(err)
			}
		}
		between.what.Store(&recovers)
		dan.post(form[0], append(form[1:], "csrf", token)...).says(t, 403, "not valid any more")
	}
}

package portal_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

var begin = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var event = postern.Event{Kind: postern.EventPortalLink}

func opened(t *testing.T) (store.Portal, context.Context) {
	t.Helper()
	return storetest.Open(t).Portal(), t.Context()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLinkIsUsedByOne(t *testing.T) {
	s, ctx := opened(t)
	l := portal.Link{
		Hash: [32]byte{1}, Purpose: portal.Prove, Person: "dan", Created: begin,
		Expires: begin.Add(time.Hour),
	}
	m := &portal.Message{ID: "m1", To: "dan@example.com", Text: "secret token", Expires: begin.Add(time.Hour)}
	must(t, s.PutLink(ctx, postern.Actor{}, portal.Fresh{Link: l, Message: m, Event: event}))
	proof, err := s.Proof(ctx, "dan", "www.example.org", "v1")
	must(t, err)
	proof.Method = portal.ByMail
	if err := s.AnswerLink(ctx, postern.Actor{}, l.Hash, l.Expires, &proof, event); !errors.Is(err, portal.ErrLink) {
		t.Errorf("an expired link was used: %v", err)
	}
	if p, err := s.Proof(ctx, "dan", "www.example.org", ""); err != nil || p.Method != "" {
		t.Errorf("what an expired link would do was done: %+v %v", p, err)
	}
	if got, err := s.Link(ctx, l.Hash); err != nil || got != l {
		t.Errorf("the link reads %+v, %v", got, err)
	}
	var won atomic.Int64
	var g sync.WaitGroup
	for range 10 {
		g.Go(func() {
			switch err := s.AnswerLink(ctx, postern.Actor{}, l.Hash, begin.Add(time.Minute), &proof, event); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, portal.ErrLink):
				t.Error(err)
			}
		})
	}
	g.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 10 used one link", won.Load())
	}
	if _, err := s.Link(ctx, [32]byte{2}); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("a link that never was: %v", err)
	}
	must(t, s.ForgetExpired(ctx, l.Expires.Add(30*24*time.Hour)))
	if _, err := s.Link(ctx, l.Hash); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("a link long past: %v", err)
	}
}

func TestMessagesAreLeased(t *testing.T) {
	s, ctx := opened(t)
	for _, id := range []string{"a", "b"} {
		must(t, s.PutMessage(ctx, portal.Message{
			ID: id, To: id + "@example.com", Subject: "s", Text: "t",
			Expires: begin.Add(time.Hour),
		}))
	}
	first, err := s.DueMessages(ctx, begin, 1, time.Minute)
	must(t, err)
	second, err := s.DueMessages(ctx, begin, 5, time.Minute)
	must(t, err)
	if len(first) != 1 || len(second) != 1 || first[0].ID == second[0].ID {
		t.Fatalf("leased %v and %v", first, second)
	}
	if none, err := s.DueMessages(ctx, begin, 5, time.Minute); err != nil || len(none) != 0 {
		t.Errorf("leased twice: %v, %v", none, err)
	}
	must(t, s.DropMessage(ctx, first[0].ID))
	must(t, s.RetryMessage(ctx, second[0].ID, begin.Add(time.Hour)))
	again, err := s.DueMessages(ctx, begin.Add(time.Hour), 5, time.Minute)
	must(t, err)
	if len(again) != 1 || again[0].ID != second[0].ID || again[0].Tries != 1 || again[0].To != second[0].To {
		t.Errorf("due again: %+v", again)
	}
}

func TestCountsAreByWindow(t *testing.T) {
	s, ctx := opened(t)
	for i := int64(1); i <= 3; i++ {
		if n, err := s.Count(ctx, "k", 2, time.Hour, begin.Add(time.Duration(i)*time.Minute)); err != nil || n != i {
			t.Errorf("count %d: %d, %v", i, n, err)
		}
	}
	if n, err := s.Count(ctx, "k", 2, time.Hour, begin.Add(10*time.Minute)); err != nil || n != 3 {
		t.Errorf("above the most: %d, %v", n, err)
	}
	if n, err := s.Count(ctx, "k", 2, time.Hour, begin.Add(time.Hour)); err != nil || n != 1 {
		t.Errorf("in the next window: %d, %v", n, err)
	}
}

func TestRecoveryCodesAreSpentOnce(t *testing.T) {
	s, ctx := opened(t)
	for _, name := range []string{"dan", "eve"} {
		must(t, s.AddPerson(ctx, postern.Actor{}, postern.Person{Name: name}, event))
	}
	spend := func(person string, code byte) error {
		_, err := s.Recover(ctx, postern.Actor{}, portal.Recovery{
			Event: postern.Event{Kind: postern.EventPersonRecovered, Person: person}, Code: &[32]byte{code},
			Mail: func(portal.Off) *portal.Message { return nil },
		})
		return err
	}
	codes := []portal.RecoveryCode{{ID: "c1", Hash: [32]byte{1}}, {ID: "c2", Hash: [32]byte{2}}}
	must(t, s.PutRecoveryCodes(ctx, postern.Actor{}, "dan", codes, begin, event))
	if err := spend("eve", 1); !errors.Is(err, portal.ErrCode) {
		t.Errorf("another person used a code: %v", err)
	}
	if n, err := s.RecoveryCodes(ctx, "dan"); err != nil || n != 2 {
		t.Errorf("%d left, %v", n, err)
	}
	must(t, spend("dan", 1))
	for code := byte(1); code <= 2; code++ {
		if err := spend("dan", code); !errors.Is(err, portal.ErrCode) {
			t.Errorf("after a recovery the code %d is still valid: %v", code, err)
		}
	}
	must(t, s.PutRecoveryCodes(ctx, postern.Actor{}, "dan", []portal.RecoveryCode{{ID: "c3", Hash: [32]byte{3}}},
		begin, event))
	must(t, s.PutRecoveryCodes(ctx, postern.Actor{}, "dan", []portal.RecoveryCode{{ID: "c4", Hash: [32]byte{4}}},
		begin, event))
	if err := spend("dan", 3); !errors.Is(err, portal.ErrCode) {
		t.Errorf("a replaced code is still valid: %v", err)
	}
}

func TestProofsOrdersAndNames(t *testing.T) {
	s, ctx := opened(t)
	p, err := s.Proof(ctx, "dan", "www.example.org", "v1")
	must(t, err)
	if again, err := s.Proof(ctx, "dan", "www.example.org", "v2"); err != nil || again != p || p.Value != "v1" {
		t.Errorf("a proof's value changed: %+v, %v", again, err)
	}
	p.Method, p.Proved, p.Asked = portal.ByDNS, begin, begin
	must(t, s.PutProof(ctx, postern.Actor{}, p, event))
	asked, err := s.AskedProofs(ctx)
	must(t, err)
	if len(asked) != 1 || asked[0] != p {
		t.Errorf("asked: %+v", asked)
	}
	must(t, s.PutAllowed(ctx, postern.Actor{}, portal.Allowed{
		Pattern: "www.example.org", Person: "dan", By: "boss",
		Created: begin,
	}, event))
	if asked, err = s.AskedProofs(ctx); err != nil || len(asked) != 0 {
		t.Errorf("still asked: %+v, %v", asked, err)
	}
	if list, err := s.Allowed(ctx); err != nil || len(list) != 1 || list[0].By != "boss" ||
		!list[0].Created.Equal(begin) {
		t.Errorf("allowed: %+v, %v", list, err)
	}
	must(t, s.DropAllowed(ctx, postern.Actor{}, "www.example.org", "dan", event))
	if err := s.DropAllowed(ctx, postern.Actor{}, "www.example.org", "dan",
		event); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("dropped twice: %v", err)
	}

	o := portal.Order{
		ID: "o1", Person: "dan", Names: []string{"a.example.org", "*.b.example.org"}, CSR: []byte{1, 2},
		Created: begin, Expires: begin.Add(time.Hour),
	}
	must(t, s.PutOrder(ctx, postern.Actor{}, o))
	if got, err := s.Order(ctx, "o1"); err != nil || !slices.Equal(got.Names, o.Names) ||
		!slices.Equal(got.CSR, o.CSR) || !got.Expires.Equal(o.Expires) {
		t.Errorf("order: %+v, %v", got, err)
	}
	if open, err := s.OrdersOf(ctx, "dan", begin); err != nil || len(open) != 1 {
		t.Errorf("open orders: %+v, %v", open, err)
	}
	must(t, s.DropOrder(ctx, postern.Actor{}, "o1"))
	if _, err := s.Order(ctx, "o1"); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("a dropped order: %v", err)
	}
}

func TestRemindersAreQueuedOnce(t *testing.T) {
	s, ctx := opened(t)
	m := func(id string) portal.Message { return portal.Message{ID: id, To: "dan@example.com"} }
	for i, c := range []struct {
		before time.Duration
		want   bool
	}{{14, true}, {14, false}, {3, true}, {14, false}, {3, false}} {
		if ok, err := s.RemindOnce(ctx, "abcd", c.before*24*time.Hour, m(string(rune('a'+i)))); err != nil ||
			ok != c.want {
			t.Errorf("%d days, step %d: %v, %v", c.before, i, ok, err)
		}
	}
}

func TestSettingsAndKeyAreShared(t *testing.T) {
	s, ctx := opened(t)
	a, err := s.PortalKey(ctx)
	must(t, err)
	b, err := s.PortalKey(ctx)
	must(t, err)
	if len(a) != 32 || !slices.Equal(a, b) {
		t.Error("two servers have two keys")
	}
	for _, v := range []string{"", "x", "y"} {
		if v != "" {
			must(t, s.SetPortalSetting(ctx, "name", v))
		}
		if got, err := s.PortalSetting(ctx, "name"); err != nil || got != v {
			t.Errorf("setting %q reads %q, %v", v, got, err)
		}
	}
}

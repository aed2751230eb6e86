package store_test

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
)

// TestPromotedStandby has two servers accept codes while the primary of their PostgreSQL
// database crashes and its synchronous standby is promoted. No code is accepted twice,
// and none that was accepted is forgotten.
func TestPromotedStandby(t *testing.T) {
	primary := posterntest.StartPostgreSQL(t)
	database := primary.Database()
	standby := primary.Standby()
	primary.Synchronous()
	u, err := url.Parse(database)
	must(t, err)
	either := fmt.Sprintf("host=%s,%s user=postgres dbname=%s target_session_attrs=read-write", primary.Dir(),
		standby.Dir(), strings.TrimPrefix(u.Path, "/"))
	one := storetest.OpenConfig(t, store.Config{URL: either})
	two := storetest.OpenConfig(t, store.Config{URL: either})

	users := make([]*codeUser, 8)
	for i := range users {
		key, err := otp.NewKey("")
		must(t, err)
		must(t, one.OTP().AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false))
		users[i] = &codeUser{id: key.PublicID, stores: []*store.OTP{one.OTP(), two.OTP()}}
	}
	var accepted atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, c := range users {
		wg.Go(func() { c.run(t, stop, &accepted) })
	}
	reach := func(n int64) {
		for accepted.Load() < n {
			time.Sleep(5 * time.Millisecond)
		}
	}
	reach(100)
	primary.Kill()
	standby.Promote()
	reach(accepted.Load() + 100)
	close(stop)
	wg.Wait()

	for _, c := range users {
		c.check(t, one)
	}
	if r := verify(t, one); len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
}

// codeUser uses codes of one key, each on both servers.
type codeUser struct {
	id       string
	stores   []*store.OTP
	accepted []int64 // the codes' counters
}

func (c *codeUser) run(t *testing.T, stop <-chan struct{}, accepted *atomic.Int64) {
	for seq := int64(1); ; seq++ {
		select {
		case <-stop:
			return
		default:
		}
		times := 0
		for i := range c.stores {
			if v, err := c.use(t, c.stores[(int(seq)+i)%len(c.stores)], seq); err == nil && v == otp.Accepted {
				times++
			}
		}
		if times > 1 {
			t.Errorf("code %d was accepted %d times", seq, times)
		}
		if times > 0 {
			c.accepted = append(c.accepted, seq)
			accepted.Add(1)
		}
	}
}

func (c *codeUser) use(t *testing.T, keys *store.OTP, seq int64) (otp.Verdict, error) {
	v, _, err := keys.Accept(t.Context(), otp.Use{
		PublicID: c.id, Last: otp.Last{Seq: seq, Nonce: "nonce", Time: time.Now()},
		Events: []postern.Event{{Kind: postern.EventOTP, Object: c.id, Reason: strconv.FormatInt(seq, 10)}},
	})
	if err != nil && postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("code %d: %v", seq, err)
	}
	return v, err
}

// check fails unless each code that was accepted has one entry, and is accepted no more.
func (c *codeUser) check(t *testing.T, db *store.DB) {
	t.Helper()
	events, err := db.Timeline().Events(t.Context(), timeline.Filter{Kind: postern.EventOTP, Object: c.id})
	must(t, err)
	entries := map[string]int{}
	for _, e := range events {
		if entries[e.Reason]++; entries[e.Reason] > 1 {
			t.Errorf("code %s has %d entries", e.Reason, entries[e.Reason])
		}
	}
	for _, seq := range c.accepted {
		if entries[strconv.FormatInt(seq, 10)] != 1 {
			t.Errorf("code %d was accepted and has no entry", seq)
		}
		if v, err := c.use(t, db.OTP(), seq); err != nil || v != otp.Replayed {
			t.Errorf("code %d once more: %v %v", seq, v, err)
		}
	}
}

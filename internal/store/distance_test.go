package store_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
)

// TestCodeCostsTwoRoundTrips counts what a durable answer to a code takes from a
// PostgreSQL server: one round trip for the lock and what the key was last used for, and
// one for the counter, the entry of the timeline and the commit.
func TestCodeCostsTwoRoundTrips(t *testing.T) {
	server := posterntest.StartPostgreSQL(t)
	url, way := server.Distant(t, server.Database(), 0)
	db := storetest.OpenConfig(t, store.Config{URL: url})
	keys := db.OTP()
	token := otp.NewSoftToken()
	key := &otp.Key{PublicID: token.PublicID, Secret: &token.Secret, Last: otp.Never}
	must(t, keys.AddKeys(t.Context(), postern.Actor{}, []*otp.Key{key}, false))
	accept := func(seq int64) {
		t.Helper()
		v, _, err := keys.Accept(t.Context(), otp.Use{
			PublicID: token.PublicID, Last: otp.Last{Seq: seq, Nonce: strings.Repeat("n", 16), Time: time.Now()},
			Events: []postern.Event{{Kind: postern.EventOTP, Object: token.PublicID, Links: []postern.Link{
				{Kind: string(postern.YubiKey), ID: token.PublicID},
			}}},
		})
		if err != nil || v != otp.Accepted {
			t.Fatalf("%v %v", v, err)
		}
	}
	for seq := range int64(5) { // prepares the statements
		accept(256 + seq)
	}
	before := way.Trips()
	const codes = 10
	for seq := range int64(codes) {
		accept(512 + seq)
	}
	if trips := way.Trips() - before; trips != 2*codes {
		t.Errorf("%d codes took %d round trips", codes, trips)
	}
	if v, _, err := keys.Accept(t.Context(), otp.Use{PublicID: token.PublicID, Last: otp.Last{Seq: 512}}); err != nil ||
		v != otp.Replayed {
		t.Errorf("a used code: %v %v", v, err)
	}
	if r := verify(t, db); len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
}

// TestOneComparesForAll has many ask for an API client at once: one of them compares the
// cache with the database, and the others wait for that.
func TestOneComparesForAll(t *testing.T) {
	server := posterntest.StartPostgreSQL(t)
	url, way := server.Distant(t, server.Database(), 20*time.Millisecond)
	keys := storetest.OpenConfig(t, store.Config{URL: url}).OTP()
	must(t, keys.AddClient(t.Context(), &otp.APIClient{ID: 1}))
	ask := func() {
		if _, err := keys.Client(t.Context(), 1); err != nil {
			t.Error(err)
		}
	}
	ask() // it is in the cache
	must(t, keys.RaiseCounters(t.Context(), nil))
	before := way.Trips()
	var all sync.WaitGroup
	for range 16 {
		all.Go(ask)
	}
	all.Wait()
	if trips := way.Trips() - before; trips > 8 {
		t.Errorf("16 at once took %d round trips", trips)
	}
}

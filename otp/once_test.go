package otp_test

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

var (
	nonces atomic.Int64
	http1  = &http.Client{Timeout: 30 * time.Second}
)

func soak() bool { return os.Getenv("POSTERN_SOAK") == "1" }

// onBoth runs a test over SQLite and over PostgreSQL.
func onBoth(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("SQLite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "postern.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, posterntest.StartPostgreSQL(t).Database()) })
}

// TestRacingPresentations has 32 clients show the same codes at the same time to
// two servers on one database.
func TestRacingPresentations(t *testing.T) {
	rounds, keys := 2, 50
	if soak() {
		rounds = 63 // 100,800 presentations
	}
	const clients = 32
	onBoth(t, func(t *testing.T, url string) {
		a, b := newRig(t, store.Config{URL: url}, otp.Config{}), newRig(t, store.Config{URL: url}, otp.Config{})
		a.client1(t)
		var tokens []*otp.SoftToken
		for range keys {
			tokens = append(tokens, a.token(t, ""))
		}
		c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
		defer c.CloseIdleConnections()
		for range rounds {
			codes := make([]string, keys)
			for i, tok := range tokens {
				codes[i] = touch(t, tok)
			}
			accepted := make([]atomic.Int64, keys)
			var wg sync.WaitGroup
			for n := range clients {
				wg.Go(func() {
					server := []*rig{a, b}[n%2]
					for _, i := range rand.Perm(keys) {
						switch status, err := presentTo(c, server.server.URL, codes[i]); {
						case err != nil:
							t.Error(err)
						case status == otp.StatusOK:
							accepted[i].Add(1)
						case status != otp.StatusReplayedOTP:
							t.Errorf("a code is answered %s", status)
						}
					}
				})
			}
			wg.Wait()
			for i := range accepted {
				if n := accepted[i].Load(); n != 1 {
					t.Errorf("a code was accepted %d times", n)
				}
			}
		}
	})
}

// TestKilledServerAcceptsNothingTwice kills the server with SIGKILL at random
// moments while clients show codes, and shows all of them again.
func TestKilledServerAcceptsNothingTwice(t *testing.T) {
	kills := 5
	if soak() {
		kills = 100
	}
	onBoth(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		killAtRandom(t, s, kills, func() {
			s.kill()
			s.start()
		})
	})
}

// TestKilledDatabaseAcceptsNothingTwice does the same to PostgreSQL; the server
// stays and finds it again.
func TestKilledDatabaseAcceptsNothingTwice(t *testing.T) {
	kills := 3
	if soak() {
		kills = 100
	}
	pg := posterntest.StartPostgreSQL(t)
	s := newServer(t, pg.Database())
	killAtRandom(t, s, kills, func() {
		pg.Kill()
		pg.Start()
	})
}

// killAtRandom shows codes from eight clients, breaks something after a random
// time, and then shows every code again, twice. A code that was accepted before
// must not be accepted again; one without an answer at most once.
func killAtRandom(t *testing.T, s *server, kills int, breakIt func()) {
	const clients = 8
	h := newRig(t, store.Config{URL: s.url}, otp.Config{})
	h.client1(t)
	tokens := make([]*otp.SoftToken, clients)
	for i := range tokens {
		tokens[i] = h.token(t, "")
	}
	s.start()
	total, unknown := 0, 0
	for range kills {
		type shown struct {
			code   string
			status otp.Status
		}
		all := make([][]shown, clients)
		var back atomic.Bool
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for status := otp.StatusOK; status == otp.StatusOK && !back.Load(); {
					code := touch(t, tokens[i])
					status = s.present(code)
					all[i] = append(all[i], shown{code, status})
				}
			})
		}
		time.Sleep(time.Duration(20+rand.IntN(80)) * time.Millisecond) // the random moment
		breakIt()
		back.Store(true)
		wg.Wait()
		for i := range all {
			for _, c := range all[i] {
				accepted := 0
				if c.status == otp.StatusOK {
					accepted, total = 1, total+1
				} else {
					unknown++
				}
				for range 2 {
					if s.present(c.code) == otp.StatusOK {
						accepted++
					}
				}
				if accepted > 1 {
					t.Fatalf("a code was accepted %d times; its first answer was %q", accepted, c.status)
				}
			}
		}
		if last := s.present(touch(t, tokens[0])); last != otp.StatusOK {
			t.Fatalf("afterwards a fresh code is answered %q", last)
		}
	}
	if total == 0 {
		t.Error("nothing was ever accepted")
	}
	t.Logf("%d codes accepted, %d without a yes, %d kills", total, unknown, kills)
}

package server

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/state"
)

// TestOneLineAnOutage stops the database under a server that is asked for many things: it
// says so in one line, and in another that it is over, with a count.
func TestOneLineAnOutage(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	portal := posterntest.FreePort(t)
	m := startMonitored(t, fmt.Sprintf("portal https://id.localhost:%d\n", portal), "", func(o *Options) {
		must(t, state.UseDatabase(o.State, pg.Database()))
	})
	m.await(func() bool { return m.visit("site.localhost", "/") == http.StatusForbidden })
	before := len(m.out.String())
	pg.Stop()
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for i := range 10 {
				for _, path := range []string{
					"/", "/certificates", "/enrol?code=1", "/acme/new-nonce", "/crl/server.crl", "/crl/client.crl",
					"/ssh/krl",
					"/wsapi/2.0/verify?id=1&nonce=0123456789abcdef&otp=vvccccbd" +
						strings.Repeat("c", 36) + strconv.Itoa(i),
				} {
					m.visitPort(portal, "id.localhost", path)
				}
				m.visit("site.localhost", "/")
			}
		})
	}
	asking.Wait()
	m.await(func() bool { status, _ := m.get("/readyz"); return status == http.StatusServiceUnavailable })
	if up := m.scrape()["postern_database_up"]; up != "0" {
		t.Errorf("the database is up: %s", up)
	}
	if status, _ := m.get("/livez"); status != http.StatusOK {
		t.Error("the server does not live:", status)
	}
	said := m.out.String()[before:]
	if lines := strings.Count(said, "\n"); lines != 1 || !strings.Contains(said, "the database is unavailable") {
		t.Errorf("%d lines:\n%.8000s", lines, said)
	}
	pg.Start()
	defer pg.Stop()
	over := regexp.MustCompile(`level=WARN msg="the database is available again" took=\S+ count=([0-9]+)\n$`)
	m.await(func() bool { return over.MatchString(m.out.String()) })
	if n, _ := strconv.Atoi(over.FindStringSubmatch(m.out.String())[1]); n < 10 {
		t.Errorf("%d lines were not written", n)
	}
	m.await(func() bool { status, _ := m.get("/readyz"); return status == http.StatusOK })
}

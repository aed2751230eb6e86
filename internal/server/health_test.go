package server

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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
	holder := m.holder("dan")
	if status := holder(portal, "id.localhost", "/certificates"); status != http.StatusOK {
		t.Fatal("a person with a certificate is not known:", status)
	}
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
	for _, path := range []string{"/certificates", "/", "/ssh/sign", "/api/sign", "/events"} {
		// What was known of a certificate is used for a little while.
		m.await(func() bool { return holder(portal, "id.localhost", path) == http.StatusServiceUnavailable })
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

// TestFullDisk fills the disk under a server: the location that requires a record closes,
// the other stays open, and what could not be written is counted, and written later.
func TestFullDisk(t *testing.T) {
	disk := posterntest.Mounted(t, "-t", "tmpfs", "-o", "size=16m", "postern-test")
	m := startMonitored(t, "", `audited.localhost {
	tls internal
	require {
		group staff
		audit required
	}
	respond passed
}
`, func(o *Options) { o.State = filepath.Join(disk, "state") })
	holder := m.holder("dan", "staff")
	answers := func(site string, status int) func() bool {
		return func() bool { return holder(m.https, site, "/") == status }
	}
	m.await(answers("audited.localhost", http.StatusOK))
	m.await(answers("site.localhost", http.StatusOK))
	filler := filepath.Join(disk, "filler")
	posterntest.Fill(t, filler)
	m.await(func() bool { // what SQLite has allocated already may still be used
		posterntest.Fill(t, filler)
		return answers("audited.localhost", http.StatusServiceUnavailable)()
	})
	m.await(func() bool {
		if !answers("site.localhost", http.StatusOK)() {
			t.Fatal("the location that requires no record is closed")
		}
		n, _ := strconv.Atoi(m.scrape()["postern_timeline_unwritten_events"])
		return n > 0
	})
	if status := holder(m.https, "audited.localhost", "/"); status != http.StatusServiceUnavailable {
		t.Error("the location that requires a record is open:", status)
	}
	must(t, os.Remove(filler))
	m.await(answers("audited.localhost", http.StatusOK))
	m.await(func() bool { return m.scrape()["postern_timeline_unwritten_events"] == "0" })
	if report, err := m.open().VerifyLog(t.Context()); err != nil || len(report.Problems) > 0 {
		t.Errorf("the timeline: %+v %v", report, err)
	}
}

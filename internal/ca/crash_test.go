package ca_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// issuerEnv names the database, in the process that issues until it is killed.
const issuerEnv = "POSTERN_TEST_ISSUER"

// TestKilledWhileIssuing kills a process that issues from eight goroutines, at any
// moment, again and again. Whatever certificate it gave out by then is in the
// store, and the timeline verifies.
func TestKilledWhileIssuing(t *testing.T) {
	if url := os.Getenv(issuerEnv); url != "" {
		issueUntilKilled(t, url)
	}
	url := filepath.Join(t.TempDir(), "postern.db")
	db := storetest.OpenConfig(t, store.Config{URL: url})
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "dan", Email: "dan@example.com"}))
	_, err := ca.Init(t.Context(), ca.Config{}, db.CA())
	must(t, err)
	must(t, db.Close())
	rounds := 4
	if os.Getenv("POSTERN_SOAK") == "1" {
		rounds = 100
	}
	given := 0
	for range rounds {
		serials := killIssuer(t, url)
		given += len(serials)
		db := storetest.OpenConfig(t, store.Config{URL: url})
		for _, s := range serials {
			if _, err := db.CA().Certificate(t.Context(), s); err != nil {
				t.Errorf("a certificate that was given out: %v", err)
			}
		}
		report, err := db.Timeline().VerifyLog(t.Context())
		must(t, err)
		if len(report.Problems) > 0 {
			t.Errorf("the timeline: %v", report.Problems)
		}
		must(t, db.Close())
	}
	t.Logf("%d certificates given out in %d lives", given, rounds)
	if given == 0 {
		t.Error("no certificate was given out at all")
	}
}

// killIssuer starts an issuing process and kills it some time after its first
// certificate. It returns the serial numbers that the process gave out.
func killIssuer(t *testing.T, url string) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWhileIssuing$")
	cmd.Env = append(os.Environ(), issuerEnv+"="+url)
	pipe, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var serials []string
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		if len(serials) == 0 {
			time.AfterFunc(time.Duration(rand.IntN(300_000))*time.Microsecond, func() { cmd.Process.Kill() })
		}
		serials = append(serials, lines.Text())
	}
	_ = cmd.Wait()
	return serials
}

func issueUntilKilled(t *testing.T, url string) {
	db := storetest.OpenConfig(t, store.Config{URL: url})
	a, err := ca.Open(t.Context(), ca.Config{}, db.CA())
	must(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				var out *ca.Issued
				var err error
				if i%2 == 0 {
					out, err = a.IssueServer(t.Context(),
						ca.ServerRequest{Names: []string{fmt.Sprintf("h%d.example.com", n)}})
				} else {
					out, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
				}
				if err != nil {
					os.Exit(1)
				}
				// One short write, so that a line is whole or not there.
				os.Stdout.WriteString(out.Serial + "\n")
			}
		})
	}
	wg.Wait()
}

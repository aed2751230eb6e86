package bench

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// BenchmarkRevocation revokes certificates of a CA that has revoked 100,000, in one process,
// and gets its list from another one's handler, until that has the serial number.
//
//	go test -run '^$' -bench Revocation -benchtime 1x ./bench
func BenchmarkRevocation(b *testing.B) {
	b.Run("SQLite", func(b *testing.B) { revocations(b, filepath.Join(b.TempDir(), "postern.db")) })
	b.Run("PostgreSQL", func(b *testing.B) { revocations(b, posterntest.StartPostgreSQL(b).Database()) })
}

func revocations(b *testing.B, url string) {
	const list, revoked = 100_000, 20
	ctx := context.Background()
	db := storetest.OpenConfig(b, store.Config{URL: url})
	first, err := ca.Init(ctx, ca.Config{}, db.CA())
	must(b, err)
	storetest.AddRevoked(b, db, string(ca.Server), list)
	served, err := ca.Open(ctx, ca.Config{}, storetest.OpenConfig(b, store.Config{URL: url}).CA())
	must(b, err)
	server := httptest.NewServer(served.Handler(nil))
	b.Cleanup(server.Close)
	get := func() []byte {
		resp, err := http.Get(server.URL + "/crl/server.crl")
		must(b, err)
		defer resp.Body.Close()
		der, err := io.ReadAll(resp.Body)
		must(b, err)
		return der
	}
	for b.Loop() {
		start := time.Now()
		length := len(get())
		whole := time.Since(start)
		var took []time.Duration
		for range revoked {
			out, err := first.IssueServer(ctx, ca.ServerRequest{Names: []string{"a.example"}})
			must(b, err)
			serial := out.Leaf.SerialNumber.Bytes()
			start := time.Now()
			must(b, first.Revoke(ctx, out.Serial, postern.Superseded, postern.Actor{}))
			if !bytes.Contains(get(), serial) {
				b.Fatal("the list that is served has not the certificate that was revoked")
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		fmt.Printf("%d revoked, %d bytes: the first list %v, each further revocation until it is served median %v, "+
			"longest %v\n", list, length, whole, took[revoked/2], slices.MaxFunc(took, cmp.Compare[time.Duration]))
		b.ReportMetric(float64(took[revoked/2].Microseconds())/1000, "ms/revocation")
	}
}

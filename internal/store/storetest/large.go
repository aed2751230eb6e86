package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// Size says how much [Fill] puts into a store.
type Size struct {
	Entries, People, Certificates, Keys int
}

// Large is an installation after ten years.
var Large = Size{Entries: 6_000_000, People: 10_000, Certificates: 100_000, Keys: 1_000_000}

// Span is the time that the entries of [Fill] are spread over, up to now.
const Span = 10 * 365 * 24 * time.Hour

// Fill puts people, certificates, YubiKeys and entries of the timeline into an empty
// store. The timeline is appended to as a server does, in long batches; the others are
// inserted as rows, without entries of their own. The same size gives the same content.
func Fill(t testing.TB, db *store.DB, s Size) {
	t.Helper()
	g := &generator{Size: s, rand: rand.New(rand.NewPCG(1, 2)), now: db.Now().Add(-Span)}
	insert := func(n int, table, columns string, row func(i int) []any) {
		t.Helper()
		insertRows(t, db, n, "INSERT INTO "+table+" ("+columns+") VALUES ", row)
	}
	at := g.now.UnixMicro()
	insert(s.People, "people", "name, email, full_name, status, created", func(i int) []any {
		return []any{g.person(i), g.person(i) + "@example.com", fmt.Sprintf("Person %d", i), "active", at}
	})
	const credential = "kind, id, person, label, status, created, expires, last_used"
	end := db.Now().AddDate(1, 0, 0).UnixMicro()
	if s.Certificates > 0 {
		AddIssuer(t, db, []byte{})
	}
	insert(s.Certificates, "ca_certificates", `serial, issuer, profile, person, label, subject, names, public_key, der,
		not_before, not_after, issued, renews, revoked, reason`, func(i int) []any {
		return []any{
			g.serial(i), issuer, "person", g.person(i % s.People), "laptop", "CN=" + g.person(i%s.People), "",
			fmt.Sprintf("%064x", i), make([]byte, 500), at, end, at + int64(i), "", 0, 0,
		}
	})
	insert(s.Certificates, "credentials", credential, func(i int) []any {
		return []any{"x509", g.serial(i), g.person(i % s.People), "laptop", "active", at, end, 0}
	})
	insert(s.Keys, "credentials", credential, func(i int) []any {
		var owner any // most belong to no person yet
		if i < s.People {
			owner = g.person(i)
		}
		return []any{"yubikey", g.key(i), owner, "", "active", at, 0, 0}
	})
	insert(s.Keys, "otp_counters", "public_id, seq, stamp, nonce, used", func(i int) []any {
		return []any{g.key(i), -1, 0, "", 0}
	})
	insert(s.Keys, "otp_keys", "public_id, sealed, serial", func(i int) []any {
		sealed, err := db.Seal("otp key", g.key(i), make([]byte, 22))
		must(t, err)
		return []any{g.key(i), sealed, 0}
	})
	const batch = 5000
	for n := 0; n < s.Entries; n += batch {
		events := make([]postern.Event, min(batch, s.Entries-n))
		for i := range events {
			events[i] = g.event(n + i)
		}
		must(t, db.Append(t.Context(), events...))
	}
}

// insertRows inserts n rows, many by one statement, and as many in a transaction as keep
// the journal short.
func insertRows(t testing.TB, db *store.DB, n int, insert string, row func(i int) []any) {
	t.Helper()
	const most, together = 64, 2048
	for from := 0; from < n; from += together {
		must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			for first := from; first < min(from+together, n); first += most {
				query, args := rows(insert, first, min(first+most, from+together, n), row)
				if _, err := tx.Exec(ctx, query, args...); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// rows returns the statement that inserts some rows.
func rows(insert string, from, to int, row func(i int) []any) (query string, args []any) {
	var values []string
	for i := from; i < to; i++ {
		var marks []string
		for _, v := range row(i) {
			args = append(args, v)
			marks = append(marks, fmt.Sprintf("$%d", len(args)))
		}
		values = append(values, "("+strings.Join(marks, ", ")+")")
	}
	return insert + strings.Join(values, ", "), args
}

// generator makes what a busy installation has.
type generator struct {
	Size
	rand *rand.Rand
	now  time.Time
}

func (g *generator) person(i int) string { return fmt.Sprintf("person%04d", i) }
func (g *generator) serial(i int) string { return fmt.Sprintf("%032x", 1<<40+i) }
func (g *generator) key(i int) string {
	return otp.EncodeModhex([]byte{0xfe, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)})
}

// event returns what happens next: requests, refusals, codes, logins and calls of
// libvirt, by few people much and by many little.
func (g *generator) event(n int) postern.Event {
	g.now = g.now.Add(Span / time.Duration(g.Entries))
	who := int(float64(max(1, g.People)) * g.rand.Float64() * g.rand.Float64())
	e := postern.Event{
		Time: g.now, Outcome: postern.OK, Person: g.person(who),
		Address: fmt.Sprintf("192.0.%d.%d", who/250, who%250),
	}
	host := fmt.Sprintf("hv%d", n%200)
	session := postern.Link{Kind: postern.LinkSession, ID: fmt.Sprintf("%s/%08x/%d", host, n%200, n/10)}
	switch n % 10 {
	case 0, 1, 2, 3:
		e.Kind, e.Object = postern.EventSignedIn, fmt.Sprintf("/reports/%d", g.rand.IntN(5000))
		e.Links = []postern.Link{{Kind: "x509", ID: g.serial(who)}}
	case 4:
		e.Kind, e.Outcome = postern.EventAccessRefused, postern.Refused
		e.Person, e.Object, e.Reason = "", fmt.Sprintf("/wp-login.php?%d", g.rand.IntN(100)), "no certificate"
		e.Address = fmt.Sprintf("198.%d.%d.%d", 18+g.rand.IntN(2), g.rand.IntN(250), g.rand.IntN(250))
	case 5, 6:
		e.Kind, e.Object = postern.EventOTP, g.key(who)
		e.Links = []postern.Link{{Kind: "yubikey", ID: g.key(who)}}
	case 7:
		e.Kind, e.Object, e.Host, e.Links = postern.EventSSHOpened, "root", host, []postern.Link{session}
	case 8:
		e.Kind, e.Object, e.Host, e.Links = postern.EventSSHClosed, "root", host, []postern.Link{session}
	case 9:
		e.Kind, e.Object, e.Host = postern.EventLibvirtCall, fmt.Sprintf("domain_get_info vm%d", n%1000), host
		e.Links = []postern.Link{{Kind: postern.LinkConnection, ID: fmt.Sprintf("%s/%d", host, n/100)}}
	}
	return e
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

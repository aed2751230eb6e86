package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestFinishedOrdersGoWithTheirCertificates removes finished orders when their certificates have
// expired.
func TestFinishedOrdersGoWithTheirCertificates(t *testing.T) {
	db, now := storetest.Open(t), time.Now()
	storetest.AddIssuer(t, db, []byte("a CA"))
	event := postern.Event{Kind: "test"}
	account := acme.Account{ID: "account", Thumbprint: "t", Key: []byte{1}, Status: "valid"}
	_, _, err := db.ACME().AddAccount(t.Context(), account, "", event)
	must(t, err)
	for i, days := range []time.Duration{10, 90} {
		id := fmt.Sprint(i)
		o := acme.Order{ID: id, Account: "account", Status: "ready", Created: now, Expires: now.Add(time.Hour)}
		must(t, db.ACME().AddOrder(t.Context(), o, 10))
		c := ca.Certificate{
			Serial: id, Issuer: "test", Profile: ca.ProfileServer, DER: []byte{1},
			NotAfter: now.Add(days * 24 * time.Hour),
		}
		_, err := db.ACME().FinishOrder(t.Context(), postern.Actor{}, c, event, acme.Finish{
			Order: id,
			Change: func(o *acme.Order, _ acme.Account, serial string) (postern.Event, error) {
				o.Serial, o.Status = serial, "valid"
				return event, nil
			},
		})
		must(t, err)
	}
	for _, c := range []struct {
		days time.Duration
		left int
	}{{5, 2}, {20, 1}, {100, 0}} {
		must(t, db.ACME().RemoveOrders(t.Context(), now.Add(c.days*24*time.Hour)))
		if n := storetest.Rows(t, db)["acme_orders"]; n != c.left {
			t.Errorf("after %d days: %d orders, not %d", c.days, n, c.left)
		}
	}
}

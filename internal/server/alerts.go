package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/alert"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/webhook"
	"github.com/postern-project/postern/timeline"
)

// newReporter returns what reports the alerts of a configuration's options.
func (s *server) newReporter(o front.App) (*alert.Reporter, error) {
	log := s.state.Store.Timeline()
	c := alert.Config{
		Alerts: alertsOf(o.Alerts), Store: s.state.Store.Alerts(),
		Log: s.log.With(slog.String(postern.LogKind, "alert")),
		Sentence: func(ctx context.Context, e postern.Event) string {
			joined, err := timeline.Join(ctx, log, e)
			if err != nil {
				joined = nil
			}
			return timeline.Sentence(e, joined)
		},
	}
	if o.Mail != "" {
		host := hostName()
		if o.Portal != nil {
			host = portalHost(o.Portal.URL())
		}
		smtp, err := portal.NewSMTP(o.Mail, cmp.Or(host, "localhost"))
		if err != nil {
			return nil, err
		}
		c.Mail = func(ctx context.Context, id, to, subject, text string) error {
			return smtp.Send(ctx, portal.Message{ID: id, To: to, Subject: subject, Text: text})
		}
	}
	return alert.New(c)
}

func alertsOf(list []front.Alert) (alerts []alert.Alert) {
	for _, c := range list {
		a := alert.Alert{
			Name: c.Name, When: c.When, Count: c.Count, Within: time.Duration(c.Within), Every: time.Duration(c.Every),
		}
		for _, to := range c.Mail {
			a.To = append(a.To, alert.Receiver{Mail: to})
		}
		for _, w := range c.Webhooks {
			a.To = append(a.To, alert.Receiver{Webhook: &webhook.Webhook{URL: w.URL, Secret: w.Secret}})
		}
		for _, argv := range c.Commands {
			a.To = append(a.To, alert.Receiver{Command: argv})
		}
		alerts = append(alerts, a)
	}
	return alerts
}

// testTimeout is how long a test of an alert waits.
const testTimeout = 45 * time.Second

// TestAlert has the server that runs on a state send a message of an alert to each of its
// receivers, and calls result with how each was delivered. It fails with Unavailable if one
// was not, or if there is no such server.
func TestAlert(ctx context.Context, st *state.State, name string, result func(postern.Event)) error {
	log := st.Store.Timeline()
	from, err := log.LogSize(ctx)
	if err != nil {
		return err
	}
	if err := st.Store.Append(ctx,
		people.ByHand(postern.Event{Kind: postern.EventAlertTest, Object: name})); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, testTimeout)
	defer cancel()
	failed, got, all := 0, 0, 1
	for got < all {
		sent, err := log.Events(ctx, timeline.Filter{Kind: postern.EventAlertSent, Object: name, From: from})
		if err != nil {
			return notSent(name, got, err)
		}
		for _, e := range sent {
			from = e.Index + 1
			if got++; e.Outcome != postern.OK {
				failed++
			}
			if n, err := strconv.Atoi(e.Details["receivers"]); err == nil {
				all = n
			}
			result(e)
		}
		select {
		case <-ctx.Done():
			return notSent(name, got, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if failed > 0 {
		return postern.Errorf(postern.Unavailable, "%d of %d messages of the alert %s were not delivered", failed, got,
			name)
	}
	return nil
}

func notSent(name string, got int, err error) error {
	if got > 0 || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return postern.Errorf(postern.Unavailable, "no message of the alert %s was sent", name).
		WithHint("see that the server runs, and that its configuration has an alert of this name")
}

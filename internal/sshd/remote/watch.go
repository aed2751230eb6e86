package remote

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
)

// watchPath is where a host waits for an [Update]. While it waits, the server looks
// whether the host is still accepted, and cuts its connection when it is not.
const watchPath = Prefix + "watch"

// How long a server holds a host's request, and how often it looks meanwhile. A server
// that ends waits as long for its hosts.
const (
	watchFor  = 5 * time.Second
	lookEvery = 800 * time.Millisecond
)

// MaxServers is how many servers a host may have.
const MaxServers = 5

// watchWithin is how long a host waits for an update, all its servers together: each in turn
// gets its share, which is longer than a server holds the request.
const watchWithin = MaxServers * (watchFor + 2*lookEvery)

// maxUpdate bounds an update, in bytes.
const maxUpdate = 64 << 10

// Update is what a server tells a host.
type Update struct {
	Checkpoint string          `json:"checkpoint,omitempty"` // of the timeline, signed
	Growth     [][]byte        `json:"growth,omitempty"`     // the proof that it contains what the host saw before
	Rescue     json.RawMessage `json:"rescue,omitempty"`     // the host's rescue codes, if it has others
	Other      *Sighting       `json:"other,omitempty"`      // what another host saw
}

// Sighting is a checkpoint that a host saw.
type Sighting struct {
	Host       string   `json:"host"`
	Checkpoint string   `json:"checkpoint"`
	Growth     [][]byte `json:"growth,omitempty"` // the proof that the update's checkpoint contains it
}

// Seen is what a host has already.
type Seen struct {
	Checkpoint string // the newest that it saw, signed; "": none
	Rescue     string // the ID of its rescue codes
}

// maxCheckpoint bounds a checkpoint in a request, in bytes.
const maxCheckpoint = 4 << 10

// watch answers with an update after a while.
func (h *Handler) watch(r *http.Request, host string) (Update, error) {
	q := r.URL.Query()
	seen := Seen{Checkpoint: q.Get("checkpoint"), Rescue: q.Get("rescue")}
	if len(seen.Rescue) > maxField || len(seen.Checkpoint) > maxCheckpoint {
		return Update{}, postern.Errorf(postern.Invalid, "that is no message of this protocol")
	}
	end, err := h.watching.begin(host)
	if err != nil {
		return Update{}, err
	}
	defer end()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for until := time.Now().Add(watchFor); time.Now().Before(until); {
		select {
		case <-r.Context().Done():
			return Update{}, postern.Errorf(postern.Unavailable, "the host hung up")
		case <-tick.C:
		}
		if err := h.accepted(r, host); err != nil {
			return Update{}, err
		}
	}
	return h.Update(r.Context(), host, seen)
}

// Watch waits for an update, for half a minute at most. It fails as [Client.CheckCode] does.
func (c Client) Watch(ctx context.Context, seen Seen) (u Update, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchWithin)
	defer cancel()
	q := url.Values{"checkpoint": {seen.Checkpoint}, "rescue": {seen.Rescue}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL+watchPath+"?"+q.Encode(), nil)
	if err != nil {
		return u, unanswered(err)
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return u, unanswered(err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		if err := decode(res.Body, maxUpdate, &u); err != nil {
			return Update{}, unanswered(err)
		}
		return u, nil
	}
	var a answer
	if err := decode(res.Body, maxMessage, &a); err != nil {
		return u, unanswered(err)
	}
	code := postern.Unavailable
	if res.StatusCode == http.StatusForbidden {
		code = postern.Denied
	}
	return u, postern.Errorf(code, "the server says: %.200s", sshd.Printable(a.Reason))
}

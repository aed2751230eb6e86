package remote

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
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
}

// Seen is what a host has already.
type Seen struct {
	Size   int64  // of the newest checkpoint that it saw; 0: none
	Rescue string // the ID of its rescue codes
}

// watch answers with an update after a while.
func (h *Handler) watch(r *http.Request, host string) (Update, error) {
	size, err := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	rescue := r.URL.Query().Get("rescue")
	if err != nil || size < 0 || len(rescue) > maxField {
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
	return h.Update(r.Context(), host, Seen{size, rescue})
}

// Watch waits for an update, for half a minute at most. It fails as [Client.CheckCode] does.
func (c Client) Watch(ctx context.Context, seen Seen) (u Update, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchWithin)
	defer cancel()
	q := url.Values{"size": {strconv.FormatInt(seen.Size, 10)}, "rescue": {seen.Rescue}}
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

package portal

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/console"
)

// How often a page that shows the timeline as it is written is sent what is new, how often
// it is sent anything, and how long it may take to accept that.
const (
	liveEvery   = 400 * time.Millisecond
	liveAlive   = 15 * time.Second
	liveTimeout = 10 * time.Second
)

// timelineLive sends what is written to the timeline as server-sent events (WHATWG HTML,
// 9.2). The ID of each is the index from which a page that was away goes on. A page that
// takes its time is sent more at once, folded, and is waited for by no other. Whether the
// administrator is one still is asked each time.
func (p *Portal) timelineLive(r *request) error {
	q, err := console.ParseQuery(r.URL.Query())
	if err != nil {
		return err
	}
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("next")
	}
	next, err := strconv.ParseInt(text, 10, 64)
	if err != nil || next < 0 {
		return postern.Errorf(postern.Invalid, "It is not said from which entry on.")
	}
	size, err := p.Console.Log.LogSize(r.Context())
	if err != nil {
		return err
	}
	next = min(next, size) // a page may be from before the database was restored
	leave, err := p.feed.Open(r.who.Name)
	if err != nil {
		return err
	}
	defer leave()
	r.w.Header().Set("Content-Type", "text/event-stream")
	r.w.Header().Set("X-Accel-Buffering", "no") // of proxies before the server
	s := stream{w: r.w, control: http.NewResponseController(r.w)}
	s.send(": open\n\n")
	p.follow(r, q, next, &s)
	return nil
}

// follow sends batches until the page is gone, the portal ends, or the person may not see
// them any more.
func (p *Portal) follow(r *request, q console.Query, next int64, s *stream) {
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for s.err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-p.ended:
			return
		case <-tick.C:
		}
		still, err := p.stillAdmin(r)
		if err != nil {
			continue // the database is unavailable, and is waited for
		}
		if !still {
			s.send("event: end\ndata: {}\n\n")
			return
		}
		b, err := p.feed.Since(r.Context(), q, next)
		if err != nil {
			continue
		}
		moved := b.Next != next
		next = b.Next
		switch {
		case len(b.Lines) > 0 || b.Folded > 0 || b.More:
			s.batch(b, q)
		case moved || time.Since(s.sent) >= liveAlive: // so that a page that reconnects does not look again
			s.send(fmt.Sprintf("id: %d\n\n", next))
		}
	}
}

// stillAdmin reports whether the request would be answered if it came now.
func (p *Portal) stillAdmin(r *request) (bool, error) {
	now := &request{Request: r.Request, w: r.w}
	err := p.identify(now)
	return now.admin && now.who.Name == r.who.Name && now.serial == r.serial, err
}

// stream is an answer of server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	sent    time.Time
	err     error
}

func (s *stream) send(text string) {
	s.sent = time.Now()
	_ = s.control.SetWriteDeadline(s.sent.Add(liveTimeout)) // not every connection has one
	if _, s.err = s.w.Write([]byte(text)); s.err == nil {
		s.err = s.control.Flush()
	}
	_ = s.control.SetWriteDeadline(time.Time{}) // which would end an HTTP/2 stream that waits
}

// batch sends new lines, and how many others there are.
func (s *stream) batch(b console.Batch, q console.Query) {
	data := map[string]any{"lines": showLines(b.Lines)}
	if b.Folded > 0 || b.More {
		q.From, q.Before = b.From, b.Before
		data["folded"] = shownPart{foldedWords(b, q), timelineURL(q)}
	}
	text, err := json.Marshal(data)
	if err != nil {
		s.err = err
		return
	}
	s.send(fmt.Sprintf("id: %d\nevent: lines\ndata: %s\n\n", b.Next, text))
}

// foldedWords says how many entries of a batch are not sent.
func foldedWords(b console.Batch, q console.Query) string {
	switch {
	case b.More:
		return "More that was written meanwhile"
	case q.Strength != "":
		return "More that was written meanwhile, of any strength"
	case b.Folded == 1:
		return "1 more entry"
	}
	return fmt.Sprintf("%d more entries", b.Folded)
}

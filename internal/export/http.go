package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/postern-project/postern/internal/webhook"
)

// httpTimeout bounds one request.
const httpTimeout = 30 * time.Second

// httpReceiver gets a batch as lines in the body of a request. Its webhook-id is the same
// when the batch is sent again.
type httpReceiver struct {
	hook *webhook.Webhook
	kind string // media type of the lines
	most int    // records in a request; fewer once the receiver has refused so many
}

func openHTTP(o Options, _ *url.URL) (receiver, error) {
	hook := &webhook.Webhook{URL: o.To, Secret: o.Secret, Authorization: o.Authorization}
	return &httpReceiver{hook, mediaOf(o.Format), pageEntries}, hook.Validate()
}

// send posts the records: in halves, where the receiver answers that they are too large.
func (h *httpReceiver) send(ctx context.Context, records []record) error {
	for len(records) > 0 {
		n := min(len(records), h.most)
		err := h.post(ctx, records[:n])
		var status *webhook.StatusError
		switch {
		case err == nil:
			records = records[n:]
		case n > 1 && errors.As(err, &status) && status.Code == http.StatusRequestEntityTooLarge:
			h.most = n / 2
		default:
			return err
		}
	}
	return nil
}

func (h *httpReceiver) post(ctx context.Context, records []record) error {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	first, last := records[0].event, records[len(records)-1].event
	id := fmt.Sprintf("log-%d-%d-%d", first.Index, last.Index, first.Time.UnixMicro())
	return h.hook.Post(ctx, webhook.Message{ID: id, Type: h.kind, Body: lines(records)}, time.Now())
}

// lines returns records as one line each.
func lines(records []record) []byte {
	var b bytes.Buffer
	for _, r := range records {
		b.Write(r.text)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

package agent

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
)

// inTurn sends each request to the server that answered last, and when that does not
// answer, to the others. The time that a request has is shared among those that are left
// to try. It is safe for concurrent use.
type inTurn struct {
	servers []*url.URL // scheme and host of each
	next    http.RoundTripper
	current atomic.Int32
}

// RoundTrip implements [http.RoundTripper]. A request with a body needs its GetBody.
func (t *inTurn) RoundTrip(req *http.Request) (*http.Response, error) {
	var failures []error
	first := int(t.current.Load())
	for i := range t.servers {
		n := (first + i) % len(t.servers)
		res, err := t.try(req, t.servers[n], len(t.servers)-i)
		if err == nil && !unavailable(res.StatusCode) {
			t.current.Store(int32(n))
			return res, nil
		}
		if err == nil {
			if i == len(t.servers)-1 {
				return res, nil
			}
			_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
			res.Body.Close()
			err = postern.Errorf(postern.Unavailable, "%s answers %s", t.servers[n].Host, res.Status)
		}
		failures = append(failures, err)
		if req.Context().Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

// unavailable reports whether another server may answer what one answers so.
func unavailable(status int) bool {
	return slices.Contains([]int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout},
		status)
}

// try sends a request to one server, which has its share of the time to begin its
// answer when so many are left to try.
func (t *inTurn) try(req *http.Request, server *url.URL, left int) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	if deadline, ok := ctx.Deadline(); ok {
		timer := time.AfterFunc(time.Until(deadline)/time.Duration(left), cancel)
		defer timer.Stop()
	}
	one := req.Clone(ctx)
	one.URL.Scheme, one.URL.Host, one.Host = server.Scheme, server.Host, ""
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			cancel()
			return nil, err
		}
		one.Body = body
	}
	res, err := t.next.RoundTrip(one)
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = cancelled{res.Body, cancel}
	return res, nil
}

// cancelled is a body whose request ends when it is closed.
type cancelled struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c cancelled) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

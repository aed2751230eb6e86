package front

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/postern-project/postern/internal/system"
)

func init() { caddy.RegisterModule(Entry{}) }

// Entry is the first handler of every server. It removes forged identity headers from
// each request, guarded or not, trailers included, and a final dot from the host's name,
// so that the sites' names match it.
type Entry struct {
	Headers []string `json:"headers_up,omitempty"` // folded names of the headers by which guards tell something
}

// CaddyModule returns the Caddy module information.
func (Entry) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.postern_entry", New: func() caddy.Module { return new(Entry) }}
}

// Provision makes the server remember connections, and know which are in use.
func (*Entry) Provision(ctx caddy.Context) error {
	if s, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		s.RegisterConnContext(withConn)
		if len(system.PassedSockets()) > 0 {
			s.RegisterConnState(drained.note)
		}
	}
	return nil
}

// ServeHTTP cleans the request.
func (e *Entry) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	e.strip(r.Header)
	if r.Trailer != nil {
		e.strip(r.Trailer)
		r.Body = &bodyBeforeTrailers{r.Body, r.Trailer, e}
	}
	if strings.Contains(r.Host, ".") {
		r.Host = withoutFinalDot(r.Host)
	}
	return next.ServeHTTP(w, r)
}

// bodyBeforeTrailers takes forged identities off a request's trailers, announced
// ones and others, which come when its body ends.
type bodyBeforeTrailers struct {
	io.ReadCloser
	trailers http.Header
	entry    *Entry
}

func (b *bodyBeforeTrailers) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.entry.strip(b.trailers)
	}
	return n, err
}

// withoutFinalDot takes the dot off a fully qualified host name.
func withoutFinalDot(host string) string {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:i], host[i:]
	}
	if !strings.HasSuffix(name, ".") || strings.HasSuffix(name, "..") {
		return host
	}
	return name[:len(name)-1] + port
}

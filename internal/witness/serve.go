package witness

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Options say what Serve serves.
type Options struct {
	Dir    string   // the witness's state
	Name   string   // of the witness; "" for one that is there
	Logs   []string // public keys of the logs, or files with one
	Listen string   // host:port, plain HTTP
	Log    *slog.Logger
	Ready  func(address, key string) // called once, when requests are answered
}

// atOnce bounds the requests that are answered at the same time.
const atOnce = 64

// Serve is a witness until ctx ends.
func Serve(ctx context.Context, o Options) error {
	logs := make([]string, len(o.Logs))
	for i, key := range o.Logs {
		logs[i] = key
		if text, err := os.ReadFile(key); err == nil {
			logs[i] = strings.TrimSpace(string(text))
		}
	}
	w, err := Open(o.Dir, o.Name, logs, o.Log)
	if err != nil {
		return err
	}
	defer w.Close()
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return postern.Errorf(postern.Unavailable, "listen for checkpoints: %w", err)
	}
	server := &http.Server{
		Handler: limited(w.Handler()), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ending) // what is left then is not answered
	})
	defer stop()
	o.Ready(l.Addr().String(), w.Key())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return postern.Errorf(postern.Unavailable, "answer logs: %w", err)
	}
	return nil
}

// limited answers that there are too many requests instead of letting them wait.
func limited(h http.Handler) http.Handler {
	under := make(chan struct{}, atOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case under <- struct{}{}:
			defer func() { <-under }()
			h.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests", http.StatusTooManyRequests)
		}
	})
}

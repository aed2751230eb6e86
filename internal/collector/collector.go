// Package collector is a client of an OpenTelemetry collector: OTLP over HTTP.
package collector

import (
	"context"
	"net/netip"
	"net/url"
	"time"

	"github.com/postern-project/postern"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
)

// How long a collector is waited for, and asked again that says that it has too much to
// do.
const (
	timeout  = 10 * time.Second
	retrying = 30 * time.Second
)

// Connect returns a client of the collector at an address such as
// https://collector.example.com:4318; without a path, that is OTLP's own. Plain HTTP is
// taken for this host alone. The environment may say more, see the OpenTelemetry
// Protocol Exporter's specification: OTEL_EXPORTER_OTLP_HEADERS,
// OTEL_EXPORTER_OTLP_CERTIFICATE. The client is safe for concurrent use.
func Connect(ctx context.Context, address string) (otlptrace.Client, error) {
	u, err := parse(address)
	if err != nil {
		return nil, err
	}
	c := otlptracehttp.NewClient(
		otlptracehttp.WithEndpointURL(u.String()),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithTimeout(timeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: 10 * time.Second, MaxElapsedTime: retrying,
		}),
	)
	return c, c.Start(ctx)
}

func parse(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil,
			postern.Errorf(postern.Invalid, "this is not an address such as https://collector.example.com:4318")
	case u.User != nil || u.RawQuery != "": // which may be secret, and others on this host see
		return nil, postern.Errorf(postern.Invalid, "a collector's address has no user and no query").
			WithHint("what the collector wants to know is in OTEL_EXPORTER_OTLP_HEADERS")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, postern.Errorf(postern.Invalid, "%s would tell the network what happens here", address).
			WithHint("use https, or a collector on this host that sends on")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

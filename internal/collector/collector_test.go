package collector

import (
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

func TestAddressesOfCollectors(t *testing.T) {
	for _, c := range []struct{ address, want, says string }{
		{"https://collector.example.com:4318", "https://collector.example.com:4318/v1/traces", ""},
		{"https://collector.example.com/", "https://collector.example.com/v1/traces", ""},
		{"https://collector.example.com/otlp", "https://collector.example.com/otlp", ""},
		{"http://localhost:4318", "http://localhost:4318/v1/traces", ""},
		{"http://[::1]:4318", "http://[::1]:4318/v1/traces", ""},
		{"http://192.0.2.7:4318", "", "would tell the network what happens here"},
		{"http://localhost.example.com", "", "would tell the network what happens here"},
		{"collector:4318", "", "is not an address"},
		{"https://", "", "is not an address"},
		{"https://collector.example.com?token=sesame", "", "no user and no query"},
		{"https://alice:sesame@collector.example.com", "", "no user and no query"},
		{"https://alice:sesame@%zz", "", "is not an address"},
		{"unix:///run/otlp", "", "is not an address"},
	} {
		t.Run(c.address, func(t *testing.T) {
			u, err := parse(c.address)
			switch {
			case c.says == "" && (err != nil || u.String() != c.want):
				t.Errorf("got %v, %v; want %s", u, err, c.want)
			case c.says != "" && (postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), c.says)):
				t.Errorf("got %v, %v; want %s", u, err, c.says)
			case err != nil && strings.Contains(err.Error(), "sesame"):
				t.Errorf("a secret is in the error: %v", err)
			}
		})
	}
}

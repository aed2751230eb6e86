package front

import "testing"

func TestPlainURL(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{`{}`, ""},
		{`{"apps":{"postern":{"portal":{"addresses":["id.example.com"]}}}}`, "http://id.example.com"},
		{`{"apps":{"postern":{"portal":{"addresses":["https://id.example.com:8443","other.example.com"]}},` +
			`"http":{"http_port":80}}}`, "http://id.example.com"},
		{
			`{"apps":{"postern":{"portal":{"addresses":["https://id.example.com:8443"]}},"http":{"http_port":8080}}}`,
			"http://id.example.com:8080",
		},
		{`{"apps":{"postern":{"portal":{"addresses":["https://[2001:db8::1]"]}}}}`, "http://[2001:db8::1]"},
		{`{"apps":{"postern":{"portal":{"addresses":["https://id.localhost:8443"]}}}}`, ""},
		{`{"apps":{"postern":{"portal":{"addresses":["localhost"]}}}}`, ""},
		{`{"apps":{"postern":{"portal":{"addresses":["https://127.0.0.1"]}}}}`, ""},
	} {
		options, err := Options([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		if got := options.PlainURL(); got != c.want {
			t.Errorf("%s: %q, want %q", c.config, got, c.want)
		}
	}
}

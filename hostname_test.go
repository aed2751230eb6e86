package postern_test

import (
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

func TestValidHostName(t *testing.T) {
	label := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"localhost":                           true,
		"www.example.com":                     true,
		"xn--bcher-kva.example":               true,
		"1.2.3.com":                           true,
		label + ".example":                    true,
		"":                                    false,
		"example.com.":                        false,
		".example.com":                        false,
		"a..b":                                false,
		"-a.example":                          false,
		"a-.example":                          false,
		"WWW.example.com":                     false,
		"a_b.example":                         false,
		"bücher.example":                      false,
		"*.example.com":                       false,
		"192.0.2.1":                           false,
		"1.2":                                 false,
		label + "a.example":                   false,
		strings.Repeat(label+".", 4) + "test": false,
	} {
		t.Run(name, func(t *testing.T) {
			if got := postern.ValidHostName(name); got != want {
				t.Errorf("%q: %v, want %v", name, got, want)
			}
		})
	}
}

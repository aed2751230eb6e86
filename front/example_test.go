package front_test

import (
	"fmt"

	"github.com/postern-project/postern/front"
	_ "github.com/postern-project/postern/front/standard"
)

// A Caddyfile becomes a configuration that front.Load takes. A mistake in it
// is an error with file and line.
func ExampleAdapt() {
	const site = `{
	postern {
		portal id.example.com
	}
}
www.example.com {
	respond "hello"
	require /wp-admin* {
		person dan@example.com
		rule %s
	}
}
`
	for _, rule := range []string{"`address.within(\"192.0.2.0/24\")`", "`client == \"192.0.2.7\"`"} {
		config, _, err := front.Adapt(fmt.Appendf(nil, site, rule), "Caddyfile")
		if err != nil {
			fmt.Println(err)
			continue
		}
		options, err := front.Options(config)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("the portal is at", options.Portal.Addresses)
	}
	// Output:
	// the portal is at [id.example.com]
	// parsing caddyfile tokens for 'require': Caddyfile:10: rule, line 1, column 1: undeclared reference to 'client'
}

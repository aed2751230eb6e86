// Command postern proves who signs in and sees what they do.
package main

import (
	"os"

	"github.com/postern-project/postern/internal/cli"
)

//go:generate go run . man ../../man
//go:generate go run . schema -o ../../docs/output.schema.json

func main() {
	os.Exit(cli.Main())
}

package cli

import (
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
	"github.com/spf13/cobra"
)

// newPKCS11Module makes the command that is run for a PKCS#11 module, by ourselves.
func newPKCS11Module() *cobra.Command {
	return &cobra.Command{
		Use:    module.Command,
		Short:  "Load a PKCS#11 module, for the one who started this",
		Hidden: true,
		Args:   usageArgs(cobra.NoArgs),
		RunE:   func(*cobra.Command, []string) error { return module.Serve() },
	}
}

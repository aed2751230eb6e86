package export

import (
	"os"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

const (
	remote = tracetest.Remote
	client = tracetest.Client
	server = tracetest.Server
	begin  = tracetest.Begin
)

var (
	at, message, other     = tracetest.At, tracetest.Message, tracetest.Other
	word, noDomain, golden = tracetest.Word, tracetest.NoDomain, tracetest.Golden
)

func TestMain(m *testing.M) {
	code := m.Run()
	posterntest.StopLibvirtd()
	os.Exit(code)
}

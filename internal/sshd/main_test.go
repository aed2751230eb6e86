package sshd_test

import (
	"os"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

func TestMain(m *testing.M) { os.Exit(posterntest.Run(m)) }

package terminal_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-project/postern/internal/terminal"
	"golang.org/x/sys/unix"
)

// TestLongWorkIsShownOnATerminal holds that it is written over itself, and is gone at
// the end.
func TestLongWorkIsShownOnATerminal(t *testing.T) {
	master, slave := openTerminal(t)
	synctest.Test(t, func(*testing.T) {
		end := terminal.Working(slave, "checking")
		time.Sleep(2500 * time.Millisecond)
		end()
	})
	slave.Close()
	shown, _ := io.ReadAll(master) // ends with EIO, since the other side is closed
	if want := "\rchecking: 1 s\rchecking: 2 s\r\x1b[K"; string(shown) != want {
		t.Errorf("a terminal shows %q, not %q", shown, want)
	}
}

func TestLongWorkIsNotShownElsewhere(t *testing.T) {
	var pipe bytes.Buffer
	synctest.Test(t, func(*testing.T) {
		end := terminal.Working(&pipe, "checking")
		time.Sleep(time.Minute)
		end()
	})
	if pipe.Len() > 0 {
		t.Errorf("a pipe gets %q", pipe.String())
	}
}

// openTerminal returns both sides of a new pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	open := func(name string) *os.File {
		f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	master = open("/dev/ptmx")
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	return master, open(fmt.Sprintf("/dev/pts/%d", number))
}

package terminal

import (
	"fmt"
	"io"
	"time"
)

// Working says on a terminal that long work goes on, and for how long already, until end
// is called. It says nothing in the first second, and nothing where w is no terminal.
// Until then nothing else may be written to that terminal.
func Working(w io.Writer, what string) (end func()) {
	if !IsTerminal(w) {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		begun, tick := time.Now(), time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(w, "\r%s: %d s", what, int(time.Since(begun).Seconds()))
			case <-stop:
				fmt.Fprint(w, "\r\x1b[K") // whatever was written on the line goes
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
	}
}

package agent

import (
	"os"
	"strconv"
	"testing"

	"github.com/postern-project/postern/internal/sshd/process"
	"github.com/postern-project/postern/internal/trace/event"
)

func TestUnits(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/system.slice/backup.service\n":                                "backup.service",
		"0::/system.slice/cron.service\n":                                  "cron.service",
		"0::/user.slice/user-1000.slice/session-5.scope\n":                 "",
		"0::/user.slice/user-1000.slice/user@1000.service/init.scope\n":    "init.scope",
		"0::/user.slice/user-0.slice/user@0.service/app.slice/a.service\n": "a.service",
		"0::/system.slice/docker-4f.scope/payload/x\n":                     "docker-4f.scope",
		"12:cpu:/other.service\n1:name=systemd:/system.slice/at.service\n": "at.service",
		"0::/\n": "", "": "", "0::": "", "0:://../x.service": "x.service",
	} {
		if got := unitIn(cgroup); got != want {
			t.Errorf("%q: %q, want %q", cgroup, got, want)
		}
	}
}

// TestAnotherProcessHasNoUnit asks about a process of this number that was started at
// another time.
func TestAnotherProcessHasNoUnit(t *testing.T) {
	start, err := strconv.ParseUint(process.Stat(os.Getpid(), 22), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	u := units{}
	u.see(&event.Peer{PID: os.Getpid(), Start: start + 1})
	if len(u) != 0 {
		t.Errorf("%v", u)
	}
	u.see(&event.Peer{PID: os.Getpid(), Start: start})
	if len(u) != 1 {
		t.Error("this process is not remembered")
	}
}

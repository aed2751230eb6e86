package agent_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
)

// TestModularDaemons has clients change a virtual machine by way of virtproxyd: each call
// is one entry of the timeline, and names the client.
func TestModularDaemons(t *testing.T) {
	l := posterntest.StartModular(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	defer posterntest.TraceAlone(t)()
	rig := servertest.NewSSH(t)
	stopEvents := takeEvents(t, rig.State)
	a := start(t, rig.State, t.TempDir())
	suspend := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "virsh", "-q", "-c",
		l.UnixURI(), "suspend", "vm1")
	if out, err := suspend.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	posterntest.Virsh(t, l.TLSURI(), "resume", "vm1")
	a.stop()
	stopEvents()
	sentences := said(t, rig.State, postern.EventLibvirtCall)
	for i, want := range []string{
		`^the account nobody ran domainSuspend on vm1; answered in [^;]*\.$`,
		`^the TLS client O=Postern,CN=tester, from 127\.0\.0\.1, ran domainResume on vm1; answered in [^;]*\.$`,
	} {
		if len(sentences) != 2 || !regexp.MustCompile(want).MatchString(sentences[i]) {
			t.Fatalf("the timeline says:\n%s", strings.Join(sentences, "\n"))
		}
	}
}

package correlate

import (
	"os/user"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

func TestAFilterTakesWords(t *testing.T) {
	var f Filter
	for _, err := range []error{
		f.AddPID("1"), f.AddPID("4711"), f.AddConnection("0x55d0c8a2e010"), f.AddConnection("ff"),
		f.AddType("call"), f.AddType("hole"), f.AddStatus("error"), f.AddStatus("continue"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(f.PIDs, []int{1, 4711}) || !slices.Equal(f.Clients, []uint64{0x55d0c8a2e010, 0xff}) {
		t.Errorf("processes %v, connections %x", f.PIDs, f.Clients)
	}
	if f.Types != 1<<0|1<<4|1<<6 || f.Statuses != 6 {
		t.Errorf("types %b, statuses %b", f.Types, f.Statuses)
	}
}

func TestAFilterRefusesWhatItDoesNotKnow(t *testing.T) {
	var f Filter
	for _, c := range []struct {
		name, word string
		add        func(string) error
		says       string
	}{
		{"no process", "0", f.AddPID, "not a process number"},
		{"negative process", "-1", f.AddPID, "not a process number"},
		{"a process too large", "2147483648", f.AddPID, "not a process number"},
		{"no address", "x", f.AddConnection, "such as 0x55d0c8a2e010"},
		{"an address too long", "0x10000000000000000", f.AddConnection, "such as 0x55d0c8a2e010"},
		{"no type", "sigh", f.AddType, `"sigh" is none of call, event, hole, message, reply, stream`},
		{"no status", "", f.AddStatus, `"" is none of continue, error, ok`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.add(c.word); postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
	if len(f.PIDs)+len(f.Clients) > 0 || f.Types|f.Statuses != 0 {
		t.Errorf("took %+v", f)
	}
}

// TestUsersAreFoundByNameAndNumber: a name that this host does not know can still be a
// SASL identity.
func TestUsersAreFoundByNameAndNumber(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	var f Filter
	for name, known := range map[string]bool{me.Username: true, "12345": true, "no-such-user": false} {
		if f.AddUser(name) != known {
			t.Errorf("%s: known must be %v", name, known)
		}
		if !slices.Contains(f.Users, name) {
			t.Errorf("%s is not among %v", name, f.Users)
		}
	}
	if !slices.Contains(f.Users, me.Uid) {
		t.Errorf("the number of %s is not among %v", me.Username, f.Users)
	}
}

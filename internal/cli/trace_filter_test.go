package cli

import (
	"bytes"
	"strings"
	"testing"
)

// TestTraceFlags gives each flag a value that it cannot have: the error names it
// and says what it can be.
func TestTraceFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"rpc --buffer 3", "--buffer 3 is not between 256KiB and 1GiB"},
		{"rpc --buffer 2G", "--buffer 2GiB is not between 256KiB and 1GiB"},
		{"rpc --buffer much", "not a size such as 4MiB"},
		{"rpc --payload 65K", "--payload 65KiB is more than 64KiB"},
		{"rpc --payload -1", "not a size"},
		{"rpc --slower -1s", "not negative"},
		{"rpc --pid 0", "not a process number"},
		{"rpc --connection x", "not an address"},
		{"rpc --type sigh", "there are call, event"},
		{"rpc --status fine", "there are continue, error, ok"},
		{"rpc --program nope", "there is no RPC program"},
		{"rpc --procedure nope_*", "no procedure fits"},
		{"rpc --with xen", "only qemu"},
		{"rpc --path /no/such/file", "no such file"},
		{"rpc --domain [", "syntax error in pattern"},
		{"record --what everything /tmp/x", "--what takes rpc, qemu and events"},
		{"top --order age", "the order age is none of"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"trace"}, strings.Fields(c.args)...), strings.NewReader(""), &out, &errs)
		if code == 0 || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
			t.Errorf("%s: exit %d: %s%s", c.args, code, out.String(), errs.String())
		}
	}
}

func TestUnknownUserIsToldOf(t *testing.T) {
	o := &traceOptions{users: []string{"root", "0", "12345", "no-such-user"}}
	if _, err := o.filter(); err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	o.warn(&told)
	if got, want := told.String(), "warning: there is no user \"no-such-user\" here: only a SASL identity of that name is shown\n"; got != want {
		t.Errorf("got %q want %q", got, want)
	}
}

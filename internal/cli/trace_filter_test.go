package cli

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// TestTraceFlags gives each flag a value that it cannot have: the error names it
// and says what it can be.
func TestTraceFlags(t *testing.T) {
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"rpc --buffer 3", "--buffer 3 is not between 256KiB and 1GiB", 2},
		{"rpc --buffer 2G", "--buffer 2GiB is not between 256KiB and 1GiB", 2},
		{"rpc --buffer much", "not a size such as 4MiB", 2},
		{"rpc --payload 65K", "--payload 65KiB is more than 64KiB", 2},
		{"rpc --payload -1", "not a size", 2},
		{"rpc --slower -1s", "not negative", 2},
		{"rpc --slow 1s", "unknown flag --slow", 2},
		{"rpc --pid 0", `--pid: "0" is not a process number`, 2},
		{"rpc --connection x", `--connection: "x" is not an address`, 2},
		{"rpc --pid 1,-2", `--pid: "-2" is not a process number`, 2},
		{"rpc --type sigh", "is none of call, event", 2},
		{"rpc --status fine", "is none of continue, error, ok", 2},
		{"rpc --program nope", "there is no RPC program", 2},
		{"rpc --procedure nope_*", "no procedure fits", 2},
		{"rpc --with xen", "only qemu", 2},
		{"rpc --path /no/such/file", "no such file", 4},
		{"rpc --domain [", "syntax error in pattern", 2},
		{"record --what everything /tmp/x", "hint: one of rpc, qemu, events", 2},
		{"rpc --format xml", "no output format", 2},
		{"export --format xml -o - /tmp/x", "no format \"xml\" to export", 2},
		{"export --to https://localhost -o - /tmp/x", "takes the format otlp alone", 2},
		{"export /tmp/x", "no file to write", 2},
		{"rpc --otlp http://192.0.2.7:4318", "hint: use https", 2},
		{"rpc --otlp collector:4318", "is not an address", 2},
		{"rpc --otlp https://localhost --json", "so --json says nothing", 2},
		{"top --by age", "calls are not counted by", 2},
		{"top --order age", "the order age is none of", 2},
	} {
		t.Run(c.args, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(t.Context(), append([]string{"trace"}, strings.Fields(c.args)...), strings.NewReader(""), &out,
				&errs)
			if code != c.code || !strings.Contains(errs.String(), c.want) || out.Len() > 0 {
				t.Errorf("exit %d: %s%s", code, out.String(), errs.String())
			}
		})
	}
}

func TestUnknownUsersAreWarnedOf(t *testing.T) {
	var errs bytes.Buffer
	args := []string{
		"trace", "replay", "--user", "root,0,12345,no-such-user", "--user", "nor-this",
		filepath.Join(t.TempDir(), "none"),
	}
	if code := run(t.Context(), args, strings.NewReader(""), &errs, &errs); code != 4 {
		t.Errorf("exit %d", code)
	}
	want := `warning: there is no user "no-such-user" here: only a SASL identity of that name is shown
warning: there is no user "nor-this" here: only a SASL identity of that name is shown
postern: `
	if got := errs.String(); !strings.HasPrefix(got, want) {
		t.Errorf("got %q want %q", got, want)
	}
}

package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/manual"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// goText is what only a programmer of Go says.
var goText = regexp.MustCompile(`strconv\.|invalid syntax|panic|goroutine|runtime error|%!|` +
	`\b(open|lstat|stat|mkdir|read|fork/exec) /|accepts (at most |between |\d)|arg\(s\)|flag provided but|` +
	`[^-]json: |asn1: |\*[a-z]+\.[A-Z]`)

// shape is what a command says when it fails: a sentence, and what to do.
var shape = regexp.MustCompile(`(?s)^(?:.*\n)?postern: [^\n]+(\n[^\n]+)*\nhint: [^\n]+\n$`)

// failing runs a command line that must fail, and judges what it says. Codes are
// the exit codes that are allowed.
func failing(t *testing.T, codes []int, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whatever takes these words for work to do ends at once
	var out, errs bytes.Buffer
	code := run(ctx, args, strings.NewReader(""), &out, &errs)
	said := errs.String()
	switch {
	case !slices.Contains(codes, code):
		t.Errorf("postern %s: exit code %d, not one of %v\n%s", strings.Join(args, " "), code, codes, said)
	case !shape.MatchString(said):
		t.Errorf("postern %s: not a message and a hint:\n%s", strings.Join(args, " "), said)
	case goText.MatchString(said):
		t.Errorf("postern %s: says %q:\n%s", strings.Join(args, " "), goText.FindString(said), said)
	}
	return said
}

// leaves calls f for each command that does something.
func leaves(t *testing.T, f func(t *testing.T, path []string, c *cobra.Command)) {
	var walk func(path []string, c *cobra.Command)
	walk = func(path []string, c *cobra.Command) {
		if manual.IsTopic(c) {
			return
		}
		if !c.HasSubCommands() {
			t.Run(strings.Join(path, "-"), func(t *testing.T) { f(t, path, c) })
			return
		}
		for _, sub := range c.Commands() {
			walk(append(path[:len(path):len(path)], sub.Name()), sub)
		}
	}
	walk(nil, newRoot(&app{}))
}

func TestEveryCommandRefusesWrongFlagsAndArguments(t *testing.T) {
	t.Setenv("POSTERN_STATE", filepath.Join(t.TempDir(), "state"))
	wrong := []int{2}
	leaves(t, func(t *testing.T, path []string, c *cobra.Command) {
		failing(t, wrong, append(path, "--no-such-flag")...)
		failing(t, wrong, append(path, "-?")...)
		if c.Args != nil && c.Args(c, nil) != nil {
			failing(t, wrong, path...)
		}
		if many := make([]string, 9); c.Args != nil && c.Args(c, many) != nil {
			failing(t, wrong, append(path, "a", "b", "c", "d", "e", "f", "g", "h", "i")...)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !slices.Contains([]string{"string", "stringSlice", "stringArray", "func"}, f.Value.Type()) {
				if said := failing(t, wrong, append(path, "--"+f.Name+"=!")...); !strings.Contains(said, "--"+f.Name) {
					t.Errorf("the flag %s is not named:\n%s", f.Name, said)
				}
			}
		})
	})
}

func TestEveryGroupRefusesUnknownCommands(t *testing.T) {
	var walk func(path []string, c *cobra.Command)
	walk = func(path []string, c *cobra.Command) {
		if !c.HasSubCommands() {
			return
		}
		failing(t, []int{2}, append(path, "no-such-command")...)
		for _, sub := range c.Commands() {
			walk(append(path[:len(path):len(path)], sub.Name()), sub)
		}
	}
	walk(nil, newRoot(&app{}))
}

// stateless are the commands, by the begin of their names, that read no state, and
// what they do instead.
var stateless = map[string]string{
	"agent": "sends to a server", "completion": "prints", "doctor": "says so",
	"import-apache": "reads a configuration",
	"join":          "asks a server", "leave": "undoes what joining did",
	"init": "makes it", "man": "writes pages", "otp-token": "is a software token",
	"pkcs11-module": "is a child process",
	"restore":       "makes it",
	"run":           "makes it", "schema": "prints", "ssh-check": "audits sshd", "ssh-config": "writes sshd's files",
	"ssh-login": "asks a server", "ssh-enrol": "asks a server",
	"ssh-shell": "asks a server", "trace": "needs libvirt alone", "version": "prints", "witness": "keeps its own",
}

// dummies are arguments that a command takes for good until it looks into the
// state.
var dummies = map[string][]string{
	"ca-acme-add": {"alice"}, "ca-acme-disable": {"alice", "x"}, "ca-acme-list": {"alice"}, "ca-sign": {"--csr", "-"},
	"ca-export": {"1"}, "ca-intermediate-new": {"server"}, "ca-issue": {"--server", "a.example.com"},
	"ca-renew": {"1"}, "ca-revoke": {"1"}, "ca-root-export-key": {"--out", "NEW"},
	"ca-root-remove-key": {"--key", "SECRET"}, "ca-root-restore-key": {"--key", "SECRET"}, "ca-show": {"1"},
	"host-add": {"hv1"}, "host-show": {"hv1"}, "host-suspend": {"hv1"}, "host-resume": {"hv1"}, "host-remove": {"hv1"},
	"host-set":     {"hv1", "--add-group", "hypervisors"},
	"ca-token-add": {"x", "--domain", "example.com"}, "ca-token-remove": {"x"},

	"log-export": {"--cursor", "NEW", "--to", "https://example.com"}, "log-prove": {"1"}, "log-show": {"1"},
	"ca-root-retire": {"root"}, "host-rescue-codes": {"hv1"}, "log-archive": {"--before", "1", "--to", "NEW"},
	"alert-test": {"x"},
	"otp-add":    {"--person", "alice", "--out", "NEW"}, "otp-assign": {"x"}, "otp-disable": {"x"},
	"otp-enable": {"x"},
	"otp-revoke": {"x"}, "otp-show": {"x"},
	"otp-export": {"--out", "NEW"}, "otp-hotp": {"--person", "alice", "--out", "NEW"},
	"otp-totp":         {"--person", "alice", "--out", "NEW"},
	"otp-backup-codes": {"--person", "alice", "--out", "NEW"}, "otp-verify": {"123456"},
	"user-account-add": {"--person", "alice", "al"}, "user-account-remove": {"al"}, "user-add": {"alice"},
	"user-invite": {"alice"}, "user-add-key": {"alice", "KEY"},
	"user-recover": {"alice"}, "user-remove": {"alice"}, "user-resume": {"alice"}, "user-show": {"alice"},
	"user-suspend": {"alice"},
	"user-set":     {"alice", "--email", "a@example.com"}, "ssh-revoke": {"1"},
	"ssh-sign": {"--person", "alice", "KEY"}, "log-verify": nil, "otp-import": {"-"},
	"otp-client-add": {"--out", "NEW"}, "otp-client-disable": {"1"}, "otp-client-enable": {"1"},
	"otp-upstream-set": {"--id", "1", "--key-file", "SECRET"},
}

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice\n"

// needState calls f for each command that reads the state, with arguments.
func needState(t *testing.T, f func(t *testing.T, args []string)) {
	leaves(t, func(t *testing.T, path []string, c *cobra.Command) {
		name := strings.Join(path, "-")
		for begin := range stateless {
			if strings.HasPrefix(name, begin) {
				return
			}
		}
		args := append(path, dummies[name]...)
		for i, arg := range args {
			switch arg {
			case "NEW":
				args[i] = filepath.Join(t.TempDir(), "new")
			case "SECRET":
				args[i] = filepath.Join(t.TempDir(), "secret")
				if err := os.WriteFile(args[i], []byte("EHmo8FMxuhumBlTinC4uYL0Mgwg=\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			case "KEY":
				args[i] = filepath.Join(t.TempDir(), "key.pub")
				if err := os.WriteFile(args[i], []byte(publicKey), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		f(t, args)
	})
}

func TestEveryCommandSaysThatThereIsNoState(t *testing.T) {
	t.Setenv("POSTERN_STATE", filepath.Join(t.TempDir(), "none"))
	needState(t, func(t *testing.T, args []string) {
		if said := failing(t, []int{4}, args...); !strings.Contains(said, "postern init") {
			t.Errorf("%v does not say how to make the state:\n%s", args, said)
		}
	})
}

func TestEveryCommandSaysThatTheStateIsUnreadable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	damaged := t.TempDir()
	for path, text := range map[string]string{
		file: "", filepath.Join(damaged, "postern.db"): "this is no database",
		filepath.Join(damaged, "kek"): "no key",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, dir := range map[string]string{"a file": file, "damaged": damaged} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("POSTERN_STATE", dir)
			needState(t, func(t *testing.T, args []string) { failing(t, []int{1, 2, 4, 5}, args...) })
		})
	}
}

package cli

import (
	"errors"
	"io/fs"
	"os"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/terminal"
)

// prompt asks for passwords and codes.
func (a *app) prompt() terminal.Prompt { return terminal.Prompt{In: a.in, Err: a.err} }

// askCode asks for a person's code.
func (a *app) askCode(person string) (string, error) {
	return a.prompt().Line("Code for " + person + ": ")
}

// toStdout reports whether --out means standard output.
func toStdout(out string) bool { return out == "" || out == "-" }

// print writes to where --out says, in the place of a file that is there.
func (a *app) print(out string, data []byte) error {
	if toStdout(out) {
		_, err := a.out.Write(data)
		return err
	}
	if err := durable.Output(out, data, 0o644); err != nil {
		return postern.Errorf(postern.Unavailable, "%w", err)
	}
	return a.done(nil, "wrote %s\n", out)
}

// checkNew fails if there is a file already where --out says.
func checkNew(out string) error {
	if _, err := os.Lstat(out); toStdout(out) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return postern.Errorf(postern.Conflict, "%s exists already", out).
		WithHint("name another file with --out, or move that one away")
}

// createNew writes a file that must not exist yet.
func createNew(out string, data []byte, mode fs.FileMode) error {
	err := durable.Create(out, data, mode)
	if there := checkNew(out); errors.Is(err, fs.ErrExist) && there != nil {
		return there
	}
	if err != nil {
		return postern.Errorf(postern.Invalid, "%w", err)
	}
	return nil
}

// secretOut writes a secret to a new file of mode 0600, or to a terminal, where it
// stays once. A pipe gets it only if asked for with "-".
func (a *app) secretOut(out string, secret []byte) error {
	if !toStdout(out) {
		return createNew(out, secret, 0o600)
	}
	if err := a.secretTarget(out); err != nil {
		return err
	}
	_, err := a.out.Write(secret)
	return err
}

// secretTarget fails early if secretOut would.
func (a *app) secretTarget(out string) error {
	if out == "" && !terminal.IsTerminal(a.out) {
		return postern.Errorf(postern.Invalid, "a secret is not printed into a pipe or a file that others may read").
			WithHint("give --out FILE for a file of mode 0600, or --out - to have it all the same")
	}
	return checkNew(out)
}

package cli

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"

	"github.com/postern-project/postern"
	"golang.org/x/term"
)

// maxPassword bounds a password and the file that holds one.
const maxPassword = 4096

// passwordFile returns the first line of a file; "-" is standard input.
func (a *app) passwordFile(path string) ([]byte, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(a.in, maxPassword))
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "read the password: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || len(line) > maxPassword {
		return nil, postern.Errorf(postern.Invalid, "%s holds no password on its first line", path)
	}
	return line, nil
}

// newPassword returns a password for something that is being made: from the file
// if one is named, else asked for twice on a terminal, else made here. It reports
// whether it was made here and so has to be shown, once.
func (a *app) newPassword(file, what string) (password string, made bool, err error) {
	if file != "" {
		line, err := a.passwordFile(file)
		return string(line), false, err
	}
	if tty, ok := a.terminal(); ok {
		password, err := a.ask(tty, "Password for "+what+" (empty: make one): ")
		if err != nil || password == "" {
			return rand.Text(), true, err
		}
		again, err := a.ask(tty, "Once more: ")
		if err == nil && again != password {
			err = postern.Errorf(postern.Invalid, "the two passwords differ")
		}
		return password, false, err
	}
	return rand.Text(), true, nil
}

// password returns a password that exists: from the file if one is named, else
// asked for on a terminal.
func (a *app) password(file, what string) ([]byte, error) {
	if file != "" {
		return a.passwordFile(file)
	}
	tty, ok := a.terminal()
	if !ok {
		return nil, postern.Errorf(postern.Invalid, "%s needs a passphrase, and there is no terminal to ask on", what).WithHint("give --passphrase-file FILE")
	}
	s, err := a.ask(tty, "Passphrase for "+what+": ")
	return []byte(s), err
}

// terminal returns standard input if it is a terminal.
func (a *app) terminal() (int, bool) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	return int(f.Fd()), true
}

// ask reads a line without echo.
func (a *app) ask(tty int, prompt string) (string, error) {
	fmt.Fprint(a.err, prompt)
	line, err := term.ReadPassword(tty)
	fmt.Fprintln(a.err)
	if err != nil {
		return "", postern.Errorf(postern.Invalid, "read the password: %w", err)
	}
	return string(line), nil
}

package terminal

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/postern-project/postern"
	"golang.org/x/term"
)

// maxLine bounds a password, a code, and the file that holds one.
const maxLine = 4096

// Prompt reads what a command is given: files, and passwords and codes from a terminal
// without echo, from a file or a pipe.
type Prompt struct {
	In  io.Reader
	Err io.Writer // where the questions go
}

// maxInput bounds a file that is read whole: a list of a million revoked serial numbers is
// smaller.
const maxInput = 16 << 20

// Open opens a file; "-" is In, which closing leaves open.
func (p Prompt) Open(path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(p.In), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	return f, nil
}

// Read reads a file whole; "-" is In. It is Invalid if that is larger than 16 MiB.
func (p Prompt) Read(path string) ([]byte, error) {
	in, err := p.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err == nil && len(data) > maxInput {
		err = postern.Errorf(postern.Invalid, "the input is larger than %d MiB", maxInput>>20)
	}
	return data, err
}

// Line asks the question if In is a terminal, and returns the first line of In.
func (p Prompt) Line(question string) (string, error) {
	if !IsTerminal(p.In) {
		return firstLine(io.ReadAll(io.LimitReader(p.In, maxLine)))
	}
	fmt.Fprint(p.Err, question)
	line, err := term.ReadPassword(int(p.In.(*os.File).Fd()))
	fmt.Fprintln(p.Err)
	return firstLine(line, err)
}

func firstLine(data []byte, err error) (string, error) {
	if err != nil {
		return "", postern.Errorf(postern.Invalid, "read the input: %w", err)
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return strings.TrimSuffix(string(line), "\r"), nil
}

// FirstLine returns the first line of a file; "-" is In. It is Invalid if that is
// empty or longer than 4 KiB.
func (p Prompt) FirstLine(path string) ([]byte, error) {
	in := p.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, postern.Errorf(postern.NotFound, "read the password: %w", err)
		}
		defer f.Close()
		in = f
	}
	line, err := firstLine(io.ReadAll(io.LimitReader(in, maxLine+2)))
	if err != nil {
		return nil, err
	}
	if line == "" || len(line) > maxLine {
		return nil, postern.Errorf(postern.Invalid, "%s holds no password on its first line", path)
	}
	return []byte(line), nil
}

// Passphrase returns the passphrase of something that exists: from the file if one
// is named, else asked for on the terminal.
func (p Prompt) Passphrase(file, what string) ([]byte, error) {
	if file != "" {
		return p.FirstLine(file)
	}
	if !IsTerminal(p.In) {
		return nil, postern.Errorf(postern.Invalid, "%s needs a passphrase, and there is no terminal to ask on", what).
			WithHint("give the passphrase in a file")
	}
	line, err := p.Line("Passphrase for " + what + ": ")
	return []byte(line), err
}

// NewPassword returns a password for something that is being made: from the file if
// one is named, else asked for twice on the terminal, else a random one. It reports
// whether it is random and so has to be shown, once.
func (p Prompt) NewPassword(file, what string) (password string, random bool, err error) {
	if file != "" {
		line, err := p.FirstLine(file)
		return string(line), false, err
	}
	if !IsTerminal(p.In) {
		return rand.Text(), true, nil
	}
	password, err = p.Line("Password for " + what + " (empty: make one): ")
	if err != nil || password == "" {
		return rand.Text(), true, err
	}
	again, err := p.Line("Once more: ")
	if err == nil && again != password {
		err = postern.Errorf(postern.Invalid, "the two passwords differ")
	}
	return password, false, err
}

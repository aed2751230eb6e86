package postern

import (
	"errors"
	"fmt"
)

// Code classifies an Error. It maps to an HTTP status and to a process's exit
// code, both here and nowhere else.
type Code int

// The codes. The zero Code is Internal: an error without a code is a fault of the
// program.
const (
	Internal    Code = iota // something broke
	Invalid                 // the request or the command line is wrong
	Denied                  // understood, and refused
	NotFound                // no such thing
	Conflict                // it exists already, or changed meanwhile
	Unavailable             // something that is needed is unavailable; a later attempt may succeed
	TooMany                 // rate limited
)

var codes = [...]struct {
	name   string
	status int
	exit   int
}{
	Internal:    {"internal", 500, 1},
	Invalid:     {"invalid", 400, 2},
	Denied:      {"denied", 403, 3},
	NotFound:    {"not found", 404, 4},
	Conflict:    {"conflict", 409, 1},
	Unavailable: {"unavailable", 503, 5},
	TooMany:     {"too many", 429, 5},
}

// String returns the code's name in words.
func (c Code) String() string { return codes[c].name }

// HTTPStatus returns the status that answers a request which ended in c.
func (c Code) HTTPStatus() int { return codes[c].status }

// ExitCode returns the exit code of a command that ended in c.
func (c Code) ExitCode() int { return codes[c].exit }

// Error is an error that says what happened and, in Hint, what to do about it.
// Neither ever carries a secret.
type Error struct {
	Code Code
	Msg  string // what happened
	Hint string // what to do, a sentence or a command; may be empty
	Err  error  // cause; may be nil
}

// Errorf returns an Error whose message is formatted as by [fmt.Errorf], %w
// included.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Msg: err.Error(), Err: errors.Unwrap(err)}
}

// WithHint returns a copy of e that carries a hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Error returns the message, without the hint.
func (e *Error) Error() string { return e.Msg }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the code of the first Error in err's chain, or Internal.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// HintOf returns the hint of the first Error in err's chain that has one, or "".
func HintOf(err error) string {
	for {
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Hint != "" {
			if ok {
				return e.Hint
			}
			return ""
		}
		err = e.Err
	}
}

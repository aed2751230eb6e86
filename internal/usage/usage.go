// Package usage says in Postern's words what is wrong with a command line, where
// cobra only says it in its own.
package usage

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Explain makes the commands of a tree say what is wrong with their flags and arguments.
// A command without Args takes the arguments that its Use line names.
func Explain(root *cobra.Command) {
	root.SetFlagErrorFunc(flagError)
	explainArgs(root)
}

func explainArgs(cmd *cobra.Command) {
	check := cmd.Args
	if check == nil {
		check = named(cmd.Use)
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		return wrongArgs(cmd, check, args)
	}
	for _, sub := range cmd.Commands() {
		explainArgs(sub)
	}
}

// named returns the arguments that a Use line names, as in "add NAME --group GROUP": any
// if it names alternatives, or more of one.
func named(use string) cobra.PositionalArgs {
	_, line, _ := strings.Cut(use, " ")
	least, most, ofFlag := 0, 0, false
	for word := range strings.FieldsSeq(line) {
		flag := strings.HasPrefix(strings.TrimLeft(word, "[("), "--")
		switch {
		case strings.ContainsAny(word, "(|"):
			return cobra.ArbitraryArgs
		case flag, ofFlag:
		case strings.Contains(word, "..."):
			return cobra.ArbitraryArgs
		case strings.HasPrefix(word, "["):
			most++
		default:
			least, most = least+1, most+1
		}
		ofFlag = flag
	}
	return cobra.RangeArgs(least, most)
}

// wrongArgs names what is missing, or what is too much.
func wrongArgs(cmd *cobra.Command, check cobra.PositionalArgs, args []string) error {
	if cmd.HasSubCommands() && len(args) > 0 {
		return unknownCommand(cmd, args[0])
	}
	for n := len(args) - 1; n >= 0; n-- {
		if check(cmd, args[:n]) == nil {
			return postern.Errorf(postern.Invalid, "unexpected argument %q", args[n])
		}
	}
	_, wanted, _ := strings.Cut(cmd.Use, " ")
	return postern.Errorf(postern.Invalid, "missing %s", wanted)
}

func unknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	err := postern.Errorf(postern.Invalid, "unknown command %q", word)
	if near := terminal.Nearest(word, names); near != "" {
		return err.WithHint("did you mean: %s %s", cmd.CommandPath(), near)
	}
	return err
}

// flagError says in words what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return unknownFlag(cmd, unknown.GetSpecifiedName())
	}
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return badValue(bad)
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		value, _ := pflag.UnquoteUsage(missing.GetFlag())
		return postern.Errorf(postern.Invalid, "--%s needs a value: %s", missing.GetFlag().Name, value)
	}
	return postern.Errorf(postern.Invalid, "%w", err)
}

func unknownFlag(cmd *cobra.Command, name string) error {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	dashes := "--"
	if len(name) == 1 {
		dashes = "-"
	}
	err := postern.Errorf(postern.Invalid, "unknown flag %s%s", dashes, name)
	if near := terminal.Nearest(name, names); near != "" {
		return err.WithHint("did you mean: --%s", near)
	}
	return err
}

// wanted says what values a type of flag takes.
var wanted = map[string]string{
	"bool":     "true or false",
	"boolfunc": "true or false",
	"bytes":    "a size such as 4MiB or 65536",
	"duration": "a length of time such as 90m or 12h",
	"float64":  "a number",
	"int":      "a whole number",
	"int64":    "a whole number",
	"uint16":   "a whole number from 0 to 65535",
	"uint32":   "a whole number from 0 to 4294967295",
	"uint64":   "a whole number from 0 on",
}

func badValue(bad *pflag.InvalidValueError) error {
	f := bad.GetFlag()
	if own, ok := errors.AsType[*postern.Error](bad.Unwrap()); ok {
		return postern.Errorf(own.Code, "--%s: %w", f.Name, own)
	}
	if what := wanted[f.Value.Type()]; what != "" {
		return postern.Errorf(postern.Invalid, "--%s: %q is not %s", f.Name, bad.GetValue(), what)
	}
	return postern.Errorf(postern.Invalid, "--%s: %w", f.Name, bad.Unwrap())
}

// groupError matches what cobra says of flags that exclude each other.
var groupError = regexp.MustCompile(`^if any flags in the group .*; \[(.*)\] were all set$`)

// requiredError matches what cobra says of flags that must be given.
var requiredError = regexp.MustCompile(`^required flag\(s\) "(.*)" not set$`)

// Classified gives an error of cobra's its code, and Postern's words.
func Classified(err error) error {
	if m := groupError.FindStringSubmatch(err.Error()); m != nil {
		flags := strings.Fields(m[1])
		return postern.Errorf(postern.Invalid, "--%s cannot be used together", strings.Join(flags, " and --"))
	}
	if m := requiredError.FindStringSubmatch(err.Error()); m != nil {
		return postern.Errorf(postern.Invalid, "missing --%s", strings.ReplaceAll(m[1], `", "`, " and --"))
	}
	return err
}

// Message returns what happened, without the names of Go's functions.
func Message(err error) string {
	msg := strings.TrimRight(err.Error(), "\n")
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		msg = strings.Replace(msg, failed.Error(), fmt.Sprintf("%s: %v", failed.Path, failed.Err), 1)
	}
	return msg
}

package record

import (
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Condition is a question about a call, in CEL. It may ask for took, a duration; error,
// whether the call failed; open, whether it has no answer yet; and for procedure, user,
// client, machine and daemon, which are texts.
type Condition struct {
	text    string
	program cel.Program
}

// NewCondition returns an Invalid error for what is no question.
func NewCondition(text string) (*Condition, error) {
	env, err := cel.NewEnv(
		cel.Variable("took", cel.DurationType), cel.Variable("error", cel.BoolType),
		cel.Variable("open", cel.BoolType),
		cel.Variable("procedure", cel.StringType), cel.Variable("user", cel.StringType),
		cel.Variable("client", cel.StringType), cel.Variable("machine", cel.StringType),
		cel.Variable("daemon", cel.StringType))
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, postern.Errorf(postern.Invalid, "the condition %q: %w", text, issues.Err()).
			WithHint(`such as: took > duration("5s") || error; it may ask for took, error, open, procedure, user, ` +
				"client, machine and daemon")
	}
	if ast.OutputType() != cel.BoolType {
		return nil, postern.Errorf(postern.Invalid, "the condition %q is not true or false, but a value of %s", text,
			ast.OutputType())
	}
	program, err := env.Program(ast, cel.CostLimit(1<<16))
	return &Condition{text, program}, err
}

// facts are what a condition may ask for.
type facts struct {
	took                                     time.Duration
	failed, open                             bool
	procedure, user, client, machine, daemon string
}

func newFacts(e *event.Event, took time.Duration, open bool) facts {
	f := facts{
		took: took, open: open, failed: !open && libvirt.Status(e.Status) == libvirt.Failed && !e.Kind.Notice(),
		procedure: libvirt.ProgramName(e.Prog) + "." + libvirt.ProcedureName(e.Prog, e.Proc),
		client:    e.Comm, daemon: "",
	}
	if e.Server() {
		f.daemon = e.Process()
		if p := e.Call.Peer; p != nil {
			f.user, f.client = string(format.Identity(nil, p)), string(format.Client(nil, p))
		}
	}
	var d libvirt.Decoder
	if c := e.Call; c.Args != nil {
		f.machine = string(d.Arguments(c).Domain().Name)
	}
	return f
}

// String says what a call was, in a few words.
func (f facts) String() string {
	how := "ok"
	switch {
	case f.open:
		how = "still runs"
	case f.failed:
		how = "failed"
	}
	s := fmt.Sprintf("%s by %s: %s, %s", f.procedure, format.Clean(nil, f.client), how, format.Duration(f.took))
	if f.machine != "" {
		s += ", machine " + string(format.Clean(nil, f.machine))
	}
	return s
}

// holds reports whether the condition is true of a call.
func (c *Condition) holds(f facts) (bool, error) {
	v, _, err := c.program.Eval(map[string]any{
		"took": f.took, "error": f.failed, "open": f.open, "procedure": f.procedure, "user": f.user,
		"client": f.client, "machine": f.machine, "daemon": f.daemon,
	})
	if err != nil {
		return false, fmt.Errorf("the condition %q: %w", c.text, err)
	}
	b, _ := v.Value().(bool)
	return b, nil
}

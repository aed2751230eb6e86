package alert

import (
	"context"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
	"github.com/postern-project/postern"
)

// The bounds of an expression. Costs are CEL's units, of some tens of nanoseconds.
const (
	maxLength = 8192 // code points
	maxDepth  = 64   // nested expressions
	maxCost   = 200_000
)

// Variable is what an expression may read.
type Variable struct{ Name, Type, Doc string }

// Variables are what expressions may read.
var Variables = []Variable{
	{
		"event", "entry",
		"The entry, with the fields of its JSON: kind, outcome, person, address, host, object, reason, count, " +
			"time, took, links and details. A text that it does not have is empty.",
	},
	{"hour", "int", "The hour of the entry's time, 0 to 23, in the server's time zone."},
	{
		"new_address", "bool",
		"Whether the entry's person has signed in before, and never from its address.",
	},
}

var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		ext.NativeTypes(reflect.TypeFor[postern.Event](), ext.ParseStructTag("json")),
		ext.Strings(),
		cel.ParserExpressionSizeLimit(maxLength), cel.ParserRecursionLimit(maxDepth),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(2), cel.ValidateRegexLiterals(),
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
		cel.Variable("event", cel.ObjectType("postern.Event")),
		cel.Variable("hour", cel.IntType),
		cel.Variable("new_address", cel.BoolType),
		cel.Function("within",
			cel.MemberOverload("string_within_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
				cel.BinaryBinding(within)),
			cel.MemberOverload("string_within_list", []*cel.Type{cel.StringType, cel.ListType(cel.StringType)},
				cel.BoolType, cel.BinaryBinding(withinAny))),
	)
})

// within reports whether an address is in a network, or the same address, as in rules.
func within(address, network ref.Val) ref.Val {
	a, err := netip.ParseAddr(string(address.(types.String)))
	if err != nil {
		return types.WrapErr(err)
	}
	text := string(network.(types.String))
	if one, err := netip.ParseAddr(text); err == nil {
		return types.Bool(a.Unmap() == one.Unmap())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Bool(p.Contains(a.Unmap()))
}

func withinAny(address, networks ref.Val) ref.Val {
	for it := networks.(traits.Lister).Iterator(); it.HasNext() == types.True; {
		if v := within(address, it.Next()); v != types.False {
			return v
		}
	}
	return types.False
}

// compile compiles an expression.
func compile(source string) (cel.Program, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	checked, issues := env.Compile(source)
	if issues != nil && len(issues.Errors()) > 0 {
		e := issues.Errors()[0]
		return nil, postern.Errorf(postern.Invalid, "line %d, column %d: %s", e.Location.Line(), e.Location.Column()+1,
			e.Message)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, postern.Errorf(postern.Invalid, "it is true or false, and this is a %s", checked.OutputType())
	}
	return env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
}

// reading is one entry that expressions are evaluated over.
type reading struct {
	ctx   context.Context
	event postern.Event
	store Store
	fresh *bool // new_address, once it was asked for
	err   error // of the store
}

// matches reports whether an expression holds for the entry. An expression that cannot be
// evaluated, as it reads a detail that the entry does not have, does not hold.
func (r *reading) matches(p cel.Program) bool {
	out, _, err := p.Eval(r)
	return err == nil && out == types.True
}

// ResolveName implements [cel.Activation].
func (r *reading) ResolveName(name string) (any, bool) {
	switch name {
	case "event":
		return r.event, true
	case "hour":
		return r.event.Time.In(time.Local).Hour(), true
	case "new_address":
		return r.newAddress(), true
	}
	return nil, false
}

// Parent implements [cel.Activation].
func (*reading) Parent() cel.Activation { return nil }

func (r *reading) newAddress() bool {
	if r.event.Person == "" || r.event.Address == "" {
		return false
	}
	if r.fresh == nil {
		fresh, err := r.store.NewAddress(r.ctx, r.event)
		if err != nil {
			r.err = err
			return false
		}
		r.fresh = &fresh
	}
	return *r.fresh
}

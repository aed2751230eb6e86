package gate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"github.com/postern-project/postern"
)

// A rule's bounds. Costs are CEL's units, of some tens of nanoseconds.
const (
	maxRuleLength = 8192    // code points
	maxRuleDepth  = 64      // nested expressions
	maxRuleCost   = 200_000 // worst case, estimated at load and counted when it runs
	maxLoops      = 2       // nested exists and all
	maxText       = 1024    // length of a text that costs are estimated with
)

// Rule is a compiled rule. It is safe for concurrent use.
type Rule struct {
	source    string
	program   cel.Program
	moving    bool
	certified bool // it reads a certificate, or who holds it
}

// RuleError is a mistake in a rule, found when it is compiled.
type RuleError struct {
	Line, Column int // from 1; in the rule's text
	Msg          string
}

// Error returns the place and the message.
func (e *RuleError) Error() string {
	return fmt.Sprintf("rule, line %d, column %d: %s", e.Line, e.Column, e.Msg)
}

// CompileRule compiles a rule; see the package comment for what it may say. The
// error is a *RuleError with the place of the first mistake.
func CompileRule(source string) (*Rule, error) {
	c, err := compile(source)
	if err != nil {
		return nil, err
	}
	if c.checked.OutputType() != cel.BoolType {
		return nil, &RuleError{1, 1, fmt.Sprintf("a rule is true or false, and this is a %s", c.checked.OutputType())}
	}
	return &Rule{
		source:    source,
		program:   c.program,
		moving:    c.reads("request", "time", "address"),
		certified: c.reads("cert", "issuer", "chain", "person"),
	}, nil
}

// compiled is an expression with its program.
type compiled struct {
	native  *ast.AST // as parsed, with lists compared singly
	checked *cel.Ast
	program cel.Program
}

// compile compiles an expression, whatever its type, and bounds its cost.
func compile(source string) (*compiled, error) {
	env, err := ruleEnv()
	if err != nil {
		return nil, err
	}
	parsed, issues := env.Parse(source)
	if err := firstIssue(issues); err != nil {
		return nil, err
	}
	native := parsed.NativeRep()
	if err := checkNetworks(native); err != nil {
		return nil, err
	}
	compareSingly(native)
	checked, issues := env.Check(parsed)
	if err := firstIssue(issues); err != nil {
		return nil, err
	}
	estimate, err := env.EstimateCost(checked, estimator{})
	if err != nil {
		return nil, &RuleError{1, 1, err.Error()}
	}
	if estimate.Max > maxRuleCost {
		return nil, &RuleError{1, 1, "the rule could take too long: use fewer loops inside loops"}
	}
	program, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxRuleCost))
	if err != nil {
		return nil, &RuleError{1, 1, err.Error()}
	}
	return &compiled{native: native, checked: checked, program: program}, nil
}

// reads reports whether the expression reads one of the variables.
func (c *compiled) reads(variables ...string) bool { return reads(c.native, variables...) }

func firstIssue(issues *cel.Issues) error {
	if issues == nil || len(issues.Errors()) == 0 {
		return nil
	}
	e := issues.Errors()[0]
	return &RuleError{e.Location.Line(), e.Location.Column() + 1, e.Message}
}

// Moving reports whether the rule's answer can change between two requests of
// one connection: it looks at the request or at the clock.
func (r *Rule) Moving() bool { return r.moving }

// String returns the rule's text.
func (r *Rule) String() string { return r.source }

// holds reports whether the rule holds. An error in it is a no.
func (r *Rule) holds(s *Subject) bool {
	out, _, err := r.program.Eval(s)
	return err == nil && out == types.True
}

// ResolveName gives a rule its variables.
func (s *Subject) ResolveName(name string) (any, bool) {
	switch {
	case s.Verified == nil && (name == "cert" || name == "issuer" || name == "chain"):
		return nil, false
	case name == "address" && !s.Request.Address.IsValid():
		return nil, false
	}
	switch name {
	case "cert":
		return s.Verified.Facts[0], true
	case "issuer":
		return s.Verified.Facts[1], true
	case "chain":
		return s.Verified.Facts, true
	case "person":
		return s.Holder, true
	case "request":
		return s.Request, true
	case "tls":
		return s.Request, true
	case "address":
		return s.Request.Address.String(), true
	case "time":
		return s.Request.Time, true
	}
	return nil, false
}

// Parent makes a Subject a cel.Activation of its own.
func (s *Subject) Parent() cel.Activation { return nil }

// one is the function that turns a list compared with one value into that
// value.
const one = "one"

// compareSingly wraps each list of a name's values that stands where one value
// is compared into one(). What may be a list stays one: what is looped over,
// indexed or measured, what stands right of in, and what is compared with a
// list in brackets.
func compareSingly(a *ast.AST) {
	lists := make(map[int64]bool)
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			lists[e.AsComprehension().IterRange().ID()] = true
		case ast.CallKind:
			for _, arg := range listArguments(e.AsCall()) {
				lists[arg.ID()] = true
			}
		}
	}))
	next := ast.MaxID(a)
	factory := ast.NewExprFactory()
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if !manyValued(e) || lists[e.ID()] {
			return
		}
		next++
		if place, ok := a.SourceInfo().GetOffsetRange(e.ID()); ok {
			a.SourceInfo().SetOffsetRange(next, place)
		}
		e.SetKindCase(factory.NewCall(e.ID(), one, renumbered(factory, e, next)))
	}))
}

// renumbered returns a copy of a select or a call under another ID; what is
// inside it stays the same.
func renumbered(f ast.ExprFactory, e ast.Expr, id int64) ast.Expr {
	if e.Kind() == ast.SelectKind {
		return f.NewSelect(id, e.AsSelect().Operand(), e.AsSelect().FieldName())
	}
	c := e.AsCall()
	if c.IsMemberFunction() {
		return f.NewMemberCall(id, c.FunctionName(), c.Target(), c.Args()...)
	}
	return f.NewCall(id, c.FunctionName(), c.Args()...)
}

// listArguments returns the arguments of a call that are taken as lists.
func listArguments(c ast.CallExpr) []ast.Expr {
	args := c.Args()
	switch c.FunctionName() {
	case "size", one:
		return append(args, target(c)...)
	case "@in":
		return args[1:]
	case "_[_]":
		return args[:1]
	case "_==_", "_!=_":
		if args[0].Kind() == ast.ListKind || args[1].Kind() == ast.ListKind {
			return args
		}
	}
	return nil
}

func target(c ast.CallExpr) []ast.Expr {
	if c.IsMemberFunction() {
		return []ast.Expr{c.Target()}
	}
	return nil
}

// manyValued reports whether an expression is a list of a name's values, by the
// way it is written: x.subject.y, x.issuer.y, x.san.y, request.headers[y], or
// x.extension(y).
func manyValued(e ast.Expr) bool {
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		if s.IsTestOnly() || s.FieldName() == "dn" || s.FieldName() == "oneline" ||
			s.Operand().Kind() != ast.SelectKind {
			return false
		}
		switch of := s.Operand().AsSelect().FieldName(); of {
		case "subject", "issuer", "san":
			return true
		}
	case ast.CallKind:
		c := e.AsCall()
		if c.FunctionName() == "extension" {
			return true
		}
		if c.FunctionName() == "_[_]" && c.Args()[0].Kind() == ast.SelectKind {
			return c.Args()[0].AsSelect().FieldName() == "headers"
		}
	}
	return false
}

// reads reports whether an expression reads one of the variables.
func reads(a *ast.AST, variables ...string) bool {
	found := false
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.IdentKind && slices.Contains(variables, e.AsIdent())
	}))
	return found
}

// checkNetworks finds networks that are written wrongly when the rule is
// loaded.
func checkNetworks(a *ast.AST) (err error) {
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if err != nil || e.Kind() != ast.CallKind || e.AsCall().FunctionName() != "within" {
			return
		}
		for _, arg := range e.AsCall().Args() {
			for _, lit := range literals(arg) {
				if _, ok := network(lit.text); !ok {
					at := a.SourceInfo().GetStartLocation(lit.id)
					err = &RuleError{at.Line(), at.Column() + 1, fmt.Sprintf("%q is not a network like 192.0.2.0/24",
						lit.text)}
				}
			}
		}
	}))
	return err
}

type literal struct {
	id   int64
	text string
}

func literals(e ast.Expr) []literal {
	switch e.Kind() {
	case ast.LiteralKind:
		if s, ok := e.AsLiteral().(types.String); ok {
			return []literal{{e.ID(), string(s)}}
		}
	case ast.ListKind:
		var out []literal
		for _, x := range e.AsList().Elements() {
			out = append(out, literals(x)...)
		}
		return out
	}
	return nil
}

// network parses a network, or an address that stands for itself alone.
func network(s string) (netip.Prefix, bool) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil
}

func within(address, net ref.Val) ref.Val {
	a, err := netip.ParseAddr(string(address.(types.String)))
	if err != nil {
		return types.NewErr("%s is not an address", address)
	}
	p, ok := network(string(net.(types.String)))
	if !ok {
		return types.NewErr("%s is not a network", net)
	}
	return types.Bool(p.Contains(a.Unmap()))
}

func withinAny(address, nets ref.Val) ref.Val {
	for it := nets.(traits.Lister).Iterator(); it.HasNext() == types.True; {
		if v := within(address, it.Next()); v != types.False {
			return v
		}
	}
	return types.False
}

func single(list ref.Val) ref.Val {
	l := list.(traits.Lister)
	if n := l.Size().(types.Int); n != 1 {
		return types.NewErr("%d values where one is compared", n)
	}
	return l.Get(types.IntZero)
}

// estimator bounds the sizes of what a rule reads.
type estimator struct{}

func (estimator) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	switch function {
	case one, "within", "extension":
		return &cost.CallEstimate{CostEstimate: cost.Estimate{Min: 1, Max: maxValues}}
	case "lowerAscii", "upperAscii":
		return &cost.CallEstimate{CostEstimate: cost.Estimate{Min: 1, Max: maxText / 10}}
	}
	return nil
}

func (estimator) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if n.Type() != nil && (n.Type().Kind() == types.ListKind || n.Type().Kind() == types.MapKind) {
		return &cost.SizeEstimate{Min: 0, Max: maxValues}
	}
	return &cost.SizeEstimate{Min: 0, Max: maxText}
}

func ruleError(err error) error {
	return postern.Errorf(postern.Invalid, "%w", err)
}

package gate

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// Value is a compiled expression whose result is the value of a header for an
// application. It is safe for concurrent use.
type Value struct {
	source  string
	program cel.Program
	request bool // it reads more than the certificate and the person
	dn      bool // its result is a distinguished name, escaped already
}

// CompileValue compiles an expression of the language of rules whose result is
// text, a whole number, a truth value, a time, or a list of texts. It does not
// read the request alone. The error is a *RuleError with the place of the first
// mistake.
func CompileValue(source string) (*Value, error) {
	c, err := compile(source)
	if err != nil {
		return nil, err
	}
	if !isText(c.checked.OutputType()) {
		return nil, &RuleError{1, 1, fmt.Sprintf("a header is text, and this is a %s",
			typeName(c.checked.OutputType()))}
	}
	request := c.reads("request", "tls", "address", "time")
	if request && !c.reads("cert", "issuer", "chain", "person") {
		return nil,
			&RuleError{
				1,
				1, "this reads neither the certificate nor the person; Caddy's own header_up sets what does not",
			}
	}
	root := c.native.Expr()
	return &Value{
		source:  source,
		program: c.program,
		request: request,
		dn:      root.Kind() == ast.SelectKind && root.AsSelect().FieldName() == "dn",
	}, nil
}

func isText(t *cel.Type) bool {
	switch t {
	case cel.StringType, cel.IntType, cel.BoolType, cel.TimestampType:
		return true
	}
	return t.IsEquivalentType(textsType)
}

// ReadsRequest reports whether the expression reads the request, the
// connection or the time, so that a Subject needs its Request.
func (v *Value) ReadsRequest() bool { return v.request }

// String returns the expression's text.
func (v *Value) String() string { return v.source }

// Text returns the value as a header carries it, "" if it cannot be evaluated.
// It is written as mod_ssl writes it: control characters as \ and two hexadecimal
// digits, the backslash as two, and UTF-8 as it is. A distinguished name is
// escaped already.
// A list is joined with commas, and is "" if one of its texts has a comma in it.
func (v *Value) Text(s *Subject) string {
	out, _, err := v.program.Eval(s)
	if err != nil || types.IsUnknownOrError(out) {
		return ""
	}
	switch x := out.Value().(type) {
	case string:
		return escapeHeader(x, v.dn)
	case int64, bool:
		return fmt.Sprint(x)
	case time.Time:
		return x.UTC().Format(time.RFC3339)
	}
	list, err := out.ConvertToNative(textsNative)
	if err != nil {
		return ""
	}
	texts := list.([]string)
	for i, t := range texts {
		if strings.Contains(t, ",") {
			return ""
		}
		texts[i] = escapeHeader(t, false)
	}
	return strings.Join(texts, ",")
}

// escapeHeader writes a text so that no two differ only in what a header cannot
// carry; see ASN1_STRFLGS_ESC_CTRL in X509_NAME_print_ex(3) of OpenSSL.
func escapeHeader(s string, dn bool) string {
	var b strings.Builder
	for i, r := range s {
		size := utf8.RuneLen(r)
		if r == utf8.RuneError {
			_, size = utf8.DecodeRuneInString(s[i:])
		}
		switch raw := s[i : i+size]; {
		case r == '\\' && !dn:
			b.WriteString(`\\`)
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError && size == 1:
			for _, c := range []byte(raw) {
				fmt.Fprintf(&b, `\%02X`, c)
			}
		default:
			b.WriteString(raw)
		}
	}
	return b.String()
}

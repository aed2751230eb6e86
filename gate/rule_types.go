package gate

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

var (
	certType    = cel.ObjectType("postern.Certificate")
	nameType    = cel.ObjectType("postern.Name")
	sanType     = cel.ObjectType("postern.AltNames")
	personType  = cel.ObjectType("postern.Person")
	requestType = cel.ObjectType("postern.Request")
	tlsType     = cel.ObjectType("postern.TLS")
	textsType   = cel.ListType(cel.StringType)
	textsNative = reflect.TypeFor[[]string]()
)

// ruleEnv is the environment that every rule is compiled in.
var ruleEnv = sync.OnceValues(func() (*cel.Env, error) {
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, err
	}
	provider := &ruleTypes{Registry: registry, fields: ruleFields()}
	return cel.NewEnv(
		cel.CustomTypeAdapter(provider),
		cel.CustomTypeProvider(provider),
		cel.ParserExpressionSizeLimit(maxRuleLength),
		cel.ParserRecursionLimit(maxRuleDepth),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxLoops), cel.ValidateRegexLiterals(),
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
		cel.Variable("cert", certType),
		cel.Variable("issuer", certType),
		cel.Variable("chain", cel.ListType(certType)),
		cel.Variable("person", personType),
		cel.Variable("request", requestType),
		cel.Variable("tls", tlsType),
		cel.Variable("address", cel.StringType),
		cel.Variable("time", cel.TimestampType),
		cel.Function(one, cel.Overload("one_list", []*cel.Type{textsType}, cel.StringType, cel.UnaryBinding(single))),
		cel.Function("within",
			cel.MemberOverload("string_within_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
				cel.BinaryBinding(within)),
			cel.MemberOverload("string_within_list", []*cel.Type{cel.StringType, textsType}, cel.BoolType,
				cel.BinaryBinding(withinAny))),
		cel.Function("lowerAscii", cel.MemberOverload("string_lower_ascii", []*cel.Type{cel.StringType},
			cel.StringType, cel.UnaryBinding(lowerText))),
		cel.Function("upperAscii", cel.MemberOverload("string_upper_ascii", []*cel.Type{cel.StringType},
			cel.StringType, cel.UnaryBinding(upperText))),
		cel.Function("extension",
			cel.MemberOverload("certificate_extension", []*cel.Type{certType, cel.StringType}, textsType,
				cel.BinaryBinding(extension))),
	)
})

func extension(cert, oid ref.Val) ref.Val {
	c, ok := cert.Value().(*Certificate)
	if !ok {
		return types.NoSuchOverloadErr()
	}
	return types.NewStringList(types.DefaultTypeAdapter, c.Extension(string(oid.(types.String))))
}

func lowerText(s ref.Val) ref.Val { return types.String(mapASCII(s, 'A', 'Z')) }
func upperText(s ref.Val) ref.Val { return types.String(mapASCII(s, 'a', 'z')) }

// mapASCII turns the letters between two into those of the other case, and leaves
// alone what is not ASCII.
func mapASCII(s ref.Val, from, to rune) string {
	return strings.Map(func(r rune) rune {
		if from <= r && r <= to {
			return r ^ 0x20
		}
		return r
	}, string(s.(types.String)))
}

// ruleTypes describes the fields of Postern's types to CEL, and reads them.
type ruleTypes struct {
	*types.Registry
	fields map[string]map[string]*types.FieldType
}

func (t *ruleTypes) FindStructType(name string) (*types.Type, bool) {
	if _, ok := t.fields[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return t.Registry.FindStructType(name)
}

func (t *ruleTypes) FindStructFieldNames(name string) ([]string, bool) {
	fields, ok := t.fields[name]
	if !ok {
		return t.Registry.FindStructFieldNames(name)
	}
	var names []string
	for f := range fields {
		names = append(names, f)
	}
	return names, true
}

func (t *ruleTypes) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	fields, ok := t.fields[name]
	if !ok {
		return t.Registry.FindStructFieldType(name, field)
	}
	f, ok := fields[field]
	return f, ok
}

// NewValue refuses to make a value of our types inside a rule.
func (t *ruleTypes) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ok := t.fields[name]; ok {
		return types.NewErr("a rule cannot make a %s", name)
	}
	return t.Registry.NewValue(name, fields)
}

// NativeToValue wraps our structures so that they can stand in lists and be
// given to functions.
func (t *ruleTypes) NativeToValue(v any) ref.Val {
	switch v := v.(type) {
	case *Certificate:
		return object{v, certType}
	case *Name:
		return object{v, nameType}
	case *AltNames:
		return object{v, sanType}
	case *Holder:
		return object{v, personType}
	case *Request:
		return object{v, requestType}
	case []*Certificate:
		list := make([]ref.Val, len(v))
		for i, c := range v {
			list[i] = object{c, certType}
		}
		return types.NewRefValList(t, list)
	}
	return t.Registry.NativeToValue(v)
}

// object is one of our structures as a CEL value; rules only select from it.
type object struct {
	value any
	typ   *types.Type
}

func (o object) Type() ref.Type { return o.typ }
func (o object) Value() any     { return o.value }

func (o object) Equal(other ref.Val) ref.Val {
	p, ok := other.(object)
	return types.Bool(ok && o.value == p.value)
}

func (o object) ConvertToNative(reflect.Type) (any, error) {
	return nil, fmt.Errorf("a %s is no Go value", o.typ)
}

func (o object) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("a %s cannot become a %s", o.typ, t)
}

// field makes a field of a type whose Go value is a *T.
func field[T any](typ *types.Type, get func(*T) any) *types.FieldType {
	return &types.FieldType{
		Type:  typ,
		IsSet: func(target any) bool { v, ok := target.(*T); return ok && !empty(get(v)) },
		GetFrom: func(target any) (any, error) {
			v, ok := target.(*T)
			if !ok {
				return nil, fmt.Errorf("not a %s", typ)
			}
			return get(v), nil
		},
	}
}

// checkedField makes a text field that some values do not have: reading it of
// those fails.
func checkedField[T any](get func(*T) (string, error)) *types.FieldType {
	return &types.FieldType{
		Type:  cel.StringType,
		IsSet: func(target any) bool { v, ok := target.(*T); return ok && hasText(get(v)) },
		GetFrom: func(target any) (any, error) {
			v, ok := target.(*T)
			if !ok {
				return nil, fmt.Errorf("not a %T", v)
			}
			return get(v)
		},
	}
}

func hasText(s string, err error) bool { return err == nil && s != "" }

func empty(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case []string:
		return len(v) == 0
	case int64:
		return v == 0
	case bool:
		return !v
	case time.Time:
		return v.IsZero()
	}
	return v == nil
}

func ruleFields() map[string]map[string]*types.FieldType {
	return map[string]map[string]*types.FieldType{
		"postern.Certificate": certificateFields(),
		"postern.Name":        nameFields(),
		"postern.AltNames": {
			"email": field(textsType, func(s *AltNames) any { return s.Email }),
			"dns":   field(textsType, func(s *AltNames) any { return s.DNS }),
			"uri":   field(textsType, func(s *AltNames) any { return s.URI }),
			"ip":    field(textsType, func(s *AltNames) any { return s.IP }),
		},
		"postern.Person": {
			"known":     field(cel.BoolType, func(h *Holder) any { return h.Name != "" }),
			"name":      field(cel.StringType, func(h *Holder) any { return h.Name }),
			"email":     field(cel.StringType, func(h *Holder) any { return h.Email }),
			"full_name": field(cel.StringType, func(h *Holder) any { return h.FullName }),
			"groups":    field(textsType, func(h *Holder) any { return h.Groups }),
		},
		"postern.Request": requestFields(),
		"postern.TLS": {
			"version":     field(cel.StringType, func(r *Request) any { return tlsVersion(r) }),
			"cipher":      field(cel.StringType, func(r *Request) any { return tlsCipher(r) }),
			"server_name": field(cel.StringType, func(r *Request) any { return tlsServerName(r) }),
			"resumed":     field(cel.BoolType, func(r *Request) any { return r.TLS != nil && r.TLS.DidResume }),
		},
	}
}

func certificateFields() map[string]*types.FieldType {
	return map[string]*types.FieldType{
		"subject":             field(nameType, func(c *Certificate) any { return &c.Subject }),
		"issuer":              field(nameType, func(c *Certificate) any { return &c.Issuer }),
		"san":                 field(sanType, func(c *Certificate) any { return &c.SAN }),
		"serial":              field(cel.StringType, func(c *Certificate) any { return c.Serial }),
		"version":             field(cel.IntType, func(c *Certificate) any { return int64(c.Version) }),
		"not_before":          field(cel.TimestampType, func(c *Certificate) any { return c.NotBefore }),
		"not_after":           field(cel.TimestampType, func(c *Certificate) any { return c.NotAfter }),
		"pem":                 field(cel.StringType, func(c *Certificate) any { return c.pem() }),
		"fingerprint":         field(cel.StringType, func(c *Certificate) any { return c.Fingerprint }),
		"spki":                field(cel.StringType, func(c *Certificate) any { return c.SPKI }),
		"key_algorithm":       field(cel.StringType, func(c *Certificate) any { return c.KeyAlgorithm }),
		"signature_algorithm": field(cel.StringType, func(c *Certificate) any { return c.SignatureAlgorithm }),
		"key_usage":           field(textsType, func(c *Certificate) any { return c.KeyUsage }),
		"ext_key_usage":       field(textsType, func(c *Certificate) any { return c.ExtKeyUsage }),
		"attested":            field(cel.BoolType, func(c *Certificate) any { return c.Attested }),
		"pin_policy":          field(cel.StringType, func(c *Certificate) any { return c.PINPolicy }),
		"touch_policy":        field(cel.StringType, func(c *Certificate) any { return c.TouchPolicy }),
		"device_serial":       field(cel.StringType, func(c *Certificate) any { return c.DeviceSerial }),
	}
}

func nameFields() map[string]*types.FieldType {
	fields := map[string]*types.FieldType{
		"dn":      field(cel.StringType, func(n *Name) any { return n.DN }),
		"oneline": checkedField((*Name).oneline),
	}
	for _, t := range attributeTypes {
		fields[t.field] = field(textsType, func(n *Name) any { return n.Values(t.field) })
	}
	return fields
}

func requestFields() map[string]*types.FieldType {
	return map[string]*types.FieldType{
		"method":  field(cel.StringType, func(r *Request) any { return r.Method }),
		"path":    field(cel.StringType, func(r *Request) any { return r.Path }),
		"query":   field(cel.StringType, func(r *Request) any { return r.Query }),
		"uri":     field(cel.StringType, func(r *Request) any { return r.URI }),
		"host":    field(cel.StringType, func(r *Request) any { return r.Host }),
		"proto":   field(cel.StringType, func(r *Request) any { return r.Proto }),
		"headers": field(cel.MapType(cel.StringType, textsType), func(r *Request) any { return lowerHeaders(r) }),
	}
}

func lowerHeaders(r *Request) map[string][]string {
	out := make(map[string][]string, len(r.Header))
	for name, values := range r.Header {
		out[strings.ToLower(name)] = values
	}
	return out
}

package sign

import (
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// EnrolledKey is an SSH key and what is known of it.
type EnrolledKey struct {
	Person   string
	Public   ssh.PublicKey
	Label    string
	Enrolled bool // the person has enrolled it
	Disabled bool // it is the person's and was disabled or revoked; nothing else is known then
	// Attested says that a maker of FIDO2 keys vouches that the key is in one; AAGUID is
	// its model.
	Attested      bool
	AAGUID, Maker string
	// VerifyRequired says that the FIDO2 key asks for its PIN before each signature.
	VerifyRequired bool
}

// Hardware reports whether the key says of itself that it is in a FIDO2 key.
func (k EnrolledKey) Hardware() bool { return strings.HasPrefix(k.Public.Type(), "sk-") }

// What a condition of a key may say: key.attested, key.model and so on.
var keyEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.ParserExpressionSizeLimit(4<<10), cel.ParserRecursionLimit(50),
		cel.Variable("key.type", cel.StringType),
		cel.Variable("key.hardware", cel.BoolType),
		cel.Variable("key.enrolled", cel.BoolType),
		cel.Variable("key.attested", cel.BoolType),
		cel.Variable("key.user_verified", cel.BoolType),
		cel.Variable("key.model", cel.StringType),
		cel.Variable("key.maker", cel.StringType),
	)
})

// condition compiles a condition of a key, in CEL; nil for "", which every key meets.
func condition(expression string) (cel.Program, error) {
	if expression == "" {
		return nil, nil
	}
	env, err := keyEnv()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return nil, postern.Errorf(postern.Invalid, "rules for SSH certificates: %q: %w", expression, issues.Err())
	}
	if ast.OutputType() != cel.BoolType {
		return nil, postern.Errorf(postern.Invalid, "rules for SSH certificates: %q is neither true nor false",
			expression)
	}
	return env.Program(ast, cel.CostLimit(1e5))
}

// meets reports whether a key meets the rule's condition. One that cannot be decided is
// not met.
func (r Rule) meets(k EnrolledKey) bool {
	if r.condition == nil {
		return true
	}
	out, _, err := r.condition.Eval(map[string]any{
		"key.type": k.Public.Type(), "key.hardware": k.Hardware(), "key.enrolled": k.Enrolled,
		"key.attested": k.Attested, "key.user_verified": k.VerifyRequired, "key.model": k.AAGUID, "key.maker": k.Maker,
	})
	return err == nil && out.Value() == true
}

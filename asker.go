package postern

import "context"

// Asker is who asks for a change, and how they proved it.
type Asker struct {
	Person     string
	Credential Link   // that they showed; the zero Link is one that is not kept as a credential
	Address    string // peer IP address, without port
}

type askerKey struct{}

// Asking returns a context for what somebody's request does. Whatever lets a
// person in is written with it only while the credential that they showed
// counts, and events that tell of no address are from theirs.
func Asking(ctx context.Context, a Asker) context.Context {
	return context.WithValue(ctx, askerKey{}, a)
}

// AskerIn returns who asks in that context; the zero Asker on the command line.
func AskerIn(ctx context.Context) Asker {
	a, _ := ctx.Value(askerKey{}).(Asker)
	return a
}

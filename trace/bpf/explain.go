package bpf

import "github.com/postern-project/postern"

// Explain turns an error of Load or Attach into one that says what to do.
func Explain(err error) error { return postern.Errorf(postern.Unavailable, "%w", err) }

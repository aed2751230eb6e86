package trace

// Filter says which events are handed on.
type Filter struct{}

// Package people does what the command line, the administrators' pages and recovery
// have in common: it invites, recovers and changes people.
package people

// Package people is what the command line, the administrators' pages and recovery
// do to people alike: invite and recover them, change them and what they may.
package people

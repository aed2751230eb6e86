// Package postern holds the types that all packages of Postern share: Person,
// Credential, Actor, Event, Link and Error. It imports the standard library
// only.
package postern

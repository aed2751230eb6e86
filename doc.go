// Package postern holds the words that every room of the house shares: Person,
// Credential, Event, Link and Error. It imports the standard library only.
package postern

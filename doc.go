// Package postern holds the types that all packages of Postern share: Person,
// Credential, Actor, Event, Link and Error. It imports the standard library
// only.
//
// An [Error] has a [Code], which decides the exit code and the HTTP status, and may have a
// hint. A hint says what to do and names no command. Every other package declares the
// small interfaces that it needs beside what uses them.
package postern

// Package client is what runs on a person's own computer, on Linux, macOS and
// Windows: it gets an SSH certificate from a server, asks a validation service
// about a code, and keeps software tokens in files. It needs no state directory.
package client

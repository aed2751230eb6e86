// Package db has the type that Caddy's CA names.
package db

// AuthDB stands in for a CA's database.
type AuthDB interface{}

// Package store keeps Postern's state in SQLite or PostgreSQL, with one
// hand-written SQL for both.
//
// A file is one room's tables: person.go, ca.go, otp.go and so on; each holds
// the methods that satisfy the small interface which that room declares.
package store

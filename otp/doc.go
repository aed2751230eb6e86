// Package otp checks one-time passwords: codes of YubiKeys, TOTP (RFC 6238), HOTP (RFC
// 4226) and backup codes.
//
// [Service] answers Yubico's validation protocol, [Client] asks any server that speaks
// it, and [Checker] checks that a code proves a person. Each code is accepted at most
// once: [Keys] compares and raises the counter in one durable step before the code is
// accepted.
//
// A program that has its users and asks somewhere whether a code is valid uses a Client, and
// checks itself whose key it was ([Code].PublicID). A server that keeps the keys uses a
// Service, and a Checker for logins. Do not compare codes or counters anywhere else, and
// do not use [SoftToken] but for tests and trials: a file can be copied.
//
// Who implements Keys or [Authenticators] guarantees that a code is accepted once: the
// comparison and the write are one step for all servers on one database, and on disk
// before the answer. An implementation that cannot write fails; it never says Accepted.
package otp

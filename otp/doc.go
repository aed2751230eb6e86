// Package otp checks one-time passwords: codes of YubiKeys, TOTP (RFC 6238), HOTP (RFC
// 4226) and backup codes.
//
// [Service] answers Yubico's validation protocol, [Client] asks any server that speaks
// it, and [Checker] checks that a code proves a person. Each code is accepted at most
// once: [Keys] compares and raises the counter in one durable step before the code is
// accepted.
package otp

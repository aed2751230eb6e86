// Package otp checks one-time passwords: YubiKey codes, above all, and beside
// them TOTP (RFC 6238), HOTP (RFC 4226) and recovery codes.
//
// [Service] answers Yubico's validation protocol, [Client] asks any server that
// speaks it, and [Checker] answers the one question that the rest of the house
// has: does this code prove this person? Whatever they accept, they accept at
// most once: the counter is compared and set in one durable step of [Keys]
// before anybody hears OK.
package otp

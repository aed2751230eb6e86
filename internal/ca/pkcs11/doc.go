// Package pkcs11 keeps a CA's keys in a PKCS#11 device: a YubiKey, a smart card,
// an HSM.
//
// The device's module is code of its vendor, in C. It is loaded by a process of
// its own, this program once more, which is asked over a socket: a module that
// crashes or hangs takes nothing with it, and one that has lost its device is
// started anew. A program that was built without cgo can only say so.
package pkcs11

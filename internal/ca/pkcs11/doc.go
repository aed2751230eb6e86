// Package pkcs11 keeps a CA's keys in a hardware key store (HSM) with a PKCS#11
// module: a network HSM, a smart card or a YubiKey's PIV application.
//
// The module is C code of the vendor. It is loaded by a process of its own, this
// program once more, which is called over a socket: a module that crashes or hangs
// does not affect the server, and one that has lost its HSM is started anew. A
// program that was built without cgo returns an error that says so.
package pkcs11

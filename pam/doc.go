// Package pam holds pam_postern, the PAM module that asks the Postern daemon
// whether a one-time code proves a person. The module is the C file beside this
// one; the tests build it and drive it through the real libpam.
package pam

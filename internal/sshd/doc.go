// Package sshd is Postern's side of SSH: it answers pam_postern's questions over
// a Unix socket, audits a host's sshd and PAM configuration and writes a right
// one, holds the ForceCommand shell for hosts that can use nothing better,
// signs SSH certificates for people who proved themselves, and follows who
// logs in.
package sshd

// Package backup writes a state to one file while a server uses it, and puts it back.
//
// A backup is a tar archive, compressed with zstd and, if wanted, encrypted with age: its
// first file says what it holds (manifest.json, see [Manifest]), the others are the state
// directory's, with the database as it was at one moment. A last frame, which zstd skips,
// is the SHA-256 of all before it. So age -d, zstd -d and tar -x open it, too.
//
// A person who can write to a backup can change what it restores: only the timeline is
// signed. Keep it where others cannot write, or its checksum elsewhere.
package backup

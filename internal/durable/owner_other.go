//go:build !unix

package durable

import (
	"io/fs"
	"os"
)

// DirectoryOwner does nothing: here a new file gets the access rights of its
// directory.
func DirectoryOwner(*os.File, string) error { return nil }

// KeepOwner does nothing.
func KeepOwner(*os.File, string) error { return nil }

// private accepts every file: here modes say nothing about who may read it.
func private(string, fs.FileInfo, fs.FileMode) error { return nil }

// SyncDir does nothing: here a directory cannot be synced.
func SyncDir(string) error { return nil }

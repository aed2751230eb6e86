//go:build !unix

package durable

import (
	"io/fs"
	"os"
)

// DirectoryOwner does nothing: here a new file gets the access rights of its
// directory.
func DirectoryOwner(*os.File) error { return nil }

func ownerOf(fs.FileInfo) Option { return DirectoryOwner }

// private accepts every file: here modes say nothing about who may read it.
func private(string, fs.FileInfo, fs.FileMode) error { return nil }

// SyncDir does nothing: here a directory cannot be synced.
func SyncDir(string) error { return nil }

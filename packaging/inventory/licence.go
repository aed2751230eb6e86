package main

import "strings"

// phrases are in the text of a licence, in lower case and with single spaces, each in that
// of no other; but see [identify] about BSD's.
var phrases = []struct{ id, phrase string }{
	{"Apache-2.0", "apache license version 2.0, january 2004"},
	{"MPL-2.0", "mozilla public license version 2.0"},
	{"MPL-2.0", "mozilla public license, version 2.0"},
	{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy of this software and " +
		"associated documentation files"},
	{"ISC", "permission to use, copy, modify, and distribute this software for any purpose with or without fee is " +
		"hereby granted"},
	{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is " +
		"hereby granted"},
	{"Unlicense", "this is free and unencumbered software released into the public domain"},
	{"CC0-1.0", "cc0 1.0 universal"},
}

// identify returns the SPDX identifiers of the licences in a text.
func identify(text string) (ids []string) {
	text = strings.Join(strings.Fields(strings.ToLower(strings.ReplaceAll(text, ">", " "))), " ") // some quote it
	for _, l := range phrases {
		if strings.Contains(text, l.phrase) {
			ids = append(ids, l.id)
		}
	}
	if strings.Contains(text, "redistributions of source code must retain the above copyright notice") {
		// The third condition is what the two have not in common.
		if strings.Contains(text, "may be used to endorse or promote products derived") {
			return append(ids, "BSD-3-Clause")
		}
		return append(ids, "BSD-2-Clause")
	}
	return ids
}

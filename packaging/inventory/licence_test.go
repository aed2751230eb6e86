package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLicencesHaveTheirIdentifiers reads texts as modules have them.
func TestLicencesHaveTheirIdentifiers(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	bsd, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	apache, err := os.ReadFile("../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	two, _, _ := strings.Cut(string(bsd), "   * Neither")
	for _, c := range []struct{ text, want string }{
		{string(bsd), "BSD-3-Clause"},
		{two, "BSD-2-Clause"},
		{"> " + strings.ReplaceAll(two, "\n", "\n> "), "BSD-2-Clause"},
		{string(apache), "Apache-2.0"},
		{string(apache) + string(bsd), "Apache-2.0 BSD-3-Clause"},
		{
			"Copyright (c) 2026 X\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\n" +
				"of this " +
				"software and associated documentation files (the \"Software\")", "MIT",
		},
		{"Permission to use, copy, modify, and/or distribute this software for any\npurpose with or without fee is " +
			"hereby granted", "ISC"},
		{"All rights reserved. Ask us.", ""},
	} {
		if got := identify(c.text); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%.60q: %v, want %s", c.text, got, c.want)
		}
	}
}

package bpf

import "testing"

func TestProgramsLoad(t *testing.T) {
	k, err := Load(Config{})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
}

package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target amd64,arm64 -type site -type loss -type procedure probe probe.c -- -O2 -g -Wall -Werror -mcpu=v3

package bpf

import "github.com/cilium/ebpf/features"

// multiUprobes reports whether the kernel has uprobe_multi links (6.6).
func multiUprobes() bool { return features.HaveBPFLinkUprobeMulti() == nil }

package main

import (
	"bufio"
	"context"
	"fmt"

	"github.com/postern-project/postern/trace"
	"github.com/postern-project/postern/trace/event"
	"github.com/spf13/cobra"
)

func newTrace(a *app) *cobra.Command {
	return group("trace", "Watch libvirt", newTraceRPC(a))
}

func newTraceRPC(a *app) *cobra.Command {
	var cfg trace.Config
	c := &cobra.Command{
		Use:   "rpc",
		Short: "Show every RPC message, of clients and daemons",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runTrace(cmd.Context(), a, cfg)
		},
	}
	f := c.Flags()
	f.IntSliceVar(&cfg.PIDs, "pid", nil, "only these processes")
	f.StringSliceVar(&cfg.Paths, "path", nil, "only these files")
	return c
}

func runTrace(ctx context.Context, a *app, cfg trace.Config) error {
	s, err := trace.Start(cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintln(a.err, "ready")
	sink := &headers{w: bufio.NewWriter(a.out)}
	err = s.Run(ctx, sink)
	sum := s.Summary()
	fmt.Fprintf(a.err, "%d events seen\n", sum.Seen)
	for _, l := range sum.Losses {
		fmt.Fprintf(a.err, "%d events lost: %s in %s (%d)\n", l.Lost, l.Probe, l.Comm, l.PID)
	}
	return err
}

type headers struct{ w *bufio.Writer }

func (h *headers) Idle() error { return h.w.Flush() }

func (h *headers) Event(e *event.Event) error {
	if !e.Kind.RPC() {
		_, err := fmt.Fprintf(h.w, "%s %d %x %q\n", e.Probe, e.PID, e.Args, e.Strings)
		return err
	}
	dir, who := "T", "client"
	if e.Kind.Rx() {
		dir = "R"
	}
	if e.Kind.Server() {
		who = "server"
	}
	_, err := fmt.Fprintf(h.w, "%s %s=0x%x len=%d program=%d version=%d procedure=%d type=%d status=%d serial=%d payload=%d/%d\n",
		dir, who, e.Client, e.Len, e.Prog, e.Vers, e.Proc, e.Type, e.Status, e.Serial, len(e.Payload), e.PayloadLen)
	return err
}

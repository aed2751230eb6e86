package format

import (
	"strconv"

	"github.com/postern-project/postern/internal/trace/event"
)

// raw writes RPC messages as the first SystemTap scripts over these probes did:
// Raw by number, Named by name with R and T for received and queued for
// transmission.
func (f *Writer) raw(e *event.Event) {
	if !e.Kind.RPC() {
		return
	}
	b := f.buf
	if f.c.Format == Named {
		b = append(b, map[bool]string{true: "R ", false: "T "}[e.Kind.Rx()]...)
	}
	b = append(b, map[bool]string{true: "server=", false: "client="}[e.Kind.Server()]...)
	b = Pointer(b, e.Client, 0)
	b = strconv.AppendInt(append(b, " len="...), int64(e.Len), 10)
	num := func(key string, n int64) {
		b = strconv.AppendInt(append(b, key...), n, 10)
	}
	if f.c.Format == Named {
		b = append(append(b, " program="...), stpProgram(e)...)
		num(" version=", int64(e.Vers))
		b = append(append(b, " procedure="...), stpProcedure(e)...)
		b = append(append(b, " type="...), stpType(e)...)
		b = append(append(b, " status="...), stpStatus(e)...)
	} else {
		num(" program=", int64(int32(e.Prog)))
		num(" version=", int64(e.Vers))
		num(" procedure=", int64(e.Proc))
		num(" type=", int64(e.Type))
		num(" status=", int64(e.Status))
	}
	num(" serial=", int64(int32(e.Serial)))
	f.buf = append(b, '\n')
	f.stackLines(e, "", false)
}

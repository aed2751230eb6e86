package usdt

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// The probes of a file, and where their arguments are. A real file is opened
// with os.Open.
func ExampleOpen() {
	notes := builtNote(0x1234, 0x1800, 0x5010, "libvirt\x00rpc_server_client_new\x008@%rbx -4@128(%rsp)\x00")
	f, err := Open(bytes.NewReader(builtELF(elf.EM_X86_64, notes, 0x1800)))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range f.Probes {
		fmt.Printf("%s:%s at 0x%x, semaphore at 0x%x, arguments %s\n", p.Provider, p.Name, p.Offset, p.Semaphore,
			p.Spec)
		for _, a := range p.Args {
			fmt.Printf("%d bytes, signed %v, in memory %v\n", a.Size, a.Signed, a.Mode == Mem)
		}
	}
	// Output:
	// libvirt:rpc_server_client_new at 0x1234, semaphore at 0x3010, arguments 8@%rbx -4@128(%rsp)
	// 8 bytes, signed false, in memory false
	// 4 bytes, signed true, in memory true
}

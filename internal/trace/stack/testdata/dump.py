# For gdb: at each of the spots in $SPOTS (separated by ;) write registers, stack,
# maps and gdb's own backtrace as a line of JSON to $OUT, up to $COUNT times.
import gdb
import json
import os

REGISTERS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss".split()
out = open(os.environ["OUT"], "w")
left = int(os.environ["COUNT"])


def number(register):
    return int(gdb.parse_and_eval("$" + register).format_string(format="x"), 16) & (1 << 64) - 1


def stack(sp):
    data = b""
    while len(data) < 1 << 16:
        try:
            data += bytes(gdb.selected_inferior().read_memory(sp + len(data), 256))
        except gdb.MemoryError:
            break
    return data


# What gdb deduces from debug information, without there being a frame on the
# stack: inlined functions, and those that ended in a jump.
DEDUCED = [gdb.INLINE_FRAME, gdb.TAILCALL_FRAME]


def frames():
    f, all = gdb.newest_frame(), []
    while f is not None and len(all) < 200:
        if f.type() not in DEDUCED:
            all.append({"pc": f.pc(), "name": f.name() or ""})
        f = f.older()
    return all


class Spot(gdb.Breakpoint):
    def stop(self):
        global left
        regs = b""
        for name in REGISTERS:
            regs += number(name).to_bytes(8, "little")
        sp = number("rsp")
        pid = gdb.selected_inferior().pid
        with open("/proc/%d/maps" % pid) as maps:
            record = {"pid": pid, "spot": self.location, "regs": regs.hex(), "stack": stack(sp).hex(),
                      "maps": maps.read(), "frames": frames()}
        out.write(json.dumps(record) + "\n")
        out.flush()
        left -= 1
        return left <= 0


gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("set breakpoint pending on")
gdb.execute("set backtrace past-main on")
gdb.execute("set debuginfod enabled off")
for signal in ["SIGUSR1", "SIGSEGV"]:
    gdb.execute("handle %s nostop noprint pass" % signal)
for spot in os.environ["SPOTS"].split(";"):
    Spot(spot)
if os.environ.get("READY"):
    open(os.environ["READY"], "w").close()
gdb.execute("continue" if os.environ.get("ATTACHED") else "run")

// A program without a library, small enough to be kept, for recorded stacks:
// record.sh builds it, packs its names into .gnu_debugdata as some distributions
// do, and records what gdb saw.
__attribute__((noinline)) void spot(volatile int *x) { *x += 1; }

static void handler(int sig)
{
	volatile int x = sig;
	spot(&x);
}

__attribute__((noinline)) static int variable(int n)
{
	volatile int x = 0;
	volatile char *room = __builtin_alloca(n);
	room[0] = n;
	spot(&x);
	return n > 16 ? variable(n / 2) + room[0] : x;
}

// The kernel returns from a signal handler to restorer; its frame is described by
// expressions over the saved registers, as the C library's is.
void restorer(void);
__asm__(".text\n"
	".cfi_startproc simple\n"
	".cfi_signal_frame\n"
	".cfi_escape 0x0f, 4, 0x77, 0xa0, 1, 0x06\n" // CFA: *(rsp+160)
	".cfi_escape 0x10, 3, 3, 0x77, 0x80, 1\n"    // rbx at rsp+128
	".cfi_escape 0x10, 6, 2, 0x77, 0xf8, 0\n"    // rbp at rsp+120, as two bytes
	".cfi_escape 0x10, 12, 2, 0x77, 0xc8, 0\n"   // r12 at rsp+72
	".cfi_escape 0x10, 13, 2, 0x77, 0xd0, 0\n"   // r13
	".cfi_escape 0x10, 16, 3, 0x77, 0xa8, 1\n"   // rip at rsp+168
	"nop\n"
	".globl restorer\n.type restorer, @function\n"
	"restorer: mov $15, %eax\n syscall\n"
	".cfi_endproc\n.size restorer, .-restorer\n");

static long call(long n, long a, long b, long c, long d)
{
	long r;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}

int begin(void)
{
	struct {
		void (*handler)(int);
		unsigned long flags;
		void (*restorer)(void);
		unsigned long mask;
	} action = { handler, 0x04000000, restorer, 0 };
	volatile int x = variable(100);
	call(13, 10, (long)&action, 0, 8);             // rt_sigaction SIGUSR1
	call(62, call(39, 0, 0, 0, 0), 10, 0, 0);      // kill(getpid(), SIGUSR1)
	return x;
}

__asm__(".globl _start\n.type _start, @function\n"
	"_start:\n.cfi_startproc\n.cfi_undefined rip\n"
	"xor %ebp, %ebp\n call begin\n mov %eax, %edi\n mov $60, %eax\n syscall\n"
	".cfi_endproc\n.size _start, .-_start\n");

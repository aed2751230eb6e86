//go:build ignore

// SPDX-License-Identifier: MIT OR GPL-2.0
// What runs in the kernel when a libvirt probe is hit: read the probe's
// arguments as its note describes them, filter, copy the message or the text,
// and hand over one record. bpf.go fills the maps and constants, fetch.go writes
// the code that reads the arguments.
//
// A hit takes the time of the cache lines that it touches, since the daemon's own
// work comes between: so the usual way through is short, and what is seldom
// needed stands aside.
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#if defined(__TARGET_ARCH_arm64)
#define NREGS 34 // struct user_pt_regs: x0 to x30, sp, pc, pstate
#define SP 31
#elif defined(__TARGET_ARCH_x86)
#define NREGS 21 // struct pt_regs: r15 to ss
#define SP 19
#else
#error "unknown target"
#endif

#define MAX_ARGS 10
#define MAX_STRINGS 4
#define STRING_SLOT 256 // bytes copied of each short string

// What a site's text or payload is.
enum capture {
	HEADER,   // arguments only
	MESSAGE,  // an RPC message: see where
	STRINGS,  // up to MAX_STRINGS short strings
	TEXT,     // one string of any length: argument strings[0]
	BUFFER,   // argument strings[0] points to as many bytes as argument strings[1] says
};

// Where the pointer to an RPC message's bytes is.
enum where {
	NOWHERE, // not known: header only
	GIVEN,   // in the arguments: fetch returns it
	SEARCH,  // not known yet: try registers, from next on, until one fits
	FOUND,   // at base register + disp
};

enum site_flags {
	RPC = 1,    // arguments are client, len, prog, vers, proc, type, status, serial
	URGENT = 2, // wake the reader at once
	STACK = 4,  // copy registers and stack
	ANSWER = 8, // report when this thread began to serve the call
	PEER = 16,  // argument 1 is a socket's descriptor: report who is at its other end
};

struct site {
	__u8 capture, flags, where, base, next, strings[MAX_STRINGS], pad[7];
	__s64 disp;
};

struct args {
	__u64 v[MAX_ARGS];
};

// Where the arguments of PEER have when the process was started, CLOCK_BOOTTIME,
// and its audit session; behind the probe's own. 0 unknown.
#define PEER_START 8
#define PEER_SESSION 9

enum what {
	EVENT,
	REGS,
	RETURN,
	THREAD, // whose events follow: argument 0 is its user, its name stands behind
};

struct record {
	__u64 time; // CLOCK_MONOTONIC
	__u32 pid, tid;
	__u32 size; // bytes that follow
	__u32 lost; // records lost so far
	__u16 site;
	__u16 what;
	__u16 cpu;
	__u16 pad;
	__u64 since; // of ANSWER: when the thread began to serve this, CLOCK_MONOTONIC;
		     // of PEER: user in the upper half, process in the lower, 0 unknown
	struct args args; // of PEER: PEER_START and PEER_SESSION, too
};

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct site);
} sites SEC(".maps");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 16 << 20);
} events SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u8);
} pids SEC(".maps");

struct procedure {
	__u32 prog;
	__u32 proc;
};

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 8192);
	__type(key, struct procedure);
	__type(value, __u8);
} procedures SEC(".maps");

// The last procedure of each program that the tracer's tables know.
struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

// When the reader was last woken for each process.
struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

#define MANY_THREADS 1024 // a power of two

// Which threads were introduced to the reader, and in which second: of several
// with the same index here, the last.
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, MANY_THREADS);
	__type(key, __u32);
	__type(value, __u64);
} known SEC(".maps");

// When each thread began to serve a call.
struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} serving SEC(".maps");

// Where the function that a thread is in, and whose return is watched, would
// return to, and the stack pointer then: the kernel puts an address of its own there.
struct hidden {
	__u64 pc;
	__u64 sp;
};

struct {
	__uint(type, MAP_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct hidden);
} returns SEC(".maps");

struct loss {
	__u32 pid;
	__u32 site;
};

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 16384);
	__type(key, struct loss);
	__type(value, __u64);
} lost SEC(".maps");

__u64 lost_total = 0;   // all losses
__u64 lost_nowhere = 0; // those that did not fit into the map above
__u64 wakeups = 0;      // how often the reader was woken
__u64 last_query = 0;   // when the ring's filling was last looked at

volatile const __u64 ns_dev = 0, ns_ino = 0; // the tracer's PID namespace, when not the first
volatile const __u8 filter_pids = 0;
volatile const __u8 filter_procedures = 0;
volatile const __u8 pass_unknown = 0; // what is not in programs is not filtered by procedure
volatile const __u32 type_mask = ~0;
volatile const __u32 status_mask = ~0; // of replies
volatile const __u32 payload_max = 16384;
volatile const __u32 stack_max = 16384;
volatile const __u64 wake_at = 1 << 20; // bytes in the ring

// Where the kernel's structures have what leads from a descriptor to the
// process at its socket's other end; from its BTF, all 0 without.
volatile const struct {
	__u32 task_files, files_fdt, fdt_max, fdt_fd, file_private, socket_sk, sock_pid, sock_cred, pid_nr, cred_uid;
	__u32 pid_tasks, task_links, task_start, task_session; // from a pid to its task; task_session: 0 without audit
} at = {};

// fetch reads the arguments of a site, and returns the pointer to the message's
// bytes if an argument is one, else 0. This is only its place: each file's
// programs get one of their own, which fetch.go writes from the probes' notes.
static __attribute__((noinline)) __u64 fetch(const void *ctx, struct args *out, __u64 site)
{
	__u64 buffer = 0;

	asm volatile("" : "+r"(buffer) : "r"(ctx), "r"(out), "r"(site) : "memory");
	return buffer;
}

// The registers at the probe, as the kernel's struct pt_regs has them.
struct regs {
	__u64 r[NREGS];
};

static __always_inline __u64 reg(const void *ctx, __u8 n)
{
	__u64 v = 0;

	if (n < NREGS)
		probe_read_kernel(&v, sizeof(v), ctx + n * 8);
	return v;
}

static __always_inline void count_loss(__u32 pid, __u32 site)
{
	struct loss key = {pid, site};
	__u64 zero = 0, *n;

	__sync_fetch_and_add(&lost_total, 1);
	n = map_lookup(&lost, &key);
	if (!n) {
		map_update(&lost, &key, &zero, BPF_NOEXIST);
		n = map_lookup(&lost, &key);
	}
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		__sync_fetch_and_add(&lost_nowhere, 1);
}

// header reports whether the bytes at p begin with the length word and header
// that the probe's arguments describe.
static __always_inline int is_message(const void *p, const struct args *args)
{
	__u32 h[7];

	if (probe_read_user(h, sizeof(h), p))
		return 0;
	return h[0] == __builtin_bswap32(args->v[1]) && h[1] == __builtin_bswap32(args->v[2]) &&
	       h[2] == __builtin_bswap32(args->v[3]) && h[3] == __builtin_bswap32(args->v[4]) &&
	       h[4] == __builtin_bswap32(args->v[5]) && h[5] == __builtin_bswap32(args->v[7]) &&
	       h[6] == __builtin_bswap32(args->v[6]);
}

#define SEARCH_WORDS 40

// search looks for the message through one register, with each message the next:
// in the first words that it points to. What it finds is kept in the site.
static __attribute__((noinline)) __u64 search(struct site *s, const void *ctx, const struct args *args)
{
	__u8 r = s->next;
	__u64 from = reg(ctx, r);

	s->next = r + 1 < NREGS ? r + 1 : 0;
	for (int w = 0; w < SEARCH_WORDS; w++) {
		__u64 p = 0;

		if (probe_read_user(&p, sizeof(p), (void *)(from + w * 8)))
			break;
		if (p < 4096 || !is_message((void *)p, args))
			continue;
		s->base = r;
		s->disp = w * 8;
		s->where = FOUND;
		return p;
	}
	return 0;
}

// message returns where the message's bytes begin, or 0.
static __always_inline __u64 message(struct site *s, const void *ctx, const struct args *args, __u64 given)
{
	__u64 p = 0;

	if (s->where == GIVEN)
		return given;
	if (s->where == SEARCH)
		return search(s, ctx, args);
	if (s->where == FOUND)
		probe_read_user(&p, sizeof(p), (void *)(reg(ctx, s->base) + s->disp));
	return p;
}

static __always_inline __u64 load(__u64 p, __u32 offset)
{
	__u64 v = 0;

	if (p)
		probe_read_kernel(&v, sizeof(v), (void *)(p + offset));
	return v;
}

static __always_inline __u32 load32(__u64 p, __u32 offset)
{
	__u32 v = 0;

	if (p)
		probe_read_kernel(&v, sizeof(v), (void *)(p + offset));
	return v;
}

// peer reads what SO_PEERCRED returns for a descriptor of the current process,
// at the moment of the probe: later it may be closed. Of the process it reads when
// it was started and its audit session: later it may have ended.
static __always_inline __u64 peer(__u32 fd, struct args *args)
{
	__u64 table, file, sk, pid, cred, task;

	if (!at.task_files)
		return 0;
	table = load(load(get_current_task(), at.task_files), at.files_fdt);
	if (fd >= load32(table, at.fdt_max))
		return 0;
	file = load(load(table, at.fdt_fd), fd * 8);
	sk = load(load(file, at.file_private), at.socket_sk);
	pid = load(sk, at.sock_pid);
	cred = load(sk, at.sock_cred);
	if (!pid || !cred)
		return 0;
	task = load(pid, at.pid_tasks); // the link in the task, of PIDTYPE_PID
	if (task) {
		task -= at.task_links;
		args->v[PEER_START] = load(task, at.task_start);
		args->v[PEER_SESSION] = at.task_session ? load32(task, at.task_session) : 0;
	}
	return (__u64)load32(cred, at.cred_uid) << 32 | load32(pid, at.pid_nr);
}

// introduce sends the reader this thread's name, and returns how the event that
// follows is handed over: a process that speaks for the first time in a second may
// be gone soon.
static __attribute__((noinline)) __u64 introduce(const struct record *r)
{
	struct {
		struct record r;
		char comm[16];
	} *e = ringbuf_reserve(&events, sizeof(*e), 0);
	__u64 now = r->time, *last;
	__u32 pid = r->pid;

	if (!e)
		return RB_NO_WAKEUP;
	e->r = *r;
	e->r.what = THREAD;
	e->r.args.v[0] = (__u32)get_current_uid_gid();
	e->r.size = sizeof(e->comm);
	get_current_comm(e->comm, sizeof(e->comm));
	ringbuf_submit(e, RB_NO_WAKEUP);
	last = map_lookup(&seen, &pid);
	if (last && now - *last < 1000000000ull)
		return RB_NO_WAKEUP;
	map_update(&seen, &pid, &now, BPF_ANY);
	return RB_FORCE_WAKEUP;
}

// wake decides whether this record wakes the reader. Waking costs more than all
// the rest, so it happens for who is new, for what is urgent, and when the ring
// fills; else the reader's timer finds the record.
static __always_inline __u64 wake(const struct record *r, __u8 urgent)
{
	__u64 this = (__u64)r->tid << 32 | (__u32)(r->time >> 30);
	__u64 *place, flags = RB_NO_WAKEUP;
	__u32 i = r->tid & (MANY_THREADS - 1);

	place = map_lookup(&known, &i);
	if (place && *place != this) {
		flags = introduce(r);
		*place = this;
	}
	if (urgent)
		flags = RB_FORCE_WAKEUP;
	if (r->time - last_query > 1000000) {
		last_query = r->time;
		if (ringbuf_query(&events, RB_AVAIL_DATA) >= wake_at)
			flags = RB_FORCE_WAKEUP;
	}
	if (flags == RB_FORCE_WAKEUP)
		__sync_fetch_and_add(&wakeups, 1);
	return flags;
}

// A record with space for so many bytes after it. The verifier wants each size
// to be a constant.
#define ROOM(n)                         \
	struct {                        \
		struct record r;        \
		__u8 data[n];           \
	}

#define SEND_BYTES(n)                                                         \
	do {                                                                  \
		ROOM(n) *e = ringbuf_reserve(&events, sizeof(*e), 0);         \
		if (!e)                                                       \
			goto full;                                            \
		__u32 take = want;                                            \
		if (take > n)                                                 \
			take = n;                                             \
		if (probe_read_user(e->data, take, from))                     \
			take = 0;                                             \
		r->size = take;                                               \
		e->r = *r;                                                    \
		ringbuf_submit(e, flags);                                     \
		return 0;                                                     \
	} while (0)

#define SEND_TEXT(n, last)                                                    \
	do {                                                                  \
		ROOM(n) *e = ringbuf_reserve(&events, sizeof(*e), 0);         \
		if (!e)                                                       \
			goto full;                                            \
		long got = probe_read_user_str(e->data, n, from);             \
		if (got == n && !last) {                                      \
			ringbuf_discard(e, RB_NO_WAKEUP);                     \
		} else {                                                      \
			r->size = got < 0 ? 0 : got;                          \
			e->r = *r;                                            \
			ringbuf_submit(e, flags);                             \
			return 0;                                             \
		}                                                             \
	} while (0)

static __always_inline int send_bytes(struct record *r, const void *from, __u32 want, __u64 flags)
{
	if (want == 0) {
		struct record *e = ringbuf_reserve(&events, sizeof(*e), 0);

		if (!e)
			goto full;
		r->size = 0;
		*e = *r;
		ringbuf_submit(e, flags);
		return 0;
	}
	if (want <= 64)
		SEND_BYTES(64);
	if (want <= 128)
		SEND_BYTES(128);
	if (want <= 256)
		SEND_BYTES(256);
	if (want <= 512)
		SEND_BYTES(512);
	if (want <= 1024)
		SEND_BYTES(1024);
	if (want <= 4096)
		SEND_BYTES(4096);
	if (want <= 16384)
		SEND_BYTES(16384);
	SEND_BYTES(65536);
full:
	count_loss(r->pid, r->site);
	return 0;
}

static __always_inline int send_text(struct record *r, const void *from, __u64 flags)
{
	SEND_TEXT(1024, 0);
	if (payload_max <= 16384)
		SEND_TEXT(16384, 1);
	else
		SEND_TEXT(65536, 1);
full:
	count_loss(r->pid, r->site);
	return 0;
}

static __always_inline int send_strings(struct record *r, const struct site *s, __u64 flags)
{
	ROOM(MAX_STRINGS * STRING_SLOT) *e = ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		count_loss(r->pid, r->site);
		return 0;
	}
#pragma unroll
	for (int i = 0; i < MAX_STRINGS; i++) {
		__u8 n = s->strings[i];
		long got = 0;

		if (n < MAX_ARGS)
			got = probe_read_user_str(e->data + i * STRING_SLOT, STRING_SLOT, (void *)r->args.v[n]);
		if (got <= 0)
			e->data[i * STRING_SLOT] = 0;
	}
	r->size = MAX_STRINGS * STRING_SLOT;
	e->r = *r;
	ringbuf_submit(e, flags);
	return 0;
}

#define PAGE 4096

// send_stack hands over the registers and the stack from the stack pointer up,
// page by page until one is not there. It goes before the event it belongs to. Its
// first two arguments are the return address that is hidden in the stack.
static __always_inline void send_stack(struct record *r, const void *ctx)
{
	struct {
		struct record r;
		struct regs regs;
		__u8 stack[PAGE * 4 + PAGE];
	} *e = ringbuf_reserve(&events, sizeof(*e), 0);
	__u64 sp = ((const struct regs *)ctx)->r[SP];
	__u32 got = 0, limit = stack_max;
	const struct hidden *hidden;

	if (!e) {
		count_loss(r->pid, r->site);
		return;
	}
	if (limit > PAGE * 4)
		limit = PAGE * 4;
	for (int i = 0; i < 5; i++) {
		__u32 n = PAGE - ((sp + got) & (PAGE - 1));

		if (got >= limit || got > PAGE * 4)
			break;
		if (n > limit - got)
			n = limit - got;
		if (n > PAGE)
			n = PAGE;
		if (probe_read_user(e->stack + got, n, (void *)(sp + got)))
			break;
		got += n;
	}
	probe_read_kernel(&e->regs, sizeof(e->regs), ctx);
	r->what = REGS;
	r->size = sizeof(e->regs) + got;
	e->r = *r;
	hidden = map_lookup(&returns, &r->tid);
	e->r.args.v[0] = hidden ? hidden->pc : 0;
	e->r.args.v[1] = hidden ? hidden->sp : 0;
	ringbuf_submit(e, RB_NO_WAKEUP);
	r->what = EVENT;
}

// current fills in who is running, and returns 0 if it is none of the tracer's
// business.
static __always_inline int current_process(__u32 *pid, __u32 *tid)
{
	if (ns_ino) {
		struct nsid ns;

		if (get_ns_current_pid_tgid(ns_dev, ns_ino, &ns, sizeof(ns)))
			return 0;
		*pid = ns.tgid;
		*tid = ns.pid;
	} else {
		__u64 id = get_current_pid_tgid();

		*pid = id >> 32;
		*tid = id;
	}
	return !filter_pids || map_lookup(&pids, pid);
}

// unknown reports whether the tables do not know a procedure.
static __always_inline int unknown(__u32 prog, __u32 proc)
{
	__u32 *last = map_lookup(&programs, &prog);

	return !last || !proc || proc > *last;
}

// wanted applies the filters on RPC messages.
static __always_inline int wanted(const struct args *a)
{
	__u32 type = a->v[5], status = a->v[6];

	if (filter_procedures) {
		struct procedure key = {a->v[2], a->v[4]};

		if (!map_lookup(&procedures, &key) && !(pass_unknown && unknown(key.prog, key.proc)))
			return 0;
	}
	if (!(type_mask & (1u << (type & 31))))
		return 0;
	if (type == 1 || type == 5)
		return (status_mask & (1u << (status & 31))) != 0;
	return 1;
}

static __always_inline int rpc(struct record *r, struct site *s, const void *ctx, __u64 given, __u64 flags)
{
	__u64 from = 0;
	__u32 want;

	if (s->capture == MESSAGE && payload_max)
		from = message(s, ctx, &r->args, given);
	want = from ? r->args.v[1] : 0;
	if (want > payload_max)
		want = payload_max;
	return send_bytes(r, (void *)from, want, flags);
}

static __always_inline int hit(void *ctx)
{
	__u32 id = get_attach_cookie(ctx);
	struct site *s = map_lookup(&sites, &id);
	struct record r = {};
	__u64 given, flags, *since;

	if (!s || !current_process(&r.pid, &r.tid))
		return 0;
	given = fetch(ctx, &r.args, id);
	if (s->flags & RPC && !wanted(&r.args))
		return 0;
	r.time = ktime_get_ns();
	r.site = id;
	r.lost = lost_total;
	r.cpu = get_smp_processor_id();
	if (s->flags & ANSWER) {
		since = map_lookup(&serving, &r.tid);
		if (since) {
			r.since = *since;
			*since = 0;
		}
	}
	if (s->flags & PEER)
		r.since = peer(r.args.v[1], &r.args);
	if (s->flags & STACK)
		send_stack(&r, ctx);
	flags = wake(&r, s->flags & URGENT);
	switch (s->capture) {
	case STRINGS:
		return send_strings(&r, s, flags);
	case TEXT:
		return send_text(&r, (void *)(s->strings[0] < MAX_ARGS ? r.args.v[s->strings[0]] : 0), flags);
	case BUFFER: {
		__u8 at = s->strings[0], len = s->strings[1];
		__u32 want = 0;

		if (at < MAX_ARGS && len < MAX_ARGS) {
			want = r.args.v[len];
			if (want > payload_max)
				want = payload_max;
			return send_bytes(&r, (void *)r.args.v[at], want, flags);
		}
	}
	}
	return rpc(&r, s, ctx, given, flags);
}

// returned reports that the function which contains a dispatch probe has returned.
static __always_inline int returned(void *ctx)
{
	struct record r = {};

	r.site = get_attach_cookie(ctx);
	if (!current_process(&r.pid, &r.tid))
		return 0;
	r.time = ktime_get_ns();
	r.what = RETURN;
	r.lost = lost_total;
	r.cpu = get_smp_processor_id();
	return send_bytes(&r, 0, 0, wake(&r, 0));
}

// enters notes where a function whose return is watched returns to, before the
// kernel hides it.
static __always_inline int enters(const struct regs *regs)
{
	struct hidden hidden = {.sp = regs->r[SP]};
	__u32 pid, tid;

	if (!current_process(&pid, &tid))
		return 0;
#if defined(__TARGET_ARCH_arm64)
	hidden.pc = regs->r[30];
#else
	if (probe_read_user(&hidden.pc, sizeof(hidden.pc), (void *)hidden.sp))
		return 0;
	hidden.sp += sizeof(hidden.pc);
#endif
	map_update(&returns, &tid, &hidden, BPF_ANY);
	return 0;
}

// begins notes that a worker thread takes up a call.
static __always_inline int begins(void)
{
	__u64 now = ktime_get_ns(), *since;
	__u32 pid, tid;

	if (!current_process(&pid, &tid))
		return 0;
	since = map_lookup(&serving, &tid);
	if (since)
		*since = now;
	else
		map_update(&serving, &tid, &now, BPF_ANY);
	return 0;
}

SEC("uprobe.multi/probe")
int on_probe(void *ctx)
{
	return hit(ctx);
}

SEC("uretprobe.multi/return")
int on_return(void *ctx)
{
	return returned(ctx);
}

SEC("uprobe.multi/begin")
int on_begin(void *ctx)
{
	return begins();
}

SEC("uprobe.multi/enter")
int on_enter(void *ctx)
{
	return enters(ctx);
}

/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* The few words of the kernel that probe.c needs: numbers of helpers, map types
 * and flags from include/uapi/linux/bpf.h, so that it builds without any
 * kernel's headers. */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_LRU_HASH = 9, MAP_RINGBUF = 27 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { RB_NO_WAKEUP = 1, RB_FORCE_WAKEUP = 2 };
enum { RB_AVAIL_DATA = 0 };

struct nsid {
	__u32 pid;
	__u32 tgid;
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)1;
static long (*const map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;

static __u64 (*const ktime_get_ns)(void) = (void *)5;
static __u32 (*const get_smp_processor_id)(void) = (void *)8;
static __u64 (*const get_current_pid_tgid)(void) = (void *)14;
static __u64 (*const get_current_uid_gid)(void) = (void *)15;
static long (*const get_current_comm)(void *buf, __u32 size) = (void *)16;
static __u64 (*const get_current_task)(void) = (void *)35;
static long (*const probe_read_user)(void *dst, __u32 size, const void *src) = (void *)112;
static long (*const probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*const probe_read_user_str)(void *dst, __u32 size, const void *src) = (void *)114;
static long (*const get_ns_current_pid_tgid)(__u64 dev, __u64 ino, struct nsid *ns, __u32 size) = (void *)120;
static void *(*const ringbuf_reserve)(void *map, __u64 size, __u64 flags) = (void *)131;
static void (*const ringbuf_submit)(void *record, __u64 flags) = (void *)132;
static void (*const ringbuf_discard)(void *record, __u64 flags) = (void *)133;
static __u64 (*const ringbuf_query)(void *map, __u64 what) = (void *)134;
static __u64 (*const get_attach_cookie)(void *ctx) = (void *)174;

#endif

// SPDX-License-Identifier: GPL-2.0-only
/*
 * next.bpf.c - the guard's programs as another version would have them: each
 * hook of the LSM and each tracepoint has one instruction more, so that none
 * of them is taken for the one that is pinned (a program's tag is a hash of its
 * instructions), and does the same.
 */
#include "kernel.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* The kernel hands over its arguments as numbers; libbpf's own macro does so. */
#pragma clang diagnostic ignored "-Wint-conversion"

#undef BPF_PROG
#define BPF_PROG(name, args...)						\
name(unsigned long long *ctx);						\
static __always_inline int next_##name(unsigned long long *ctx, args);	\
int name(unsigned long long *ctx)					\
{									\
	asm volatile("r0 = 1" : : : "r0");				\
	return next_##name(___bpf_ctx_cast(args));			\
}									\
static __always_inline int next_##name(unsigned long long *ctx, args)

#include "guard.bpf.c"

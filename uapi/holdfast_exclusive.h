/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * holdfast_exclusive.h - what every device with a struct hf_exclusive answers.
 *
 * Such a device is owned by one process, all its threads, or by a caller
 * inside the kernel, and by nobody else: descriptors neither make an owner nor
 * keep one. Whoever is not the owner gets EPERM for what needs one. Ownership
 * ends with UNLOCK or with the process, whoever still has the device open.
 *
 * /sys/dev/char/MAJOR:MINOR/hf_exclusive/abi tells such a device from others
 * without opening it.
 *
 * Unknown flags are refused with EINVAL. Structs only ever grow at their end;
 * their size is part of the command (_IOC_SIZE). A larger one than the kernel
 * knows is refused with E2BIG unless the rest is zero; in one that is read
 * back, the rest is set to zero.
 */
#ifndef HOLDFAST_EXCLUSIVE_H
#define HOLDFAST_EXCLUSIVE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define HF_EXCLUSIVE_ABI	1

/* Numbers 0x00 to 0x0f are those of every such device, the rest is the driver's. */
#define HF_EXCLUSIVE_IOC	0xE8

/*
 * HF_IOC_LOCK: become the owner; those who wait are served in their order. The
 * argument itself is the flags, 0.
 *  EAGAIN   held by somebody else, and the descriptor has O_NONBLOCK
 *  EDEADLK  the process is the owner already, or became it by another of its
 *           threads while this one waited
 *  EINTR    a signal was handled (restarted with SA_RESTART, at the queue's end)
 *  ENODEV   the device went away
 */
#define HF_IOC_LOCK		_IO(HF_EXCLUSIVE_IOC, 0x00)

/* HF_IOC_TRYLOCK: as HF_IOC_LOCK, but never waits: EAGAIN. */
#define HF_IOC_TRYLOCK		_IO(HF_EXCLUSIVE_IOC, 0x01)

/*
 * HF_IOC_UNLOCK: from any thread of the owner; who has waited longest is the
 * owner at once. The argument itself is the flags, 0.
 *  EPERM    the process is not the owner
 */
#define HF_IOC_UNLOCK		_IO(HF_EXCLUSIVE_IOC, 0x02)

/**
 * struct hf_exclusive_wait - how long HF_IOC_LOCK_UNTIL waits
 * @deadline_ns: on CLOCK_MONOTONIC; 0 or a time that is over: do not wait
 * @flags: 0
 * @reserved: 0
 */
struct hf_exclusive_wait {
	__u64 deadline_ns;
	__u32 flags;
	__u32 reserved;
};

/* HF_IOC_LOCK_UNTIL: as HF_IOC_LOCK, until a deadline: ETIMEDOUT. */
#define HF_IOC_LOCK_UNTIL	_IOW(HF_EXCLUSIVE_IOC, 0x03, struct hf_exclusive_wait)

/* What struct hf_exclusive_owner's state says. */
#define HF_EXCLUSIVE_FREE	0
#define HF_EXCLUSIVE_PROCESS	1
#define HF_EXCLUSIVE_KERNEL	2

/**
 * struct hf_exclusive_owner - who owns the device
 * @flags: in: 0
 * @state: HF_EXCLUSIVE_FREE, _PROCESS or _KERNEL
 * @pid: the owner's process id as the asker sees it; 0 when it cannot see it,
 *	and without an owning process
 * @waiters: how many wait
 * @token: rises with every new owner; 0 before the first
 * @since_ns: on CLOCK_BOOTTIME, when the owner became it; 0 when free
 * @lapses: how many owners died without HF_IOC_UNLOCK
 * @name: the owner's command, or what the caller inside the kernel calls itself;
 *	ends with 0
 */
struct hf_exclusive_owner {
	__u32 flags;
	__u32 state;
	__s32 pid;
	__u32 waiters;
	__u64 token;
	__u64 since_ns;
	__u64 lapses;
	char name[16];
};

/* HF_IOC_OWNER: who owns the device. Anybody may ask. */
#define HF_IOC_OWNER		_IOWR(HF_EXCLUSIVE_IOC, 0x04, struct hf_exclusive_owner)

#endif

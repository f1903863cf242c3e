/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * holdfast_guard.h - what the guard's BPF programs and the program that feeds
 * them share: the keys and values of its maps, and the report of a denial.
 *
 * A guarded device has a slot, which counts its owners. Somebody owns it when
 * there is an entry for him in the map of owners. Each entry is made and
 * deleted in one step, and whoever deletes it, the feeder or the kernel when
 * the owner dies, takes it off the count: so nothing here needs a lock.
 */
#ifndef HOLDFAST_GUARD_H
#define HOLDFAST_GUARD_H

#include <linux/types.h>

#define HF_GUARD_SLOTS		1024	/* guarded devices, siblings included */
#define HF_GUARD_OWNERS		4096
#define HF_GUARD_PROCESSES	8192	/* owners and members of trees */
#define HF_GUARD_TREE_MEMBERS	2048	/* alive at once */
#define HF_GUARD_FILTER		4096
#define HF_GUARD_TREES		4	/* that one process can be a member of */

/* The kernel's own dev_t: 12 bits of major, 20 of minor. */
#define HF_GUARD_DEV(major, minor) (((__u32)(major) << 20) | (__u32)(minor))

enum hf_guard_kind { HF_GUARD_CHARACTER = 0, HF_GUARD_BLOCK = 1 };

struct hf_guard_device {
	__u32 dev;
	__u32 kind;
	__u32 devpts;	/* dev_t of the file system of a pseudo-terminal, else 0 */
	__u32 zero;
};

/*
 * A process: its number and when it began, on CLOCK_BOOTTIME in nanoseconds.
 * Both stay as they are when a thread other than the first calls exec, which
 * task storage does not survive. A tree: 0 and its number.
 */
struct hf_guard_process {
	__u32 tgid;
	__u32 zero;
	__u64 start;
};

struct hf_guard_owner_key {
	struct hf_guard_device device;
	struct hf_guard_process owner;
};

/*
 * Counts only as long as its generation is its slot's. A helper may use the
 * device as long as somebody owns it (the program that feeds the guard, the
 * supervisors of a command), and is not counted.
 */
struct hf_guard_owner {
	__u64 until;	/* CLOCK_BOOTTIME; 0: no end */
	__u32 slot;
	__u32 generation;
	__u32 helper;
	__u32 claims;	/* how many claims this one entry stands for */
};

struct hf_guard_slot {
	struct hf_guard_device device;
	__u64 until;		/* the latest of its owners; 0: one has no end */
	__s64 owners;
	__u32 generation;	/* rises when the first of new owners comes */
	__u32 zero;
	__u64 reported;		/* when the last denial was reported */
	__u64 denials;
	__u64 unreported;	/* since then */
};

struct hf_guard_member {
	__u32 claims;			/* of the process itself */
	__u32 trees[HF_GUARD_TREES];
	__u32 zero;
};

struct hf_guard_tree {
	__s32 members;
	__u32 until_last;	/* ends with its last member, not with its root */
	struct hf_guard_process root;
};

enum hf_guard_operation {
	HF_GUARD_OPEN,
	HF_GUARD_READ_WRITE,
	HF_GUARD_IOCTL,
	HF_GUARD_MMAP,
	HF_GUARD_LOCK,
	HF_GUARD_FCNTL,
	HF_GUARD_RECEIVE,
	HF_GUARD_URING_CMD,
	HF_GUARD_KERNEL_OPEN,	/* mount, swap, device mapper */
};

struct hf_guard_denial {
	struct hf_guard_device device;
	struct hf_guard_process who;
	__u32 uid;
	__u32 operation;
	__u64 before;		/* denials of this device that were not reported */
	char command[16];
};

/* Written by the feeder, read by the programs, and counted by both. */
struct hf_guard_switches {
	__s64 active;		/* entries of owners; 0 lets everything pass at once */
	__u32 protect_memory;	/* others may not trace an owner or read its memory */
	__u32 latest_tree;
	__u64 lost_members;	/* children that did not fit into the map: not members */
	__u64 lost_reports;
	__u16 filter[HF_GUARD_FILTER];	/* how many devices with a slot have this hash */
};

/* Most devices are not guarded: one look at memory says so. */
static inline __u32 hf_guard_hash(const struct hf_guard_device *device)
{
	return ((device->dev ^ device->kind << 31) * 0x9E3779B1U) >> 20;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hf_exclusive.h - an owner for a device: one process or one caller inside the
 * kernel. Embed a struct hf_exclusive in the driver's own struct; see
 * docs/kernel.md for a driver in 20 lines.
 *
 * All functions are for process context. None sleeps but those that lock
 * (trylock does not) and hf_exclusive_destroy().
 */
#ifndef HF_EXCLUSIVE_H
#define HF_EXCLUSIVE_H

#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/poll.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <holdfast_exclusive.h>

struct attribute_group;
struct file;
struct pid;

/**
 * struct hf_exclusive_caller - an owner inside the kernel
 * @name: what users read about it
 *
 * Two callers are the same when they are the same object. Where a function
 * takes a caller, NULL means the process that runs.
 */
struct hf_exclusive_caller {
	const char *name;
};

struct hf_exclusive_waiter;

/*
 * Locks, in their order:
 *  struct pid's wait_pidfd.lock	of the process that runs, or that died
 *  struct hf_exclusive's lock		all fields below it
 * exit is on the wait queue of pid exactly while pid is set, and that changes
 * under both. An owner that is set or an heir leaves nobody free to barge; with
 * neither, nobody waits.
 */
struct hf_exclusive {
	spinlock_t lock;	/* see above */
	struct pid *pid;			/* owning process, or */
	const struct hf_exclusive_caller *caller;	/* owning caller, or */
	struct hf_exclusive_waiter *heir;	/* who will own it when it runs */
	struct list_head waiters;		/* the longest waiting first */
	u32 nr_waiters;
	bool gone;
	u64 token;
	u64 lapses;
	u64 since_ns;
	wait_queue_entry_t exit;
	wait_queue_head_t poll;
	struct work_struct freed;		/* wakes poll after a death */
};

void hf_exclusive_init(struct hf_exclusive *x);
void hf_exclusive_shutdown(struct hf_exclusive *x);
void hf_exclusive_destroy(struct hf_exclusive *x);

int __must_check hf_exclusive_lock(struct hf_exclusive *x,
				   const struct hf_exclusive_caller *caller);
int __must_check hf_exclusive_lock_killable(struct hf_exclusive *x,
					    const struct hf_exclusive_caller *caller);
int __must_check hf_exclusive_lock_interruptible(struct hf_exclusive *x,
						 const struct hf_exclusive_caller *caller);
int __must_check hf_exclusive_lock_timeout(struct hf_exclusive *x,
					   const struct hf_exclusive_caller *caller,
					   ktime_t deadline);
int __must_check hf_exclusive_trylock(struct hf_exclusive *x,
				      const struct hf_exclusive_caller *caller);
int hf_exclusive_unlock(struct hf_exclusive *x, const struct hf_exclusive_caller *caller);

bool hf_exclusive_is_owner(struct hf_exclusive *x, const struct hf_exclusive_caller *caller);
void hf_exclusive_get_owner(struct hf_exclusive *x, struct hf_exclusive_owner *owner);

long hf_exclusive_ioctl(struct hf_exclusive *x, struct file *file, unsigned int cmd,
			unsigned long arg);
__poll_t hf_exclusive_poll(struct hf_exclusive *x, struct file *file, poll_table *wait);

extern const struct attribute_group hf_exclusive_group;

#endif

// SPDX-License-Identifier: GPL-2.0-only
/*
 * guard.bpf.c - nobody but its owner uses a guarded device, root included.
 *
 * The LSM hooks of opening and using a file look at the device behind it. When
 * that is guarded and the process is none of its owners, the call fails with
 * EBUSY. Descriptors from before the claim are met as well, because reading,
 * writing and ioctl ask each time. What the hooks do not see is listed in
 * docs/guard.md.
 *
 * The programs need nobody: an owner that dies is taken off the maps here, at
 * the moment at which a pidfd of it becomes readable, and a time limit is
 * looked at on each call. So the guard holds, and ends, while the program that
 * feeds it is stopped or dead.
 */
#include <stdbool.h>
#include <stddef.h>
#include "kernel.h"
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/fcntl.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "holdfast_guard.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HF_GUARD_SLOTS);
	__type(key, struct hf_guard_device);
	__type(value, __u32);
} guarded SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HF_GUARD_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct hf_guard_slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HF_GUARD_OWNERS);
	__type(key, struct hf_guard_owner_key);
	__type(value, struct hf_guard_owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HF_GUARD_PROCESSES);
	__type(key, struct hf_guard_process);
	__type(value, struct hf_guard_member);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HF_GUARD_OWNERS);
	__type(key, __u32);
	__type(value, struct hf_guard_tree);
} trees SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct hf_guard_switches);
} switches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} denials SEC(".maps");

#define REPORT_EVERY_NS 100000000ULL

static __always_inline struct hf_guard_switches *all_switches(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&switches, &zero);
}

/* Whether anything is guarded: what every call of every process asks. */
static __always_inline bool active(void)
{
	struct hf_guard_switches *all = all_switches();

	return all && all->active > 0;
}

static __always_inline struct hf_guard_process process_of(struct task_struct *task)
{
	struct hf_guard_process process = { .tgid = task->tgid };

	process.start = task->group_leader->start_boottime;
	return process;
}

static __always_inline bool has_entry(const struct hf_guard_slot *slot,
				      const struct hf_guard_process *owner, __u64 now)
{
	struct hf_guard_owner_key key = { .device = slot->device, .owner = *owner };
	struct hf_guard_owner *entry = bpf_map_lookup_elem(&owners, &key);

	return entry && entry->generation == slot->generation && (!entry->until || entry->until > now);
}

static __always_inline bool owns(const struct hf_guard_slot *slot,
				 const struct hf_guard_process *process, __u64 now)
{
	struct hf_guard_member *member;
	struct hf_guard_process tree = {};
	int i;

	member = bpf_map_lookup_elem(&processes, process);
	if (!member)
		return false;
	if (has_entry(slot, process, now))
		return true;
	for (i = 0; i < HF_GUARD_TREES; i++) {
		tree.start = member->trees[i];
		if (tree.start && has_entry(slot, &tree, now))
			return true;
	}
	return false;
}

static __always_inline void report(struct hf_guard_slot *slot, const struct hf_guard_process *who,
				   __u32 operation, __u64 now)
{
	struct hf_guard_switches *all = all_switches();
	struct hf_guard_denial *denial;

	__sync_fetch_and_add(&slot->denials, 1);
	/* Two at once may both report: that is one line too many, not a lock. */
	if (now - slot->reported < REPORT_EVERY_NS) {
		__sync_fetch_and_add(&slot->unreported, 1);
		return;
	}
	denial = bpf_ringbuf_reserve(&denials, sizeof(*denial), 0);
	if (!denial) {
		if (all)
			__sync_fetch_and_add(&all->lost_reports, 1);
		return;
	}
	slot->reported = now;
	denial->device = slot->device;
	denial->who = *who;
	denial->uid = (__u32)bpf_get_current_uid_gid();
	denial->operation = operation;
	denial->before = slot->unreported;
	slot->unreported = 0;
	bpf_get_current_comm(denial->command, sizeof(denial->command));
	bpf_ringbuf_submit(denial, 0);
}

/* Even a feeder gone mad cannot shut these: memory devices, the aliases of
 * terminals, pseudo-terminal masters, virtual consoles.
 */
static __always_inline bool never_guarded(const struct hf_guard_device *device)
{
	__u32 major = device->dev >> 20, minor = device->dev & 0xfffff;

	if (device->kind == HF_GUARD_BLOCK)
		return false;
	return major == 1 || (major == 4 && minor < 64) || (major == 5 && minor <= 2);
}

static __always_inline int judge_device(const struct hf_guard_device *device, __u32 operation)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct hf_guard_switches *all = all_switches();
	struct hf_guard_process process;
	struct hf_guard_slot *slot;
	__u32 *number;
	__u64 now;

	if (!all || !all->filter[hf_guard_hash(device) & (HF_GUARD_FILTER - 1)] || all->active <= 0)
		return 0;
	number = bpf_map_lookup_elem(&guarded, device);
	if (!number || never_guarded(device))
		return 0;
	slot = bpf_map_lookup_elem(&slots, number);
	if (!slot || slot->owners <= 0 || slot->device.dev != device->dev ||
	    slot->device.kind != device->kind || slot->device.devpts != device->devpts)
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (slot->until && slot->until <= now)
		return 0;
	/* A worker of the kernel's (loop, dm) serves somebody who was asked. */
	if (task->flags & PF_KTHREAD)
		return 0;
	process = process_of(task);
	if (owns(slot, &process, now))
		return 0;
	report(slot, &process, operation, now);
	return -EBUSY;
}

static __always_inline bool is_pseudo_terminal(__u32 dev)
{
	return dev >> 20 >= 136 && dev >> 20 <= 143;
}

/* /dev/tty stands for another terminal: that one. So do /dev/console and
 * /dev/tty0, but what they stand for is never guarded, and always works so.
 */
static __always_inline void look_behind(struct file *file, struct hf_guard_device *device)
{
	struct tty_file_private *private;
	struct tty_struct *tty;
	struct dentry *node;

	private = file->private_data;
	if (!private)
		return;
	tty = BPF_CORE_READ(private, tty);
	if (!tty)
		return;
	device->dev = HF_GUARD_DEV(BPF_CORE_READ(tty, driver, major),
				   BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index));
	if (!is_pseudo_terminal(device->dev))
		return;
	/* Of the slave's side (drivers/tty/pty.c, ptmx_open()). */
	node = BPF_CORE_READ(tty, driver_data);
	device->devpts = node ? BPF_CORE_READ(node, d_sb, s_dev) : 0;
}

static __always_inline int judge(struct file *file, __u32 operation)
{
	struct hf_guard_device device = {};
	struct inode *inode = file->f_inode;
	__u16 format = inode->i_mode & 0170000;

	/* Most calls are about other files, and many about /dev/null. */
	if (format == 0020000) {
		device.dev = inode->i_rdev;
		if (device.dev >> 20 == 1)
			return 0;
		if (device.dev == HF_GUARD_DEV(5, 0))
			look_behind(file, &device);
		else if (is_pseudo_terminal(device.dev)) /* each devpts numbers them from 0 */
			device.devpts = inode->i_sb->s_dev;
	} else if (format == 0060000) {
		device.kind = HF_GUARD_BLOCK;
		device.dev = inode->i_rdev;
	} else {
		return 0;
	}
	return judge_device(&device, operation);
}

/* What an earlier module refused stays refused: `ret` is its answer. */
SEC("lsm/file_open")
int BPF_PROG(hf_open, struct file *file, int ret)
{
	return ret ? ret : judge(file, HF_GUARD_OPEN);
}

SEC("lsm/file_permission")
int BPF_PROG(hf_permission, struct file *file, int mask, int ret)
{
	return ret ? ret : judge(file, HF_GUARD_READ_WRITE);
}

SEC("lsm/file_ioctl")
int BPF_PROG(hf_ioctl, struct file *file, unsigned int command, unsigned long argument, int ret)
{
	return ret ? ret : judge(file, HF_GUARD_IOCTL);
}

/* Linux 6.8, and stable kernels since: 32-bit programs. */
SEC("?lsm/file_ioctl_compat")
int BPF_PROG(hf_ioctl_compat, struct file *file, unsigned int command, unsigned long argument, int ret)
{
	return ret ? ret : judge(file, HF_GUARD_IOCTL);
}

SEC("lsm/mmap_file")
int BPF_PROG(hf_mmap, struct file *file, unsigned long wanted, unsigned long given,
	     unsigned long flags, int ret)
{
	return ret || !file ? ret : judge(file, HF_GUARD_MMAP);
}

SEC("lsm/file_mprotect")
int BPF_PROG(hf_mprotect, struct vm_area_struct *area, unsigned long wanted, unsigned long given, int ret)
{
	struct file *file = area->vm_file;

	return ret || !file ? ret : judge(file, HF_GUARD_MMAP);
}

SEC("lsm/file_lock")
int BPF_PROG(hf_lock, struct file *file, unsigned int command, int ret)
{
	return ret ? ret : judge(file, HF_GUARD_LOCK);
}

/* The others look at or copy the descriptor, not at the device. */
SEC("lsm/file_fcntl")
int BPF_PROG(hf_fcntl, struct file *file, unsigned int command, unsigned long argument, int ret)
{
	if (ret || (command != F_SETFL && command != F_SETOWN && command != F_SETSIG &&
		    command != F_SETOWN_EX))
		return ret;
	return judge(file, HF_GUARD_FCNTL);
}

SEC("lsm/file_receive")
int BPF_PROG(hf_receive, struct file *file, int ret)
{
	return ret ? ret : judge(file, HF_GUARD_RECEIVE);
}

SEC("?lsm/uring_cmd")
int BPF_PROG(hf_uring_cmd, struct io_uring_cmd *command, int ret)
{
	struct file *file = command->file;

	return ret ? ret : judge(file, HF_GUARD_URING_CMD);
}

SEC("lsm/ptrace_access_check")
int BPF_PROG(hf_ptrace, struct task_struct *child, unsigned int mode, int ret)
{
	struct hf_guard_switches *all = all_switches();
	struct hf_guard_process process;
	struct hf_guard_member *member;

	if (ret || !all || all->active <= 0 || !all->protect_memory || !(mode & PTRACE_MODE_ATTACH))
		return ret;
	process = process_of(child);
	member = bpf_map_lookup_elem(&processes, &process);
	return member && member->claims ? -EPERM : 0;
}

/* Block devices that the kernel opens for somebody: mount, swapon, dm, md. No
 * hook of the LSMs is told their numbers, the device controller of the root
 * control group is (block/bdev.c, devcgroup_check_permission()).
 */
SEC("cgroup/dev")
int hf_kernel_open(struct bpf_cgroup_dev_ctx *context)
{
	struct hf_guard_device device = { .kind = HF_GUARD_BLOCK };

	if (!active() || (context->access_type & 0xffff) != BPF_DEVCG_DEV_BLOCK ||
	    !((context->access_type >> 16) & (BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE)))
		return 1;
	device.dev = HF_GUARD_DEV(context->major, context->minor);
	if (!judge_device(&device, HF_GUARD_KERNEL_OPEN))
		return 1;
	bpf_set_retval(-EBUSY); /* EPERM otherwise */
	return 0;
}

/* --- Who is a member of a tree, and who died --- */

/* Before the child can run (kernel/fork.c: wake_up_new_task() comes later). */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(hf_fork, struct task_struct *parent, struct task_struct *child)
{
	struct hf_guard_switches *all = all_switches();
	struct hf_guard_process process;
	struct hf_guard_member *member, inherited = {};
	struct hf_guard_tree *tree;
	bool any = false;
	int i;

	if (!all || all->active <= 0 || child->pid != child->tgid)
		return 0;
	process = process_of(parent);
	member = bpf_map_lookup_elem(&processes, &process);
	if (!member)
		return 0;
	for (i = 0; i < HF_GUARD_TREES; i++) {
		tree = member->trees[i] ? bpf_map_lookup_elem(&trees, &member->trees[i]) : NULL;
		if (!tree)
			continue;
		/* One tree may not fill the map for all the others. */
		if (tree->members >= HF_GUARD_TREE_MEMBERS) {
			__sync_fetch_and_add(&all->lost_members, 1);
			continue;
		}
		inherited.trees[i] = member->trees[i];
		any = true;
	}
	if (!any)
		return 0;
	process = process_of(child);
	if (bpf_map_update_elem(&processes, &process, &inherited, BPF_ANY)) {
		/* No room: the child is a stranger, and the claim stays safe. */
		__sync_fetch_and_add(&all->lost_members, 1);
		return 0;
	}
	for (i = 0; i < HF_GUARD_TREES; i++) {
		tree = inherited.trees[i] ? bpf_map_lookup_elem(&trees, &inherited.trees[i]) : NULL;
		if (tree)
			__sync_fetch_and_add(&tree->members, 1);
	}
	return 0;
}

struct dead {
	struct hf_guard_process process;
	__u64 trees[HF_GUARD_TREES];
};

static long end_claim(struct bpf_map *map, struct hf_guard_owner_key *key,
		      struct hf_guard_owner *entry, struct dead *dead)
{
	struct hf_guard_switches *all = all_switches();
	struct hf_guard_slot *slot;
	__u32 number = entry->slot;
	bool counted = !entry->helper;
	bool ends = false;
	int i;

	if (key->owner.tgid) {
		ends = key->owner.tgid == dead->process.tgid && key->owner.start == dead->process.start;
	} else {
		for (i = 0; i < HF_GUARD_TREES; i++)
			ends = ends || (dead->trees[i] && key->owner.start == dead->trees[i]);
	}
	if (!ends || bpf_map_delete_elem(&owners, key) || !counted)
		return 0;
	slot = bpf_map_lookup_elem(&slots, &number);
	if (slot)
		__sync_fetch_and_add(&slot->owners, -1);
	if (all)
		__sync_fetch_and_add(&all->active, -1);
	return 0;
}

/* When the last thread is gone and a pidfd becomes readable (kernel/exit.c,
 * exit_notify()); the process may be a zombie yet.
 */
SEC("fentry/do_notify_parent")
int BPF_PROG(hf_death, struct task_struct *task)
{
	struct hf_guard_member *member;
	struct hf_guard_tree *tree;
	struct dead dead = {};
	bool any;
	int i;

	if (task->pid != task->tgid || task->signal->live.counter)
		return 0;
	dead.process = process_of(task);
	member = bpf_map_lookup_elem(&processes, &dead.process);
	if (!member)
		return 0;
	any = member->claims;
	for (i = 0; i < HF_GUARD_TREES; i++) {
		__u32 number = member->trees[i];
		bool last, root;

		tree = number ? bpf_map_lookup_elem(&trees, &number) : NULL;
		if (!tree)
			continue;
		root = tree->root.tgid == dead.process.tgid && tree->root.start == dead.process.start;
		last = __sync_fetch_and_add(&tree->members, -1) == 1;
		if (last || (root && !tree->until_last)) {
			dead.trees[i] = number;
			any = true;
		}
		if (last)
			bpf_map_delete_elem(&trees, &number);
	}
	bpf_map_delete_elem(&processes, &dead.process);
	if (any)
		bpf_for_each_map_elem(&owners, end_claim, &dead, 0);
	return 0;
}

/* --- What the feeder asks --- */

/* When a process began, by its pidfd: no reused number can come between. */
SEC("iter/task")
int hf_who(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct hf_guard_process process;

	if (!task || task->pid != task->tgid)
		return 0;
	process = process_of(task);
	bpf_seq_write(context->meta->seq, &process, sizeof(process));
	return 0;
}

/* Who has a device open or mapped: those from before the claim. */
static __always_inline int tell(struct seq_file *out, struct task_struct *task, struct file *file, __u32 fd)
{
	struct {
		struct hf_guard_device device;
		struct hf_guard_process who;
		__u32 fd;
		__u32 zero;
	} found = {};
	struct inode *inode = file->f_inode;
	__u16 format = inode->i_mode & 0170000;

	if (format != 0020000 && format != 0060000)
		return 0;
	found.device.kind = format == 0060000 ? HF_GUARD_BLOCK : HF_GUARD_CHARACTER;
	found.device.dev = inode->i_rdev;
	if (format == 0020000 && is_pseudo_terminal(inode->i_rdev))
		found.device.devpts = inode->i_sb->s_dev;
	if (!bpf_map_lookup_elem(&guarded, &found.device))
		return 0;
	found.who = process_of(task);
	found.fd = fd;
	bpf_seq_write(out, &found, sizeof(found));
	return 0;
}

SEC("iter/task_vma")
int hf_mappings(struct bpf_iter__task_vma *context)
{
	struct vm_area_struct *area = context->vma;
	struct task_struct *task = context->task;
	struct file *file;

	if (!task || !area)
		return 0;
	file = area->vm_file;
	return file ? tell(context->meta->seq, task, file, ~0U) : 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kernel.h - what the guard looks at in the kernel, and no more. The names are
 * the kernel's; where their members lie is found at load time in
 * /sys/kernel/btf/vmlinux (CO-RE), so one object serves all kernels.
 */
#ifndef HOLDFAST_BPF_KERNEL_H
#define HOLDFAST_BPF_KERNEL_H

#include <linux/types.h>

typedef int pid_t;
typedef struct { int counter; } atomic_t;

#define __hf_found_at_load __attribute__((preserve_access_index))

struct super_block { __u32 s_dev; } __hf_found_at_load;
struct inode {
	__u16 i_mode;
	__u32 i_rdev;
	struct super_block *i_sb;
} __hf_found_at_load;
struct file {
	struct inode *f_inode;
	void *private_data;
} __hf_found_at_load;
struct dentry { struct super_block *d_sb; } __hf_found_at_load;
struct tty_driver { int major, minor_start; } __hf_found_at_load;
struct tty_struct {
	struct tty_driver *driver;
	int index;
	void *driver_data;
} __hf_found_at_load;
struct tty_file_private { struct tty_struct *tty; } __hf_found_at_load;
struct signal_struct { atomic_t live; } __hf_found_at_load;
struct task_struct {
	__u32 flags;
	pid_t pid, tgid;
	__u64 start_boottime;
	struct task_struct *group_leader;
	struct signal_struct *signal;
} __hf_found_at_load;
struct vm_area_struct { struct file *vm_file; } __hf_found_at_load;
struct io_uring_cmd { struct file *file; } __hf_found_at_load;

struct bpf_map;
struct seq_file;
struct bpf_iter_meta { struct seq_file *seq; } __hf_found_at_load;
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __hf_found_at_load;
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
} __hf_found_at_load;
struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
} __hf_found_at_load;

/* Of the kernel's headers, which are not for programs. */
#define PF_KTHREAD 0x00200000
#define PTRACE_MODE_ATTACH 0x02

#endif

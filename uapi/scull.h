/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * scull.h - how the memory devices of scull.ko are laid out.
 *
 * Data is kept in quanta of `quantum` bytes, `qset` of which make a set. This
 * says nothing about what is read and written; it is for those who want to
 * see what a layout costs. A layout is that of a device's data as a whole, so
 * it can be changed only while there is none: open for writing alone, which
 * truncates, then set it.
 */
#ifndef _UAPI_SCULL_H
#define _UAPI_SCULL_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define SCULL_QUANTUM_MAX	(128 * 1024)
#define SCULL_QSET_MAX		(16 * 1024)

/**
 * struct scull_layout - argument of the ioctls
 * @quantum: bytes in a quantum, 1 to SCULL_QUANTUM_MAX
 * @qset: quanta in a set, 1 to SCULL_QSET_MAX
 */
struct scull_layout {
	__u32 quantum;
	__u32 qset;
};

/* Any other command: ENOTTY. An argument that cannot be read or written: EFAULT. */
#define SCULL_IOC_GET_LAYOUT	_IOR('k', 0xc0, struct scull_layout)
/* EBADF: not open for writing. EINVAL: out of range. EBUSY: there is data. */
#define SCULL_IOC_SET_LAYOUT	_IOW('k', 0xc1, struct scull_layout)
/* As SET with the module's parameters. */
#define SCULL_IOC_RESET_LAYOUT	_IO('k', 0xc2)

#endif /* _UAPI_SCULL_H */

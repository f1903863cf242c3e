/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * holdfast_checksum.h - what /dev/hf_checksum* answers beside the ioctls of
 * holdfast_exclusive.h.
 */
#ifndef HOLDFAST_CHECKSUM_H
#define HOLDFAST_CHECKSUM_H

#include <holdfast_exclusive.h>

/* The most that one HF_IOC_PROCESS takes. */
#define HF_CHECKSUM_MAX		(64u << 20)

/**
 * struct hf_checksum_process - the sums of a buffer
 * @data: in: its address
 * @size: in: its bytes, at most HF_CHECKSUM_MAX
 * @flags: in: 0
 * @crc32c: out: CRC-32C (Castagnoli) as iSCSI and ext4 write it: all ones before
 *	and inverted after
 * @sha256: out
 */
struct hf_checksum_process {
	__u64 data;
	__u64 size;
	__u32 flags;
	__u32 crc32c;
	__u8 sha256[32];
};

/*
 * HF_IOC_PROCESS: by any thread of the owner, as often as it likes.
 *  EPERM    the process is not the owner
 *  EINTR    a signal was handled before it began
 *  ENODEV   the device went away
 */
#define HF_IOC_PROCESS		_IOWR(HF_EXCLUSIVE_IOC, 0x10, struct hf_checksum_process)

#endif
